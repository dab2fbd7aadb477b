"""Nearest neighbors in torch operations, for devices without kernels; the specification of the others.

    nearest(queries, points, k, limit) -> (distances, indices)
        (B, N, d), (B, M, d) of one dtype -> (B, N, k) of that dtype, (B, N, k) int64

Distances of the k nearest points up to the limit, which is included, nearest first, and of equally near ones
the smallest index first; infinite, with index M, where there is none. What is not finite has no neighbors and
is nobody's. Half precision is computed in float32.
"""

import math

import torch
from torch import Tensor

from svdrot._precision import compute_dtype

PAIRS = 2**24  # at a time


def nearest(queries: Tensor, points: Tensor, k: int, limit: float) -> tuple[Tensor, Tensor]:
    (size, n, _), m = queries.shape, points.shape[1]
    dtype = compute_dtype(queries)
    distances = queries.new_full((size, n, k), math.inf)
    indices = torch.full((size, n, k), m, dtype=torch.int64, device=queries.device)
    index = torch.arange(m, device=queries.device)
    step = max(1, PAIRS // max(1, size * m))
    for start in range(0, n if m else 0, step):
        rows = slice(start, start + step)
        squares = _squares(queries[:, rows].to(dtype), points.to(dtype))
        for slot in range(min(k, m)):
            least = squares.amin(-1)
            first = torch.where(squares == least[..., None], index, m).amin(-1).clamp(max=m - 1)
            squares.scatter_(-1, first[..., None], math.inf)
            distance = least.sqrt()
            found = (distance <= limit) & least.isfinite()
            distances[:, rows, slot] = torch.where(found, distance, math.inf).to(distances.dtype)
            indices[:, rows, slot] = torch.where(found, first, m)
    return distances, indices


def _squares(queries: Tensor, points: Tensor) -> Tensor:
    """Squared distances (B, N, M), one coordinate after the other; infinite of what is not finite."""
    found = queries.new_zeros(*queries.shape[:2], points.shape[1])
    for a in range(queries.shape[-1]):
        found += (queries[..., a, None] - points[:, None, :, a]).square_()
    return found.nan_to_num_(nan=math.inf, posinf=math.inf)
