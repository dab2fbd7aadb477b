"""The search: every pair of readings under every relation, and constant offsets as the last resort."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot.averaging import average_rotations
from svdrot.conventions._readings import READINGS, SHAPES, Reading, sound
from svdrot.conventions._relations import Relation, relations
from svdrot.metrics import geodesic_distance

ROWS = 2000  # most rows that are looked at
FIRST = 48  # rows that all hypotheses see; of Euler angles with Euler angles, which are many, FEW
FEW = 12
EACH = 50  # hypotheses of each pair of readings that go on: the identity fits 48
KEPT = 400  # hypotheses that see all rows: the best of those


@dataclass(frozen=True)
class Candidate:
    """Hold a hypothesis: how both arrays are read, and what is between them.

    Attributes:
        a: reading of the first.
        b: reading of the second.
        relation: between the rotations; of an offset, whether A is inverted.
        offset: None, or the rotation between them.
        on_left: whether the offset is on the left.
    """

    a: Reading
    b: Reading
    relation: Relation
    offset: Tensor | None = None
    on_left: bool = True

    @property
    def cost(self) -> int:
        """Return how far-fetched it is."""
        return self.a.cost + self.b.cost + self.relation.cost

    def mapped(self, a: Tensor) -> Tensor:
        """Return what it makes of the numbers of a: the matrices that those of b should be."""
        m = self.relation.of(self.a.read(a))
        if self.offset is None:
            return m
        return self.offset @ m if self.on_left else m @ self.offset


@dataclass(frozen=True)
class Rows:
    """Hold both arrays as rows, with the shapes of their elements that fit together."""

    a: Tensor
    b: Tensor
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]


def layouts(a: Tensor, b: Tensor) -> list[Rows]:
    """Return the ways to cut both arrays into as many rows; those that are not finite are left out.

    An array whose last two dimensions are rotations is not taken for rows of three or four numbers.
    """
    pairs = [(x, y) for x in _shapes(a) for y in _shapes(b)]
    if not any(_batch(a, x) == _batch(b, y) for x, y in pairs):
        pairs = [(x, y) for x in SHAPES for y in SHAPES]
    found = []
    for a_shape, b_shape in pairs:
        batch = _batch(a, a_shape)
        if batch is not None and batch == _batch(b, b_shape):
            x, y = a.reshape(-1, *a_shape), b.reshape(-1, *b_shape)
            good = x.flatten(1).isfinite().all(1) & y.flatten(1).isfinite().all(1)
            if good.any():
                found.append(Rows(x[good], y[good], a_shape, b_shape))
    return found


def _shapes(value: Tensor) -> list[tuple[int, ...]]:
    """Return the shapes that elements of an array may have: if some are matrices, those alone."""
    fit = [shape for shape in SHAPES if _batch(value, shape) is not None]
    square = [shape for shape in fit if len(shape) == 2 and any(readable(value.reshape(-1, *shape), shape))]
    return square or [shape for shape in fit if len(shape) == 1] or fit


def _batch(value: Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    k = value.ndim - len(shape)
    return tuple(value.shape[:k]) if k >= 0 and tuple(value.shape[k:]) == shape else None


def spread(n: int, most: int) -> Tensor:
    """Return the places of at most `most` rows of n, evenly."""
    return torch.arange(n) if n <= most else torch.linspace(0, n - 1, most).round().long()


def readable(value: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Reading, Tensor]]:
    """Yield the readings of rows, and their matrices (N, 3, 3), where most rows are rotations."""
    for reading in READINGS:
        if reading.shape == shape:
            matrix = reading.read(value)
            good = sound(matrix)
            if 2 * good.sum() > len(good):
                yield reading, torch.where(good[:, None, None], matrix, torch.nan)


def screened(rows: Rows) -> tuple[list[tuple[float, Candidate]], int]:
    """Return the best candidates with their median angles on some rows, and how many were tried."""
    places = spread(len(rows.a), FIRST)
    left = [*readable(rows.a[places], rows.a_shape)]
    right = [*readable(rows.b[places], rows.b_shape)]
    found, tried, worst = [], 0, math.inf
    for a, a_matrix in left:
        for b, b_matrix in right:
            few = a.euler and b.euler
            some = spread(len(places), FEW) if few else torch.arange(len(places))
            kinds, coefficients = relations(few)
            for inverse in (False, True):
                x = a_matrix[some].mT if inverse else a_matrix[some]
                both = x[:, :, :, None, None] * b_matrix[some][:, None, None]
                cosine = (both.reshape(len(some), 81) @ coefficients.T - 1) / 2
                # A row that is no rotation in one of the readings is as far as can be.
                middle = cosine.nan_to_num(-1.0).clamp(-1, 1).quantile(0.5, 0).acos()
                tried += len(kinds)
                best = middle.topk(min(len(kinds), EACH), largest=False)
                found += [
                    (angle, Candidate(a, b, Relation(inverse, kinds[k].left, kinds[k].right)))
                    for angle, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                    if angle <= worst
                ]
        found = sorted(found, key=lambda pair: pair[0])[:KEPT]
        worst = found[-1][0] if len(found) == KEPT else math.inf
    return found, tried


def offsets(rows: Rows) -> tuple[list[tuple[float, Candidate]], int]:
    """Return the best candidates with a constant offset, their median angles, and how many were tried."""
    places = spread(len(rows.a), FEW * 2)
    left = [*readable(rows.a[places], rows.a_shape)]
    right = [*readable(rows.b[places], rows.b_shape)]
    found, tried = [], 0
    one = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    for a, a_matrix in left:
        for b, b_matrix in right:
            for inverse in (False, True):
                x = a_matrix.mT if inverse else a_matrix
                for on_left in (True, False):
                    between = (b_matrix @ x.mT if on_left else x.mT @ b_matrix).flatten(1).nan_to_num(0.0)
                    cosine = ((between @ between.T - 1) / 2).clamp(-1, 1)
                    middle = cosine.quantile(0.5, 1).acos()
                    tried += len(places)
                    k = int(middle.argmin())
                    offset = between[k].reshape(3, 3)
                    found.append(
                        (middle[k].item(), Candidate(a, b, Relation(inverse, one, one), offset, on_left))
                    )
        found = sorted(found, key=lambda pair: pair[0])[:KEPT]
    return found, tried


def refined(candidate: Candidate, rows: Rows) -> Candidate:
    """Return a candidate with the offset of all rows: their median."""
    places = spread(len(rows.a), ROWS)
    a, b = candidate.relation.of(candidate.a.read(rows.a[places])), candidate.b.read(rows.b[places])
    between = b @ a.mT if candidate.on_left else a.mT @ b
    good = sound(between)
    if not good.any():
        return candidate
    median = average_rotations(between[good], norm="geodesic_l1")
    return Candidate(candidate.a, candidate.b, candidate.relation, median, candidate.on_left)


def angles(candidate: Candidate, rows: Rows) -> Tensor:
    """Return how far the rows are from what a candidate makes them, (N,); pi where one is no rotation."""
    found = geodesic_distance(candidate.mapped(rows.a), candidate.b.read(rows.b))
    good = sound(candidate.a.read(rows.a)) & sound(candidate.b.read(rows.b))
    return torch.where(good, found, torch.pi)
