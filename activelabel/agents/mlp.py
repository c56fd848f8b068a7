"""Selectors that are the same for every order of the pool: each image by itself, and what the pool is like.

A pool has no order, but the BiLSTM of MedSelect (§3.1) reads it in one. Permuting the pool of these two permutes their
logits (Zaheer et al. 2017, "Deep Sets"). Any N; time grows with N. The MLP's logit of image i of a pool of N is made of
its own numbers and of what it stands among, the mean and the maximum, number by number, of all N images::

    h_i = relu(A x_i + C [mean_j x_j, max_j x_j])        logit_i = w relu(B h_i)

The deep-sets selector takes mean and maximum of what it has learned to read in the images, not of their numbers::

    h_i = relu(A x_i)        logit_i = w relu(B h_i + C [mean_j h_j, max_j h_j])

By default the K images of the largest logits of the whole pool are chosen, in training K are drawn without replacement,
as with the BiLSTM.

::

    python train.py --selector mlp --hidden 128 --updates 300
    python train.py --selector deep-sets --hidden 128
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from activelabel.agents.policies import Selector, SelectorPolicy, draw_weights
from activelabel.data.derived import ROWS


class PooledSelector(Selector):
    """A selector that knows of the pool two numbers for each of an image's, no more; large pools are read in blocks.

    They are the mean and the maximum over the pool; a subclass that takes others overrides :meth:`context` and
    :meth:`context_of_blocks`.
    """

    @property
    def reads_blocks(self) -> bool:
        """See :class:`~activelabel.agents.policies.Selector`."""
        return True

    @abstractmethod
    def read(self, images: Tensor) -> Tensor:
        """Return what the pool is summed up by, ``(B, n, f)``, from images ``(B, n, input_dim)``."""

    @abstractmethod
    def score(self, seen: Tensor, context: Tensor) -> Tensor:
        """Return logits ``(B, n)`` from what was read and the pool's :meth:`context`."""

    def context(self, seen: Tensor) -> Tensor:
        """Return ``(B, 2 f)``, what is known of the pool, from what was read of all of its images, ``(B, N, f)``."""
        return torch.cat([seen.mean(dim=1), seen.amax(dim=1)], dim=-1)

    def context_of_blocks(self, blocks: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, int]:
        """Return :meth:`context` of a pool that is read in ``blocks`` (see :meth:`score_blocks`), and its N."""
        n, total, largest = 0, torch.zeros(()), torch.tensor(-torch.inf)
        for images in blocks():
            seen = self.read(images)
            n += seen.shape[1]
            total = seen.sum(dim=1).double() + total.to(seen.device)
            largest = seen.amax(dim=1).maximum(largest.to(seen.device))
        return torch.cat([(total / n).float(), largest], dim=-1), n

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, N)`` of float32 ``(B, N, input_dim)``."""
        if images.shape[1] > ROWS and not torch.is_grad_enabled():  # nothing has to be kept for a gradient
            return self.score_blocks(lambda: torch.split(images, ROWS, dim=1))
        seen = self.read(images)
        return self.score(seen, self.context(seen))

    def score_blocks(self, blocks: Callable[[], Iterable[Tensor]]) -> Tensor:
        """See :class:`~activelabel.agents.policies.Selector`; the blocks are read twice.

        Equal to those of :meth:`forward` but for the rounding of the mean, whose sum over blocks is in float64.
        """
        context, n = self.context_of_blocks(blocks)
        # Into one tensor: many small ones that are kept would lie between the freed large ones and hold their memory.
        logits, end = context.new_empty(len(context), n), 0
        for images in blocks():
            start, end = end, end + images.shape[1]
            logits[:, start:end] = self.score(self.read(images), context)
        return logits


class MLPSelector(PooledSelector):
    """Per-image MLP with the pool's mean and maximum; see the module.

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of each of the two hidden layers.
    """

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        self.of_image = nn.Linear(input_dim, hidden)
        self.of_pool = nn.Linear(2 * input_dim, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.logit = nn.Linear(hidden, 1)

    def read(self, images: Tensor) -> Tensor:
        """Return the images as they are."""
        return images

    def score(self, seen: Tensor, context: Tensor) -> Tensor:
        """See :class:`PooledSelector`."""
        # The pool's share of the first layer is computed once for all of its images.
        first = torch.relu(self.of_image(seen) + self.of_pool(context)[:, None, :])
        logits: Tensor = self.logit(torch.relu(self.second(first))).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's linear layers do, from the given generator."""
        joint = self.of_image.in_features + self.of_pool.in_features
        draw_weights(self.of_image, joint, generator)
        draw_weights(self.of_pool, joint, generator)
        draw_weights(self.second, self.second.in_features, generator)
        draw_weights(self.logit, self.logit.in_features, generator)


class DeepSetsSelector(PooledSelector):
    """A layer that reads each image, and one with the pool's mean and maximum of what was read; see the module.

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of each of the two hidden layers.
    """

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        self.first = nn.Linear(input_dim, hidden)
        self.of_image = nn.Linear(hidden, hidden)
        self.of_pool = nn.Linear(2 * hidden, hidden, bias=False)
        self.logit = nn.Linear(hidden, 1)

    def read(self, images: Tensor) -> Tensor:
        """Return the units of the first layer."""
        return torch.relu(self.first(images))

    def score(self, seen: Tensor, context: Tensor) -> Tensor:
        """See :class:`PooledSelector`."""
        second = torch.relu(self.of_image(seen) + self.of_pool(context)[:, None, :])
        logits: Tensor = self.logit(second).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's linear layers do, from the given generator."""
        joint = self.of_image.in_features + self.of_pool.in_features
        draw_weights(self.first, self.first.in_features, generator)
        draw_weights(self.of_image, joint, generator)
        draw_weights(self.of_pool, joint, generator)
        draw_weights(self.logit, self.logit.in_features, generator)


class MLPPolicy(SelectorPolicy):
    """The MLP selector: K images are drawn of the whole pool.

    Parameters
    ----------
    hidden: units of each of the two hidden layers.
    inputs, init_seed, ...: see :class:`~activelabel.agents.policies.SelectorPolicy`.
    """

    selector_class = MLPSelector


class DeepSetsPolicy(SelectorPolicy):
    """The deep-sets selector: K images are drawn of the whole pool.

    Parameters
    ----------
    hidden: units of each of the two hidden layers.
    inputs, init_seed, ...: see :class:`~activelabel.agents.policies.SelectorPolicy`.
    """

    selector_class = DeepSetsSelector
