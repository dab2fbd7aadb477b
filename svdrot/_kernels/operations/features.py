"""Features of points by what lies around each, in torch operations; the specification of the other backends.

    describe(points, normals, numbers, places, squares) -> features
        (B, N, 3), (B, N, 3), (B, N), (B, N, K), (B, N, K) -> (B, N, 33)

Fast point feature histograms (Rusu, Blodow and Beetz 2009, "Fast Point Feature Histograms (FPFH) for 3D
Registration"), equal to those of open3d. Of point p the first `numbers[p]` of `places[p]` are its neighbors,
and `squares[p]` the squares of their distances; `around` finds them. Float64. Where a number falls between
two bins, all that compute it must round alike: products and sums stand in one order everywhere, and are not
fused.
"""

import math

import torch
from torch import Tensor

BINS = 11
SIZE = 3 * BINS
PAIRS = 2**21  # numbers at a time, of each of some tensors


def around(points: Tensor, radius: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers (B, N), places and squared distances (B, N, most) of the nearest others within a radius.

    A point that is not finite has none, and is none.
    """
    batch, n, _ = points.shape
    numbers = torch.zeros(batch, n, dtype=torch.int64, device=points.device)
    places = torch.zeros(batch, n, most, dtype=torch.int64, device=points.device)
    squares = points.new_zeros(batch, n, most)
    kept = min(most, n)
    index = torch.arange(n, device=points.device)
    for rows in _parts(n, batch * n):
        apart = _square_length(points[:, None] - points[:, rows, None])
        absent = ~(apart <= radius * radius) | (index == index[rows, None])
        near, at = torch.where(absent, math.inf, apart).topk(kept, -1, largest=False)
        found = near.isfinite()
        numbers[:, rows] = found.sum(-1)
        places[:, rows, :kept], squares[:, rows, :kept] = (
            torch.where(found, at, 0),
            torch.where(found, near, 0),
        )
    return numbers, places, squares


def describe(points: Tensor, normals: Tensor, numbers: Tensor, places: Tensor, squares: Tensor) -> Tensor:
    batch, n, most = places.shape
    histograms, features = points.new_zeros(2, batch, n, SIZE)
    live = torch.arange(most, device=points.device) < numbers[..., None]
    offsets = torch.tensor([0, BINS, 2 * BINS], device=points.device)
    for rows in _parts(n, batch * most):
        here, there = (_of(x, places[:, rows]) for x in (points, normals))
        bins = _bins(points[:, rows, None], normals[:, rows, None], here, there, squares[:, rows])
        share = torch.where(live[:, rows], 100 / numbers[:, rows, None].clamp(min=1).to(points.dtype), 0)
        shares = share[..., None].expand(*share.shape, 3).flatten(-2)
        histograms[:, rows] = histograms[:, rows].scatter_add(-1, (bins + offsets).flatten(-2), shares)
    for rows in _parts(n, batch * most * SIZE):
        square = squares[:, rows]
        weights = torch.where(live[:, rows] & (square > 0), 1 / torch.where(square > 0, square, 1), 0)
        total = (weights[..., None] * _of(histograms, places[:, rows])).sum(-2).unflatten(-1, (3, BINS))
        size = total.sum(-1, keepdim=True)
        scale = torch.where(size > 0, 100 / torch.where(size > 0, size, 1), 0)
        features[:, rows] = (total * scale).flatten(-2) + histograms[:, rows]
    return features


def _parts(n: int, numbers: int) -> list[slice]:
    """Some rows at a time, of so many numbers each in all."""
    step = max(1, PAIRS * n // max(n * numbers, 1))
    return [slice(first, min(first + step, n)) for first in range(0, n, step)]


def _of(values: Tensor, places: Tensor) -> Tensor:
    """Rows of values (B, N, d) at places (B, n, K), (B, n, K, d)."""
    index = places.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, index).unflatten(1, places.shape[1:])


def _bins(x: Tensor, n: Tensor, y: Tensor, m: Tensor, square: Tensor) -> Tensor:
    """The bins of the three numbers of each pair of points x and y, with normals n and m, (..., 3)."""
    d, length = y - x, square.sqrt()
    n = n.expand_as(m)
    divisor = torch.where(length > 0, length, 1)
    along, across = _dot(n, d) / divisor, _dot(m, d) / divisor
    swapped = along.abs() < across.abs()
    along = torch.where(swapped, -across, along)
    swapped = swapped[..., None]
    n, m, d = torch.where(swapped, m, n), torch.where(swapped, n, m), torch.where(swapped, -d, d)
    v = _cross(d, n)
    size = _square_length(v).sqrt()
    sound = (size > 0) & (length > 0)
    v = v / torch.where(sound, size, 1)[..., None]
    first = _sector(_dot(n, m), _dot(_cross(n, v), m))
    found = torch.stack((first, _bin_of(_dot(v, m)), _bin_of(along)), -1)
    return torch.where(sound[..., None], found, BINS // 2)


def _sector(x: Tensor, y: Tensor) -> Tensor:
    """floor(11 (atan2(y, x) + pi) / 2 pi), by the sides of five lines on which (x, |y|) lies."""
    up, passed = y.abs(), torch.zeros_like(x, dtype=torch.int64)
    for k in (1, 3, 5, 7, 9):
        passed += math.cos(k * math.pi / BINS) * up - math.sin(k * math.pi / BINS) * x >= 0
    return BINS // 2 + torch.where(y >= 0, passed, -passed)


def _bin_of(x: Tensor) -> Tensor:
    return (BINS * (x + 1) * 0.5).floor().clamp(0, BINS - 1).long()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (ax, ay, az), (bx, by, bz) = a.unbind(-1), b.unbind(-1)
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), -1)


def _square_length(a: Tensor) -> Tensor:
    return a[..., 0] * a[..., 0] + a[..., 1] * a[..., 1] + a[..., 2] * a[..., 2]
