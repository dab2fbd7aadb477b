"""Which convention two arrays of rotations differ by: hypotheses, each tested against chance."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from svdrot.conventions import _search
from svdrot.conventions._chance import log_chance, representatives
from svdrot.conventions._search import Candidate, Rows
from svdrot.metrics import geodesic_distance

Array = Tensor | np.ndarray | list[Any]
CHANCE = 1e-3  # agreements like the one that is told, that chance gives in one call
LARGEST = 0.3  # radians that most rows may be off, or they are not the same rotations
EXACT = 1e-6  # radians that rounding leaves; below, no offset is looked for
WITHIN = 3  # medians: normal errors are beyond in one row of ten thousand
SHOWN = 8


@dataclass(frozen=True)
class Convention:
    """Describe how one array of rotations becomes another one.

    Attributes:
        a: what the numbers of the first are.
        b: what the numbers of the second are.
        relation: what is between the rotations; empty if they are the same.
        code: a line that makes of a tensor `a` the tensor `b`, but translations of poses.
        angle: root mean square, in radians, of what rows that agree are apart.
        agreeing: number of rows that agree.
        convert: the same as `code`, as a function.

    Example:
        >>> import torch, svdrot
        >>> a = svdrot.random_rotation(9, generator=torch.Generator().manual_seed(0))
        >>> found = svdrot.conventions.detect(a, svdrot.matrix_to_quaternion(a)).conventions[0]
        >>> found.a, found.b, found.relation
        ('matrices', 'quaternions w x y z', ())
        >>> found.code
        'b = svdrot.matrix_to_quaternion(a)'
    """

    a: str
    b: str
    relation: tuple[str, ...]
    code: str
    angle: float
    agreeing: int
    convert: Callable[[Tensor], Tensor] = field(repr=False, compare=False)

    def __str__(self) -> str:
        between = "; ".join(self.relation) or "the same rotations"
        return f"a: {self.a}\nb: {self.b}\n{between}\n{self.code}"


@dataclass(frozen=True)
class Detection:
    """Describe what `detect` found.

    Attributes:
        verdict: "found", "ambiguous" if several conventions agree with these rows, or "none".
        conventions: the one that was found, or all that agree, the simplest first; none for "none".
        rows: number of rows that are finite in both.
        hypotheses: number of them that were tested.
        chance: how many agreements as good as the best one chance gives among as many hypotheses.
        nearest: the best hypothesis, whether it was accepted or not; None if no row can be read.

    Example:
        >>> import torch, svdrot
        >>> generator = torch.Generator().manual_seed(0)
        >>> a, b = (svdrot.random_rotation(9, generator=generator) for _ in range(2))
        >>> svdrot.conventions.detect(a, b).verdict
        'none'
    """

    verdict: Literal["found", "ambiguous", "none"]
    conventions: tuple[Convention, ...]
    rows: int
    hypotheses: int
    chance: float
    nearest: Convention | None

    def __str__(self) -> str:
        tested = f"{self.hypotheses:,} hypotheses on {self.rows:,} rows"
        if self.nearest is None:
            return f"none: no row can be read as a rotation ({tested})"
        best = f"{self.nearest.agreeing:,} rows agree within {math.degrees(self.nearest.angle):.2g} degrees"
        if self.verdict == "none":
            near = str(self.nearest).replace("\n", "\n  ")
            why = f"is not beyond chance, which gives {self.chance:.2g} as good"
            if self.chance < CHANCE:
                why = f"leaves most rows more than {math.degrees(LARGEST):.0f} degrees apart"
            return f"none: the nearest of {tested} {why}; {best} for\n  {near}"
        if self.verdict == "found":
            return f"found: {best} ({tested}; chance gives {self.chance:.2g})\n{self.conventions[0]}"
        several = "\n".join(f"{k}.\n{each}" for k, each in enumerate(self.conventions[:SHOWN], 1))
        more = len(self.conventions) - SHOWN
        rest = f"\nand {more:,} more" if more > 0 else ""
        return f"ambiguous: {len(self.conventions):,} agree with these rows ({tested})\n{several}{rest}"


def detect(a: Array, b: Array) -> Detection:
    """Name the convention by which two arrays differ that should be the same rotations, row by row.

    Tried are all readings of both that their shapes allow: matrices (..., 3, 3), (4, 4), (3, 4), and as 9,
    12 or 16 numbers, also of determinant -1; quaternions with the scalar first or last; 6D; rotation vectors,
    also halved; Euler angles of all 24 sequences, and of others stored as angles about x, y, z, each in
    radians and degrees; modified Rodrigues parameters. Between the rotations: an inverse, and changes of
    axes, flipped or exchanged, on the left, on the right or on both sides (of Euler angles with Euler angles
    on one side, or alike on both). If none of these agrees, a constant rotation on the left or on the right.

    A hypothesis is accepted if most rows agree, so well that among all that were tested chance gives fewer
    than one such agreement in a thousand calls; see `Detection.chance`. Rows that repeat count once. Others
    agree, too, if the rows do not tell them from the best by odds of a thousand to one for each hypothesis;
    those that would agree on any rows are one.

    Args:
        a: rotations in some convention, any batch shape: a tensor, an array or nested lists.
        b: the same rotations in another one, of the same batch shape. Fewer than half of the rows may be
            wrong; rows that are not finite are left out.

    Returns:
        `Detection`, which can be printed. A single generic row is enough for exact numbers; rows that are all
        about one axis, all small and noisy, or the identity are ambiguous.

    Raises:
        ValueError: if no two readings of `a` and `b` have the same batch shape, or no row is finite.

    Source:
        Desolneux, Moisan and Morel, "Meaningful Alignments", IJCV 40 (2000), for the test against chance.

    Example:
        >>> import torch, svdrot
        >>> from scipy.spatial.transform import Rotation
        >>> matrix = svdrot.random_rotation(20, generator=torch.Generator().manual_seed(0))
        >>> angles = Rotation.from_matrix(matrix.mT.numpy()).as_euler("zyx", degrees=True)
        >>> found = svdrot.conventions.detect(matrix, angles)
        >>> print(found.conventions[0])
        a: matrices
        b: Euler angles zyx (extrinsic) in degrees
        transposed: active against passive, or from and to exchanged
        b = svdrot.matrix_to_euler(a.mT, "zyx").rad2deg()
    """
    x, y = _tensor("a", a), _tensor("b", b)
    cuts = _search.layouts(x, y)
    if not cuts:
        finite = bool(x.isfinite().any() and y.isfinite().any())
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        want = "must be rotations of the same batch shape, such as (N, 3, 3) and (N, 4)"
        raise ValueError(f"`a` and `b` {want}{'' if finite else ', with finite rows'}; got {shapes}.")
    floor = max(_rounding(a), _rounding(b))
    tried, ranked = 0, []
    for rows in cuts:
        found, count = _search.screened(rows)
        tried += count
        ranked += [(_judged(candidate, rows, floor), candidate, rows) for _, candidate in found]
    best = _first(ranked)
    if best is None:
        return Detection("none", (), max(len(rows.a) for rows in cuts), tried, math.inf, None)
    chance = _log_chance(best, tried)
    agrees = chance < math.log(CHANCE) and best[0].middle <= LARGEST
    if agrees and best[0].middle <= max(EXACT, floor):
        return _decided(best, ranked, tried, floor)
    last, count = _with_offset(cuts, floor)
    shifted = _first(last)
    if (
        shifted is not None
        and _log_chance(shifted, count) < math.log(CHANCE)
        and shifted[0].middle <= LARGEST
    ):
        # An offset, which has three numbers of its own, must be better by the odds of all that were tried.
        if not agrees or best[0].middle > shifted[0].middle * _allowed(count, _distinct(shifted) - 1):
            return _decided(shifted, last, tried + count, floor)
    if agrees:
        return _decided(best, ranked, tried + count, floor)
    nearest = _convention(best[1], best[2], best[0])
    return Detection("none", (), len(best[2].a), tried + count, math.exp(min(chance, 700)), nearest)


def _tensor(name: str, value: Array) -> Tensor:
    tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"`{name}` must be real numbers; got {tensor.dtype}.")
    return tensor.double()


def _rounding(value: Array) -> float:
    """Return the angle that rounding leaves between equal rotations."""
    dtype = value.dtype if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value)).dtype
    return 16 * torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps


@dataclass(frozen=True)
class _Fit:
    """Hold the angles of all rows, sorted, and their median, at least the rounding."""

    angles: Tensor
    middle: float


_Ranked = tuple[_Fit, Candidate, Rows]


def _judged(candidate: Candidate, rows: Rows, floor: float) -> _Fit:
    places = _search.spread(len(rows.a), _search.ROWS)
    some = Rows(rows.a[places], rows.b[places], rows.a_shape, rows.b_shape)
    found = _search.angles(candidate, some).sort().values
    return _Fit(found, max(found[len(found) // 2].item(), floor))


def _first(ranked: list[_Ranked]) -> _Ranked | None:
    return min(ranked, key=lambda each: (each[0].middle, each[1].cost), default=None)


def _log_chance(ranked: _Ranked, tried: int) -> float:
    _, candidate, rows = ranked
    places = _search.spread(len(rows.a), _search.ROWS)
    mapped, target = candidate.mapped(rows.a[places]), candidate.b.read(rows.b[places])
    return log_chance(mapped, target, tried, fitted=candidate.offset is not None)


def _with_offset(cuts: list[Rows], floor: float) -> tuple[list[_Ranked], int]:
    tried, ranked = 0, []
    for rows in cuts:
        found, count = _search.offsets(rows)
        tried += count
        for _, candidate in found[:40]:
            better = _search.refined(candidate, rows)
            ranked.append((_judged(better, rows, floor), better, rows))
    return ranked, max(tried, 1)


def _decided(best: _Ranked, ranked: list[_Ranked], tried: int, floor: float) -> Detection:
    """Return the best hypothesis and all that these rows do not tell from it, each but once."""
    fit, candidate, rows = best
    agree = int((fit.angles <= WITHIN * fit.middle).sum())
    free = min(_distinct(best), agree) - (candidate.offset is not None)
    limit = _size(fit, agree, floor) * _allowed(tried, free)
    rivals = [
        each for each in ranked if len(each[2].a) == len(rows.a) and _size(each[0], agree, floor) <= limit
    ]
    kept: list[_Ranked] = []
    for rival in sorted(rivals, key=lambda each: (each[1].cost, each[0].middle)):
        if not any(_same(rival, other) for other in kept):
            kept.append(rival)
    told = tuple(_convention(each[1], each[2], each[0]) for each in kept)
    verdict = "found" if len(told) == 1 else "ambiguous"
    nearest = _convention(candidate, rows, fit)
    return Detection(verdict, told, len(rows.a), tried, math.exp(_log_chance(best, tried)), nearest)


def _distinct(ranked: _Ranked) -> int:
    """Return how many rows are not near to each other."""
    fit, candidate, rows = ranked
    places = _search.spread(len(rows.a), _search.ROWS)
    return len(representatives(candidate.mapped(rows.a[places]), min(max(2 * fit.middle, 1e-6), 0.5)))


def _allowed(tried: int, rows: int) -> float:
    """Return by what factor errors may be larger until `rows` rows tell of it by odds of 1000 `tried` to one.

    Of normal errors, three in each row, the logarithm of the odds is 3 m times that of the factor.
    """
    return math.exp(math.log(1e3 * tried) / (3 * max(rows, 1)))


def _size(fit: _Fit, count: int, floor: float) -> float:
    return max(fit.angles[:count].square().mean().sqrt().item(), floor)


def _same(one: _Ranked, other: _Ranked) -> bool:
    """Whether two hypotheses say the same of any rows, seen on rows drawn at random."""
    (_, p, rows), (_, q, others) = one, other
    if (rows.a_shape, rows.b_shape) != (others.a_shape, others.b_shape):
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, *rows.a_shape, dtype=torch.float64, generator=generator)
    if len(rows.a_shape) == 2 or rows.a_shape[0] > 6:  # of matrices: rotations
        turned = torch.linalg.qr(torch.randn(16, 3, 3, dtype=torch.float64, generator=generator))[0]
        turned = turned * torch.linalg.det(turned)[:, None, None]
        x = p.a.write(turned)
        x = x if x.shape[1:] == rows.a_shape else _posed(x, rows.a_shape)
    elif rows.a_shape == (3,):
        x = x * rows.a.abs().median().clamp_min(1e-3)
    y = p.b.write(p.mapped(x))
    if y.shape[1:] != rows.b_shape:
        y = _posed(y, rows.b_shape)
    apart = geodesic_distance(q.mapped(x), q.b.read(y))
    tolerance = 1e-6 if p.offset is None else 5 * max(one[0].middle, other[0].middle)
    return bool((apart <= tolerance).all())


def _posed(rotation: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rotations as poses without translation, of shape (4, 4) or (3, 4), or row by row."""
    whole = torch.eye(4, dtype=rotation.dtype).repeat(len(rotation), 1, 1)
    whole[:, :3, :3] = rotation
    rows = whole if shape in ((4, 4), (16,)) else whole[:, :3]
    return rows.reshape(-1, *shape)


def _convention(candidate: Candidate, rows: Rows, fit: _Fit) -> Convention:
    """Return a candidate in words and code."""
    relation = candidate.relation.words()
    if candidate.a.euler and candidate.b.euler:
        relation.append("or both with their axes renamed alike, where that changes no number")
    matrix = candidate.relation.code(candidate.a.reading.format("a"))
    if candidate.offset is not None:
        side = "left" if candidate.on_left else "right"
        angle = geodesic_distance(candidate.offset, torch.eye(3, dtype=torch.float64)).item()
        relation.append(f"a constant rotation on the {side}, by {math.degrees(angle):.4g} degrees")
        constant = f"a.new_tensor({candidate.offset.tolist()})"
        matrix = f"({constant} @ {matrix})" if candidate.on_left else f"({matrix} @ {constant})"
    agree = fit.angles <= WITHIN * fit.middle
    size = fit.angles[agree].square().mean().sqrt().item()
    share = agree.double().mean().item()
    return Convention(
        candidate.a.words,
        candidate.b.words,
        tuple(relation),
        f"b = {candidate.b.writing.format(matrix)}",
        size,
        round(share * len(rows.a)),
        lambda a: candidate.b.write(candidate.mapped(a)),
    )
