"""Distances between points, in blocks: no array of all pairs is ever made."""

from __future__ import annotations

import torch
from torch import Tensor

from activelabel.envs.descent import shared_product

DENSITY_NEIGHBOURS = 10

_REFERENCES = 4096
_ROWS = 1024

POOLS = 16
"""As many times the points of a pool must a part have before the pool's are taken out of it."""


class Geometry:
    """Points and how far they are from each other.

    Parameters
    ----------
    points: float32 ``(n, d)``, of unit length for cosine distances.
    norms: float32 ``(n,)``, their squared norms.
    cosine: distances are 1 less the cosine, instead of Euclidean.
    """

    def __init__(self, points: Tensor, norms: Tensor, cosine: bool) -> None:
        self.points, self.norms, self.cosine = points, norms, cosine
        self._sums: Tensor | None = None

    @classmethod
    def of(cls, points: Tensor, distance: str) -> Geometry:
        """Return the geometry of points ``(n, d)`` with the distance ``"euclidean"`` or ``"cosine"``."""
        cosine = distance == "cosine"
        if cosine:
            points = torch.nn.functional.normalize(points, dim=1)
        norms = points.new_empty(len(points))
        room = torch.empty_like(points[:_ROWS])  # in one place, as in `sums`
        for rows, own in zip(torch.split(points, _ROWS), torch.split(norms, _ROWS), strict=True):
            torch.sum(torch.mul(rows, rows, out=room[: len(rows)]), dim=1, out=own)
        return cls(points, norms, cosine)

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: Tensor) -> Geometry:
        """Return the geometry of some of the points."""
        return Geometry(self.points[rows], self.norms[rows], self.cosine)

    def distances(self, products: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return distances from inner products ``(..., n, m)`` and squared norms ``(..., n, 1)``, ``(..., 1, m)``.

        The products may be overwritten.
        """
        if self.cosine:
            return products.neg_().add_(1).clamp_(0, 2)
        return products.mul_(-2).add_(a).add_(b).clamp_(min=0).sqrt_()

    def to(self, rows: Tensor) -> Tensor:
        """Return the distances ``(n, m)`` of all points to those in ``rows`` ``(m,)``; a point's own is 0."""
        products = self.points @ self.points[rows].T
        found = self.distances(products, self.norms[:, None], self.norms[rows][None, :])
        return found.scatter_(0, rows[None, :], 0)

    def between(self, some: Tensor, pools: Tensor) -> Tensor:
        """Return the distances ``(b, m, P)`` of points ``some`` ``(b, m)`` to those of each one's pool ``(b, P)``.

        Alike to the last bit whatever b is; a point's own is near 0.
        """
        if len(self) <= POOLS * pools.shape[1]:  # one product for all, then each takes its own
            products = shared_product(self.points[some.flatten()], self.points).reshape(*some.shape, -1)
            products = products.gather(2, pools[:, None, :].expand(*some.shape, -1))
        else:
            products = torch.stack(
                [shared_product(self.points[a], self.points[b]) for a, b in zip(some, pools, strict=True)]
            )
        return self.distances(products, self.norms[some][:, :, None], self.norms[pools][:, None, :])

    def sums(self, some: Tensor | None = None, among: Tensor | None = None) -> Tensor:
        """Return for each point the sum of its distances to all points, ``(n,)``.

        Over at most 4096 of them, evenly spaced, and scaled up.

        Parameters
        ----------
        some: int64 ``(m,)``, the points that are asked for; by default all. All sums to all are kept.
        among: int64 ``(P,)``, the points that distances are taken to; by default all.
        """
        everything = some is None and among is None
        if everything and self._sums is not None:
            return self._sums
        n, m = len(self) if among is None else len(among), len(self) if some is None else len(some)
        every = max(1, -(-n // _REFERENCES))
        chosen = slice(None, None, every) if among is None else among[::every]
        reference, reference_norms = self.points[chosen], self.norms[chosen]
        sums = self.norms.new_empty(m)
        room = self.points.new_empty(_ROWS, len(reference))  # in one place: freed blocks would leave holes in memory
        for start in range(0, m, _ROWS):
            part = slice(start, start + _ROWS)
            own = part if some is None else some[part]
            rows = self.points[own]
            products = torch.mm(rows, reference.T, out=room[: len(rows)])
            distances = self.distances(products, self.norms[own][:, None], reference_norms[None, :])
            torch.sum(distances, dim=1, out=sums[part])
        sums *= n / len(reference)
        if everything:
            self._sums = sums
        return sums

    def sums_of(self, own: Tensor, known: Tensor, there: Tensor, pools: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what running sums would be for some points of pools, from their own distances alone.

        Parameters
        ----------
        own: int64 ``(b, m)``, the points; none is labelled.
        known, there: int64 and bool ``(b, L)``, the labelled points, where there is one.
        pools: int64 ``(b, P)``.

        Returns
        -------
        Sum of the distances to the labelled, sum of those to the rest of the pool, and the smallest to one that is
        labelled, ``(b, m)`` each.
        """
        d = self.between(known, own)
        total = (d * there[:, :, None]).sum(dim=1)
        near = d.masked_fill_(~there[:, :, None], float("inf")).amin(dim=1)
        sums = torch.stack([self.sums(some, pool) for some, pool in zip(own, pools, strict=True)])
        return total, sums - total, near

    def density(self) -> Tensor:
        """Return ``1 / (1 + d)`` for each point ``(n,)``, d the mean distance to its ten nearest neighbours.

        Neighbours are looked for among at most 4096 points, evenly spaced.
        """
        n, device = len(self), self.points.device
        reference = torch.arange(0, n, max(1, -(-n // _REFERENCES)), device=device)
        k = min(DENSITY_NEIGHBOURS, len(reference) - 1)
        found = []
        points = self.points[reference]
        room = points.new_empty(_ROWS, len(reference))
        for start in range(0, n, _ROWS):
            part = torch.arange(start, min(start + _ROWS, n), device=device)
            products = torch.mm(self.points[part], points.T, out=room[: len(part)])
            d = self.distances(products, self.norms[part][:, None], self.norms[reference][None, :])
            d[part[:, None] == reference[None, :]] = float("inf")
            found.append(d.topk(k, dim=1, largest=False).values.mean(dim=1))
        return 1 / (1 + torch.cat(found))


def scaled(latent: Tensor) -> Tensor:
    """Return points ``(n, d)`` scaled to unit mean squared norm, so that no coordinate exceeds ``sqrt(n)`` and no
    distance ``sqrt(2 n)``."""
    size = latent.square().sum(dim=1).mean().sqrt()
    return latent / torch.where(size > 0, size, 1)


def centred(points: Tensor) -> Tensor:
    """Return points ``(n, d)`` less their mean: no Euclidean distance changes, and its square loses fewer digits."""
    return points - points.mean(dim=0)
