"""The gated selector: an image is judged by where it stands in its pool.

Permuting the pool permutes the logits, and time grows with the number of images, as with the selectors of
:mod:`activelabel.agents.mlp`; what differs is what an image is compared with, and by what kind of unit. With the pool's
mean m and deviation s, number by number, the logit of image i of a pool of N is::

    z_i = (x_i - m) / s
    h_i = sigmoid(A x_i + B z_i + C [m, s]) * tanh(A' x_i + B' z_i + C' [m, s])        logit_i = w tanh(D h_i)

The K largest of N logits are extremes, and an unbounded unit says most about the outliers of a pool; here each unit is
bounded, as in the LSTM of MedSelect (§3.1), whose gates these are (Hochreiter and Schmidhuber 1997) without its memory.
A maximum over the pool would be such an outlier as well; a deviation is not.

By default the K images of the largest logits of the whole pool are chosen, in training K are drawn without replacement,
as with the BiLSTM.

::

    python train.py --selector gated --hidden 64
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from activelabel.agents.mlp import PooledSelector
from activelabel.agents.policies import SelectorPolicy, draw_weights

_VARIANCE = 1e-4
"""Added to the pool's variances, whose mean over the data is 1: a number that does not vary in a pool says nothing."""


class GatedSelector(PooledSelector):
    """Gated units that see an image, and how it differs from its pool; see the module.

    Parameters
    ----------
    input_dim: numbers an image.
    hidden: units of each of the two hidden layers.
    """

    def _make_layers(self, input_dim: int, hidden: int) -> None:
        # The first half are the gates, the other what passes them.
        self.of_image = nn.Linear(input_dim, 2 * hidden)
        self.of_place = nn.Linear(input_dim, 2 * hidden, bias=False)
        self.of_pool = nn.Linear(2 * input_dim, 2 * hidden, bias=False)
        self.second = nn.Linear(hidden, hidden)
        self.logit = nn.Linear(hidden, 1)

    def read(self, images: Tensor) -> Tensor:
        """Return the images as they are."""
        return images

    def context(self, seen: Tensor) -> Tensor:
        """Return mean and deviation over the pool, ``(B, 2 f)``."""
        variance, mean = torch.var_mean(seen, dim=1, correction=0)
        return torch.cat([mean, (variance + _VARIANCE).sqrt()], dim=-1)

    def context_of_blocks(self, blocks: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, int]:
        """See :class:`~activelabel.agents.mlp.PooledSelector`; the sums are in float64."""
        n, total, squares = 0, torch.zeros(()), torch.zeros(())
        for images in blocks():
            seen = images.double()
            n += seen.shape[1]
            total = seen.sum(dim=1) + total.to(seen.device)
            squares = seen.square_().sum(dim=1) + squares.to(seen.device)
        mean = total / n
        variance = (squares / n - mean.square()).clamp(min=0)
        return torch.cat([mean, (variance + _VARIANCE).sqrt()], dim=-1).float(), n

    def score(self, seen: Tensor, context: Tensor) -> Tensor:
        """See :class:`~activelabel.agents.mlp.PooledSelector`."""
        mean, deviation = context.chunk(2, dim=-1)
        # A x + B (x - m) / s = (A + B / s) x - B (m / s): one product with weights of its own for each pool, and no
        # second copy of the images.
        weights = self.of_image.weight.t() + self.of_place.weight.t() / deviation[:, :, None]
        offset = self.of_image.bias + self.of_pool(context) - self.of_place(mean / deviation)
        gate, value = torch.baddbmm(offset[:, None, :], seen, weights).chunk(2, dim=-1)
        first = gate.sigmoid() * value.tanh()
        logits: Tensor = self.logit(self.second(first).tanh()).squeeze(-1)
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights as PyTorch's linear layers do, from the given generator."""
        joint = 4 * self.of_image.in_features
        for layer in (self.of_image, self.of_place, self.of_pool):
            draw_weights(layer, joint, generator)
        draw_weights(self.second, self.second.in_features, generator)
        draw_weights(self.logit, self.logit.in_features, generator)


class GatedPolicy(SelectorPolicy):
    """The gated selector: K images are drawn of the whole pool.

    Parameters
    ----------
    hidden: units of each of the two hidden layers.
    inputs, init_seed, ...: see :class:`~activelabel.agents.policies.SelectorPolicy`.
    """

    selector_class = GatedSelector
