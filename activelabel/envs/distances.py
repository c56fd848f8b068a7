"""Distances between points, in blocks: no array of all pairs is ever made."""

from __future__ import annotations

import torch
from torch import Tensor

DENSITY_NEIGHBOURS = 10

_REFERENCES = 4096
_ROWS = 1024


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

    @classmethod
    def of(cls, points: Tensor, distance: str) -> Geometry:
        """Return the geometry of points ``(n, d)`` with the distance ``"euclidean"`` or ``"cosine"``."""
        cosine = distance == "cosine"
        if cosine:
            points = torch.nn.functional.normalize(points, dim=1)
        return cls(points, (points * points).sum(dim=1), cosine)

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
            return (1 - products).clamp_(0, 2)
        return products.mul_(-2).add_(a).add_(b).clamp_(min=0).sqrt_()

    def to(self, rows: Tensor) -> Tensor:
        """Return the distances ``(n, m)`` of all points to those in ``rows`` ``(m,)``; a point's own is 0."""
        products = self.points @ self.points[rows].T
        found = self.distances(products, self.norms[:, None], self.norms[rows][None, :])
        return found.scatter_(0, rows[None, :], 0)

    def sums(self) -> Tensor:
        """Return ``(n,)``: for each point the sum of its distances to all points.

        Over at most 4096 of them, evenly spaced, and scaled up.
        """
        every = max(1, -(-len(self) // _REFERENCES))
        reference, reference_norms = self.points[::every], self.norms[::every]
        sums = []
        for start in range(0, len(self), _ROWS):
            part = slice(start, start + _ROWS)
            products = self.points[part] @ reference.T
            sums.append(self.distances(products, self.norms[part, None], reference_norms[None, :]).sum(dim=1))
        return torch.cat(sums) * (len(self) / len(reference))

    def density(self) -> Tensor:
        """Return ``1 / (1 + d)`` for each point ``(n,)``, d the mean distance to its ten nearest neighbours.

        Neighbours are looked for among at most 4096 points, evenly spaced.
        """
        n, device = len(self), self.points.device
        reference = torch.arange(0, n, max(1, -(-n // _REFERENCES)), device=device)
        k = min(DENSITY_NEIGHBOURS, len(reference) - 1)
        found = []
        for start in range(0, n, _ROWS):
            part = torch.arange(start, min(start + _ROWS, n), device=device)
            products = self.points[part] @ self.points[reference].T
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
