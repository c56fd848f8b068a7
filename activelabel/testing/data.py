"""Checks of data sets and backbones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch

from activelabel.data import Cohort, split_cohort
from activelabel.data.backbones import make_backbone
from activelabel.seeding import stream
from activelabel.testing.shared import Check, expect, global_generators_untouched, run_checks

COHORT_CHECKS = ("cohort", "determinism", "global random numbers", "content", "split")
"""Names of the checks of a data set."""

BACKBONE_CHECKS = ("shape", "determinism", "global random numbers", "single and batch", "content")
"""Names of the checks of a backbone."""


def check_cohort(function: Callable[..., Any], skip: Collection[str] = (), **options: Any) -> None:
    """Check a data set.

    Parameters
    ----------
    function: returns the cohort.
    skip: names of :data:`COHORT_CHECKS` to leave out.
    **options: that the function is called with.

    Raises
    ------
    ConformanceError: listing what failed.
    """

    def cohort() -> None:
        made = function(**options)
        expect(isinstance(made, Cohort), f"it returned {type(made).__name__}; it must return a Cohort.")
        expect(made.features is not None or made.images is not None, "it has neither features nor images.")

    def determinism() -> None:
        a, b = function(**options), function(**options)
        same = np.array_equal(a.labels, b.labels) and (a.features is None or np.array_equal(a.features, b.features))
        expect(same, "called twice it returns different data.")

    def generators() -> None:
        with global_generators_untouched("it"):
            function(**options)

    def content() -> None:
        made = function(**options)
        if made.features is not None:
            expect(np.isfinite(made.features).all(), "there are features that are NaN or infinite.")
        counts = (made.labels == 1).sum(axis=0)
        rare = [f"{name} ({n})" for name, n in zip(made.classes, counts.tolist(), strict=True) if n < 10]
        expect(not rare, f"classes with fewer than 10 images cannot be split: {', '.join(rare)}.")

    def split() -> None:
        made = function(**options)
        found = split_cohort(made, (0.7, 0.15, 0.15))
        parts = (found.train, found.val, found.test)
        expect(min(map(len, parts)) > 0, f"training, validation and test have {[len(p) for p in parts]} images.")

    checks: tuple[Check, ...] = (cohort, determinism, generators, content, split)
    run_checks(_name(function), dict(zip(COHORT_CHECKS, checks, strict=True)), skip)


def check_backbone(name: str | Callable[..., Any], skip: Collection[str] = ()) -> None:
    """Check a backbone.

    Parameters
    ----------
    name: what :func:`~activelabel.data.backbones.make_backbone` takes; or a function of a module, which it is imported
        from again.
    skip: names of :data:`BACKBONE_CHECKS` to leave out.

    Raises
    ------
    ConformanceError: listing what failed.
    """
    path = name if isinstance(name, str) else f"{name.__module__}:{name.__qualname__}"
    images = stream(0, "testing", "backbone")

    def embed(n: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
        backbone = make_backbone(path, device="cpu")
        shown = stream(0, "testing", "backbone").integers(0, 256, (3, backbone.size, backbone.size, 3))
        return backbone(shown.astype(np.uint8)[:n])

    def shape() -> None:
        found = embed()
        expect(np.isfinite(found).all(), "there are features that are NaN or infinite.")

    def determinism() -> None:
        first = embed()
        with torch.random.fork_rng(devices=[]):
            torch.rand(int(images.integers(1, 9)))
            expect(np.array_equal(first, embed()), "made twice it gives different features of the same images.")

    def generators() -> None:
        with global_generators_untouched("it"):
            embed()

    def single_and_batch() -> None:
        gap = float(np.abs(embed()[:1] - embed(1)).max())
        expect(gap < 1e-3, f"an image alone gets other features than among others (by {gap:.2g}).")

    def content() -> None:
        found = embed()
        expect(not np.allclose(found[0], found[1], atol=1e-6), "two different images get the same features.")

    checks: tuple[Check, ...] = (shape, determinism, generators, single_and_batch, content)
    run_checks(f"backbone {path}", dict(zip(BACKBONE_CHECKS, checks, strict=True)), skip)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))
