"""Linear classifiers of many episodes at once, and the descent that fits them; to the last bit as one by one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

_ROWS = 64
_FEW_ROWS = 16

LARGE = 65_536
"""Points that are so many that an array of them is passed over as seldom as can be."""

_BLOCK = 32_768

_MANY_IMAGES = 1024

_ALIGNED = 8
"""Matrices have a multiple of so many rows and columns: how the linear algebra library rounds depends on whether a row,
or the next matrix of a batch, begins at a multiple of so many numbers."""


class LinearModel:
    """Linear classifiers.

    Parameters
    ----------
    weight: float32 ``(B, C, d)``.
    bias: float32 ``(B, C)``.
    warm: what the next fit can start from, ``(B, C, L + 1)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor, warm: Tensor | None = None) -> None:
        self.weight, self.bias, self.warm = weight, bias, warm

    def predict_proba(self, x: Tensor) -> Tensor:
        """See :class:`~activelabel.envs.learners.Model`."""
        batch, classes, dim = self.weight.shape
        if x.ndim == 3:
            logits = (aligned(self.weight, 2) @ aligned(x, 1, 2).transpose(1, 2))[:, :, : x.shape[1]]
        else:
            logits = shared_product(self.weight.reshape(batch * classes, dim), x).reshape(batch, classes, len(x))
        return softmax(logits + self.bias[:, :, None]).transpose(1, 2)


