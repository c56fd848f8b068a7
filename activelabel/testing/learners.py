"""Checks of learners, the classifiers that an episode trains."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelabel.envs.active_engine import takes_images
from activelabel.envs.learners import checked, checked_latent, make_learner
from activelabel.seeding import stream
from activelabel.testing.shared import Check, Failed, expect, global_generators_untouched, run_checks

LEARNER_CHECKS = (
    *("shape", "determinism", "global random numbers", "single and batch", "padding", "inputs", "shared images"),
    *("one image a class", "warm", "learning"),
)
"""Names of the checks of a learner."""

_C = 3


def check_learner(learner: Any, skip: Collection[str] = (), **arguments: Any) -> None:
    """Check a learner of features or of images.

    Parameters
    ----------
    learner: what :func:`~activelabel.envs.learners.make_learner` takes, or the class, or a function that makes one.
    skip: names of :data:`LEARNER_CHECKS` to leave out.
    **arguments: that it is made with.

    Raises
    ------
    ConformanceError: listing what failed.
    SettingsError: if it cannot be made.
    """
    by_name = isinstance(learner, str) or (hasattr(learner, "fit") and not isinstance(learner, type))

    def make() -> Any:
        return make_learner(learner, **arguments) if by_name else make_learner(learner(**arguments))

    checks = _Learner(make)
    run_checks(f"learner {type(checks.images).__name__}", checks.checks(), skip)


@dataclass(frozen=True)
class _Labelled:
    """Labelled images of ``B`` episodes, as :class:`~activelabel.envs.learners.Learner` is given them."""

    x: Tensor
    y: Tensor
    weight: Tensor
    unseen: Tensor
    truth: Tensor


class _Learner:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.images = make()
        self.on_images = takes_images(self.images)

    def checks(self) -> dict[str, Check]:
        found = (
            *(self.shape, self.determinism, self.generators, self.single_and_batch, self.padding, self.inputs),
            *(self.shared_images, self.one_image_a_class, self.warm, self.learning),
        )
        return dict(zip(LEARNER_CHECKS, found, strict=True))

    def data(self, episodes: int = 3, each: int = 4) -> _Labelled:
        """Three classes that lie far apart, ``each`` labelled images of each, 12 unseen ones; one place is empty."""
        episodes = 1 if self.on_images else episodes
        rng = stream(0, "testing", "learner", each)
        y, truth = np.tile(np.arange(_C), (3, each)), np.tile(np.arange(_C), 4)

        def drawn(classes: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
            if self.on_images:
                side = getattr(self.images, "size", None) or 32
                shades = (
                    40 + 80 * classes[..., None, None, None] + rng.integers(-20, 20, (*classes.shape, side, side, 3))
                )
                return torch.from_numpy(shades.astype(np.uint8))
            points = 3 * np.eye(_C, 6)[classes] + 0.5 * rng.standard_normal((*classes.shape, 6))
            return torch.from_numpy(points.astype(np.float32))

        weight = torch.ones(3, y.shape[1])
        if each > 1:
            weight[:, -1] = 0
        x = drawn(y)
        return _Labelled(
            x[:episodes], torch.from_numpy(y)[:episodes], weight[:episodes], drawn(truth), torch.from_numpy(truth)
        )

    def fit(self, data: _Labelled, previous: Tensor | None = None) -> Any:
        return self.make().fit(data.x, data.y, data.weight, _C, previous)

    def ask(self, model: Any, data: _Labelled, unseen: Tensor | None = None) -> Tensor:
        x = data.unseen if unseen is None else unseen
        n = x.shape[1] if x.ndim == data.x.ndim else len(x)
        return checked(model.predict_proba(x), (len(data.x), n, _C), self.images)

    def shape(self) -> None:
        data = self.data()
        model = self.fit(data)
        total = self.ask(model, data).sum(dim=2)
        expect((total - 1).abs().max() < 1e-3, f"the probabilities of an image sum to {float(total.flatten()[0]):.3f}.")
        if self.on_images:
            checked_latent(model, data.unseen[None], self.images.latent_size, self.images)

    def determinism(self) -> None:
        data = self.data()
        same = torch.equal(self.ask(self.fit(data), data), self.ask(self.fit(data), data))
        expect(same, "fitted twice on the same images it predicts differently.")

    def generators(self) -> None:
        data = self.data()
        with global_generators_untouched("it"):
            self.ask(self.fit(data), data)

    def single_and_batch(self) -> None:
        data = self.data()
        together = self.ask(self.fit(data), data)
        for i in range(len(data.x)):
            some = replace(data, x=data.x[i : i + 1], y=data.y[i : i + 1], weight=data.weight[i : i + 1])
            gap = float((self.ask(self.fit(some), some)[0] - together[i]).abs().max())
            expect(gap < 1e-4, f"an episode alone is predicted otherwise than among others (by {gap:.2g}).")

    def padding(self) -> None:
        data = self.data()
        x, y = data.x.clone(), data.y.clone()
        x[:, -1], y[:, -1] = x[:, 0], (y[:, -1] + 1) % _C
        gap = float((self.ask(self.fit(replace(data, x=x, y=y)), data) - self.ask(self.fit(data), data)).abs().max())
        expect(gap < 1e-4, f"what stands in a place of weight 0 changes the predictions (by {gap:.2g}).")

    def inputs(self) -> None:
        data, kept = self.data(), self.data()
        self.ask(self.fit(data), data)
        for name in ("x", "y", "weight", "unseen"):
            expect(
                torch.equal(getattr(data, name), getattr(kept, name)), f"it writes into {name}, which is not its own."
            )

    def shared_images(self) -> None:
        data = self.data()
        model = self.fit(data)
        each = self.ask(model, data, data.unseen[None].repeat(len(data.x), *(1,) * data.unseen.ndim))
        gap = float((each - self.ask(model, data)).abs().max())
        expect(gap < 1e-4, f"images (n, d) are predicted otherwise than the same images (B, n, d) (by {gap:.2g}).")

    def one_image_a_class(self) -> None:
        data = self.data(each=1)
        self.ask(self.fit(data), data)

    def warm(self) -> None:
        if not getattr(self.images, "warm", False):
            return
        data, more = self.data(), self.data(each=5)
        warm = getattr(self.fit(data), "warm", None)
        shape = (len(data.x), _C, data.x.shape[1] + 1)
        if not isinstance(warm, Tensor) or tuple(warm.shape) != shape:
            raise Failed(f"it has warm = True; its models need warm {shape}.")
        padded = torch.zeros(len(data.x), _C, more.x.shape[1] + 4)
        padded[:, :, : shape[2] - 1], padded[:, :, -1] = warm[:, :, :-1], warm[:, :, -1]
        self.ask(self.fit(more, padded), more)

    def learning(self) -> None:
        data = self.data()
        right = float((self.ask(self.fit(data), data).argmax(dim=2) == data.truth).float().mean())
        expect(right > 0.6, f"of images of three classes that lie far apart it gets {right:.0%} right.")
