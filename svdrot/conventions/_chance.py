r"""How often rotations that have nothing to do with each other agree as well as these do.

Two unrelated uniform rotations are within an angle $\theta$ with probability $p = (\theta - \sin\theta) /
\pi$. Of n rows m are then within it with probability at most $\binom{n}{m} p^m$; K hypotheses and n values of
m were tried, hence $K\, n \binom{n}{m} p^m$ is how many agreements like this chance gives (Desolneux, Moisan
and Morel, "Meaningful Alignments", IJCV 40, 2000). Two things make real rows less than independent and
uniform, and count here:

- Rows that repeat, as those of a camera at rest, are one row: those of one neighborhood are represented by
  one of them.
- Rotations of a small set, such as turns about one axis, meet more often. So p is at least what the pairs of
  different rows, A_i with B_j, say: of the share of them within some $\phi$ the part $(\theta / \phi)^d$,
  where the rows spread in d directions.

A constant rotation that was fitted to the rows uses up one of them, and is in the middle of the others, which
are then within $2 \theta$ of each other.
"""

import math

import torch
from torch import Tensor

from svdrot.interpolation import log_map
from svdrot.metrics import geodesic_distance

MOST = 60  # rows that are looked at one by one


def representatives(matrix: Tensor, radius: float) -> Tensor:
    """Return the places of rows (M,), no two of them within `radius`, that all others are near to."""
    kept: list[int] = []
    left = torch.ones(len(matrix), dtype=torch.bool)
    while left.any() and len(kept) < MOST:
        first = int(left.to(torch.uint8).argmax())
        kept.append(first)
        left &= geodesic_distance(matrix, matrix[first]) > radius
        left[first] = False
    return torch.tensor(kept)


def log_chance(mapped: Tensor, target: Tensor, tried: int, fitted: bool = False) -> float:
    """Return the logarithm of the number of agreements like this one that chance gives.

    Args:
        mapped: what a hypothesis makes of rows of A, (N, 3, 3).
        target: the rows of B, (N, 3, 3).
        tried: number of hypotheses.
        fitted: whether a constant rotation was fitted to the rows.
    """
    angles = geodesic_distance(mapped, target)
    rows = representatives(mapped, min(max(2 * angles.median().item(), 1e-6), 0.5))
    n = len(rows)
    if n < 1 + 2 * fitted:
        return math.inf
    own = angles[rows].sort().values.clamp_min(angles.median())  # a representative may be a lucky one
    apart = geodesic_distance(mapped[rows, None], target[rows])
    mixed = apart[~torch.eye(n, dtype=torch.bool)].sort().values.clamp_min(1e-12)
    share = torch.arange(1, len(mixed) + 1) / max(len(mixed), 1)
    directions = _directions(mapped[rows])
    best = math.inf
    for m in range(max(math.ceil(n / 2), 1 + 2 * fitted), n + 1):
        angle = max(own[m - 1].item(), 1e-9) * (2 if fitted else 1)
        uniform = (angle - math.sin(angle)) / math.pi if angle > 1e-3 else angle**3 / (6 * math.pi)
        met = share * (angle / mixed).clamp_max(1) ** directions
        p = min(max(uniform, met.max().item() if n > 1 else 0.0), 1.0)
        ways = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
        best = min(best, math.log(n) + ways + (m - fitted) * math.log(p))
    return math.log(tried) + best


def _directions(matrix: Tensor) -> int:
    """Return in how many directions, 1 to 3, rotations spread about the first of them."""
    size = torch.linalg.svdvals(log_map(matrix[0], matrix))
    return max(int((size > 0.1 * size[0]).sum()), 1)