def aligned(values: Tensor, *dims: int) -> Tensor:
    """Return an array with zeros after it in some dimensions, so that they are whole multiples of 8; itself if so."""
    shape = [-(-size // _ALIGNED) * _ALIGNED if i in dims else size for i, size in enumerate(values.shape)]
    if shape == list(values.shape):
        return values
    padded = values.new_zeros(shape)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded


def shared_product(rows: Tensor, x: Tensor) -> Tensor:
    """Return ``rows @ x.T``, ``(r, n)``, alike to the last bit however many rows there are.

    The linear algebra library takes other routes, which round otherwise, for products of other sizes; so it is always
    given 64 rows, or 16 where ``x`` is large: so large a pool is mostly played alone, with few rows.
    """
    rows, x = aligned(rows, 1), aligned(x, 1)
    n, size = len(rows), _ROWS if len(x) < LARGE else _FEW_ROWS
    padded = rows.new_zeros(-(-n // size) * size, rows.shape[1])
    padded[:n] = rows
    out = rows.new_empty(len(padded), len(x))
    for start in range(0, len(padded), size):
        torch.mm(padded[start : start + size], x.T, out=out[start : start + size])
    return out[:n]


class Exponentials:
    """``exp(logits - max)`` over dimension 1 of ``(B, C, n)``, alike to the last bit however large B is.

    torch computes the exponentials of most elements in vectors and of the last few of a thread's share one by one, and
    the two round differently: which elements those are depends on B. So they are computed in blocks that one thread
    takes, filled up to whole vectors.

    Parameters
    ----------
    like: gives the shape, dtype and device.
    """

    def __init__(self, like: Tensor) -> None:
        n = like.numel()
        flat = like.new_zeros(-(-n // 64) * 64)
        self.values = flat[:n].view(like.shape)
        """Put the logits here."""
        size = _BLOCK if like.device.type == "cpu" else max(1, len(flat))
        self._blocks = [flat[start : start + size] for start in range(0, len(flat), size)]

    def compute(self) -> Tensor:
        """Turn the logits in ``values`` into exponentials, in place; returns their sum over dimension 1."""
        self.values.sub_(self.values.amax(dim=1, keepdim=True))
        for block in self._blocks:
            block.exp_()
        return self.values.sum(dim=1, keepdim=True)


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax over dimension 1 of ``(B, C, n)``."""
    exponentials = Exponentials(logits)
    exponentials.values.copy_(logits)
    return exponentials.values.div_(exponentials.compute())


def descend(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    n_classes: int,
    c: float,
    epochs: int,
    previous: Tensor | None,
    tolerance: float | None = None,
) -> LinearModel:
    """Fit softmax classifiers; see :class:`~activelabel.envs.learners.SoftmaxHead` and
    :class:`~activelabel.envs.learners.Learner` for the arguments.

    With a ``tolerance`` an episode's classifier is final once no entry of its gradient is larger, which is looked up
    every 50 epochs; others go on.

    ``W = A X``: with ``P`` the predicted probabilities and ``n`` labelled images, the gradient of ``A`` is
    ``(P - Y) / n + A / (c n)``. Of more than 1024 images, and more than features, ``W`` itself descends: their inner
    products would grow with the square of their number.
    """
    primal = previous is None and x.shape[1] > max(_MANY_IMAGES, x.shape[2])
    places, dim = x.shape[1:]
    x, y, weight = aligned(x, 1, 2), aligned(y, 1), aligned(weight, 1)  # images of weight 0 change nothing
    images = _Primal(x, weight) if primal else _Dual(x, weight)
    n = weight.sum(dim=1)[:, None, None]
    share = weight[:, None, :] / n
    target = one_hot(y, n_classes).transpose(1, 2).to(x.dtype)
    decay = 1 / (c * n)
    # The loss curves at most half as much as the inner products, whose largest eigenvalue is below their norm.
    step = 1 / (0.5 * images.norm / n + decay)
    keep, pull = 1 - step * decay, step * share
    root = (step * decay).sqrt()
    limit = (1 - root) / (1 + root)  # more momentum than this only swings on a loss that is so strongly convex
    if previous is None:
        a, bias = x.new_zeros(len(x), n_classes, images.size), x.new_zeros(len(x), n_classes, 1)
    else:
        a, bias = aligned(previous[:, :, :places], 2), previous[:, :, -1:]
    ahead, ahead_bias = a, bias
    exponentials, pulled = Exponentials(target), target * pull
    error = exponentials.values
    done, final, final_bias = n < 0, a, bias
    for epoch in range(epochs):
        images.logits(ahead, out=error)
        error.add_(ahead_bias)
        total = exponentials.compute()
        error.mul_(pull / total).sub_(pulled)
        new, new_bias = (ahead * keep).sub_(images.pulled(error)), ahead_bias - error.sum(dim=2, keepdim=True)
        if tolerance is not None and epoch % 50 == 49:
            small = (torch.cat([ahead - new, ahead_bias - new_bias], dim=2) / step).abs().amax(dim=(1, 2), keepdim=True)
            fresh = (small <= tolerance) & ~done
            final, final_bias = torch.where(fresh, new, final), torch.where(fresh, new_bias, final_bias)
            done |= fresh
            if bool(done.all()):
                break
        momentum = limit.clamp(max=epoch / (epoch + 3))
        ahead = (new - a).mul_(momentum).add_(new)
        ahead_bias = (new_bias - bias).mul_(momentum).add_(new_bias)
        a, bias = new, new_bias
    a, bias = torch.where(done, final, a), torch.where(done, final_bias, bias)
    warm = None if primal else torch.cat([a[:, :, :places], bias], dim=2)
    return LinearModel(images.weights(a)[:, :, :dim].contiguous(), bias[:, :, 0], warm)


class _Dual:
    """Descent on coefficients of the images ``(B, C, L)``.

    Parameters
    ----------
    x, weight: see :class:`~activelabel.envs.learners.Learner`.
    """

    def __init__(self, x: Tensor, weight: Tensor) -> None:
        self.x = x * weight[:, :, None]
        self.gram = self.x @ self.x.transpose(1, 2)
        self.size = x.shape[1]
        self.norm = (self.gram + weight[:, :, None] * weight[:, None, :]).flatten(1).norm(dim=1)[:, None, None]
        """Of the inner products of the images and a constant, ``(B, 1, 1)``."""

    def logits(self, a: Tensor, out: Tensor) -> None:
        """Write what all images get, ``(B, C, L)``, but for the bias."""
        torch.bmm(a, self.gram, out=out)

    def pulled(self, error: Tensor) -> Tensor:
        """Return how errors ``(B, C, L)`` pull at what descends."""
        return error

    def weights(self, a: Tensor) -> Tensor:
        """Return the weights ``(B, C, d)``."""
        return a @ self.x


class _Primal:
    """Descent on the weights ``(B, C, d)``; see :class:`_Dual`."""

    def __init__(self, x: Tensor, weight: Tensor) -> None:
        self.x, self.size = x, x.shape[2]
        squares = x.new_zeros(len(x), self.size + _ALIGNED, self.size + _ALIGNED)
        for rows, counts in zip(torch.split(x, _BLOCK, 1), torch.split(weight, _BLOCK, 1), strict=True):
            known = aligned(torch.cat([rows, torch.ones_like(rows[:, :, :1])], dim=2) * counts[:, :, None], 2)
            squares.baddbmm_(known.transpose(1, 2), known)
        self.norm = squares.flatten(1).norm(dim=1)[:, None, None]
        """That of the squares is that of the inner products, ``(B, 1, 1)``."""

    def logits(self, a: Tensor, out: Tensor) -> None:
        torch.bmm(a, self.x.transpose(1, 2), out=out)

    def pulled(self, error: Tensor) -> Tensor:
        return error @ self.x

    def weights(self, a: Tensor) -> Tensor:
        return a
