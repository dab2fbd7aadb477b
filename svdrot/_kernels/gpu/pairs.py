# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Pairs of points in Triton: a program for each segment of a cloud. Contract: `operations.pairs`.

Moments are kept in every lane about the mean of its own pairs, and merged at the end of a segment: no sums
over lanes in between, and nothing cancels wherever the first pair is.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot._formulas import projection
from svdrot._kernels import pairs
from svdrot._kernels.records import MOMENTS

BLOCK = 256  # pairs at a time, at most, and at least:
LEAST = 32
BLOCKS = 32  # most of them that one program goes over
WARP = 64 if torch.version.hip else 32

# Places in a row of moments.
SIZE = tl.constexpr(MOMENTS.size)
SOURCE, TARGET = (tl.constexpr(MOMENTS.places[name]) for name in ("source", "target"))
COVARIANCE, SPREAD = (tl.constexpr(MOMENTS.places[name]) for name in ("covariance", "spread"))


def moments(x: Tensor, y: Tensor, w: Tensor | None, centered: bool) -> tuple[Tensor, Tensor]:
    batch, points, _ = x.shape
    segments = max(1, triton.cdiv(points, BLOCK * BLOCKS))
    pivots = x.new_empty(batch, 6, dtype=torch.float64)
    rows = x.new_empty(batch, segments, MOMENTS.size, dtype=torch.float64)
    _launch(_moments, x, y, w, segments, BLOCKS, rows, pivots, centered=centered)
    if segments == 1:
        return rows[:, 0], pivots
    whole = torch.empty_like(rows[:, 0])
    with torch.cuda.device_of(x):
        _joined[(batch,)](rows, whole, segments, num_warps=1, enable_fp_fusion=True)
    return whole, pivots


def moments_gradient(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    gx, gy = torch.empty_like(x), torch.empty_like(y)
    gw = None if w is None else torch.empty_like(w)
    parts = triton.cdiv(x.shape[1], BLOCK)
    _launch(_gradients, x, y, w, parts, 1, pivots, m, g, gx, gy, gx if gw is None else gw)
    return gx, gy, gw


def misfit(
    x: Tensor, y: Tensor, w: Tensor | None, pivots: Tensor, m: Tensor, scaled_rotation: Tensor
) -> Tensor:
    segments = max(1, triton.cdiv(x.shape[1], BLOCK * BLOCKS))
    sums = x.new_empty(len(x), segments, dtype=torch.float64)
    _launch(_misfits, x, y, w, segments, BLOCKS, pivots, m, scaled_rotation, sums)
    return sums[:, 0] if segments == 1 else sums.sum(1)


def _launch(
    kernel, x: Tensor, y: Tensor, w: Tensor | None, parts: int, blocks: int, *results: Tensor, **options: bool
) -> None:
    """A program for each of the `parts` of each cloud, of so many blocks. A small cloud has a small block."""
    points = x.shape[1]
    if len(x) and parts:
        block = min(BLOCK, max(LEAST, 1 << (points - 1).bit_length()))
        blocks = min(blocks, -(-points // block))
        arguments = (x, y, x if w is None else w, *results, points, parts, max(1, blocks))
        sizes = {"BLOCK": block, "num_warps": max(1, block // WARP)}
        with torch.cuda.device_of(x):
            grid = (len(x) * parts,)
            kernel[grid](*arguments, weighted=w is not None, **options, **sizes, enable_fp_fusion=True)


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _absolute(x):
    return tl.abs(x)


@triton.jit
def _where(condition, x, y):
    return tl.where(condition, x, y)


@triton.jit
def _roughly(x):
    return x


def _bound() -> dict[str, Any]:
    words: dict[str, Any] = {"__name__": __name__, "tl": tl}
    words |= {"sqrt": _sqrt, "absolute": _absolute, "where": _where, "roughly": _roughly}
    constant = (
        tl.constexpr if isinstance(_where, triton.JITFunction) else float
    )  # which Triton's interpreter needs
    words = projection.with_constants(words, constant)
    projection.bind(words, triton.jit, [*projection.FORMULAS, *pairs.FORMULAS])
    return words


_WORDS = _bound()
_dot = _WORDS["dot"]
_difference = _WORDS["difference"]
_merged = _WORDS["merged"]
_pair_gradient = _WORDS["pair_gradient"]
_squared_distance = _WORDS["squared_distance"]
_scaled = _WORDS["scaled"]
_add = _WORDS["add"]
_second_moments = _WORDS["second_moments"]
_one_more = _WORDS["one_more"]
_one_more_about_zero = _WORDS["one_more_about_zero"]

COUNTS = ("points", "parts", "blocks")


@triton.jit(do_not_specialize=COUNTS)
def _moments(
    x, y, w, m, pivots, points, parts, blocks,
    centered: tl.constexpr, weighted: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    lane = tl.arange(0, BLOCK)
    zero = tl.full((), 0.0, tl.float64)
    p, q = (zero, zero, zero), (zero, zero, zero)
    if centered:
        first = _first_that_counts(w + item * points, points, weighted, BLOCK)
        counts = first < points
        at = (item * points + tl.minimum(first, points - 1)) * 3
        p, q = _load_where(x + at, counts), _load_where(y + at, counts)
    if part == 0:
        _write_three(pivots + item * 6, 1, p[0], p[1], p[2])
        _write_three(pivots + item * 6 + 3, 1, q[0], q[1], q[2])
    zeros = tl.zeros((BLOCK,), tl.float64)
    n, v, a, b = zeros, zeros, (zeros, zeros, zeros), (zeros, zeros, zeros)
    c, d, e = (zeros, zeros, zeros), (zeros, zeros, zeros), (zeros, zeros, zeros)
    for k in range(blocks):
        place = (part * blocks + k) * BLOCK + lane
        weight, u, z, _ignored = _pairs(x, y, w, item * points, place, points, p, q, weighted)
        if centered:
            n, a, b, c, d, e, v = _one_more(n, a, b, c, d, e, v, weight, u, z)
        else:
            n, c, d, e, v = _one_more_about_zero(n, c, d, e, v, weight, u, z)
    n, a, b, c, d, e, v = _over_lanes(n, a, b, c, d, e, v)
    _write_moments(m + tl.program_id(0).to(tl.int64) * SIZE, n, a, b, c, d, e, v)


@triton.jit
def _over_lanes(n, a, b, c, d, e, v):
    """Moments of all lanes as of one, in two passes over the lanes."""
    total = tl.sum(n)
    inverse = 1.0 / tl.where(total == 0.0, 1.0, total)
    p, q = _scaled(inverse, _sums(_scaled(n, a))), _scaled(inverse, _sums(_scaled(n, b)))
    f, g, h, s = _second_moments(n, _difference(a, p), _difference(b, q))
    c, d, e = _sums(_add(c, f)), _sums(_add(d, g)), _sums(_add(e, h))
    return total, p, q, c, d, e, tl.sum(v + s)


@triton.jit
def _sums(x):
    return tl.sum(x[0]), tl.sum(x[1]), tl.sum(x[2])


@triton.jit(do_not_specialize=("segments",))
def _joined(rows, m, segments):
    """The moments of clouds from those of their segments, one after the other."""
    item = tl.program_id(0).to(tl.int64)
    n, a, b, c, d, e, v = _read_sums(rows, item * segments)
    for k in range(1, segments):
        n2, a2, b2, c2, d2, e2, v2 = _read_sums(rows, item * segments + k)
        n, a, b, c, d, e, v = _merged(n, a, b, c, d, e, v, n2, a2, b2, c2, d2, e2, v2)
    _write_moments(m + item * SIZE, n, a, b, c, d, e, v)


@triton.jit
def _read_sums(rows, item):
    """Second moments times the weight."""
    n, a, b, c, d, e, v = _read_moments(rows, item)
    return n, a, b, _scaled(n, c), _scaled(n, d), _scaled(n, e), n * v


@triton.jit
def _write_moments(m, n, a, b, c, d, e, v):
    inverse = 1.0 / tl.where(n == 0.0, 1.0, n)
    tl.store(m, n)
    _write_three(m + SOURCE, 1, a[0], a[1], a[2])
    _write_three(m + TARGET, 1, b[0], b[1], b[2])
    _write_three(m + COVARIANCE, 3, c[0] * inverse, c[1] * inverse, c[2] * inverse)
    _write_three(m + COVARIANCE + 1, 3, d[0] * inverse, d[1] * inverse, d[2] * inverse)
    _write_three(m + COVARIANCE + 2, 3, e[0] * inverse, e[1] * inverse, e[2] * inverse)
    tl.store(m + SPREAD, v * inverse)


@triton.jit
def _first_that_counts(w, points, weighted: tl.constexpr, BLOCK: tl.constexpr):
    """The first pair of a cloud that has a weight, or how many pairs there are."""
    if weighted:
        first, start = points, 0
        while (start < points) & (first == points):
            place = start + tl.arange(0, BLOCK)
            weight = tl.load(w + place, place < points, 0.0)
            first = tl.min(tl.where(weight != 0.0, place, points), 0)
            start += BLOCK
        return first
    else:
        return points * 0


@triton.jit
def _load_where(x, condition):
    return (
        tl.load(x, condition, 0.0).to(tl.float64),
        tl.load(x + 1, condition, 0.0).to(tl.float64),
        tl.load(x + 2, condition, 0.0).to(tl.float64),
    )


@triton.jit
def _write_three(m, stride: tl.constexpr, a, b, c):
    tl.store(m, a)
    tl.store(m + stride, b)
    tl.store(m + 2 * stride, c)


@triton.jit(do_not_specialize=COUNTS)
def _gradients(
    x, y, w, pivots, m, g, gx, gy, gw, points, parts, blocks,
    weighted: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    p, q = _pivots(pivots, item)
    n, a, b, c, d, e, v = _read_moments(m, item)
    gn, ga, gb, gc, gd, ge, gv = _read_moments(g, item)
    inverse = 1.0 / tl.where(n == 0.0, 1.0, n)
    constant = gn - inverse * (_dot(gc, c) + _dot(gd, d) + _dot(ge, e) + gv * v)
    place = part * BLOCK + tl.arange(0, BLOCK)
    weight, u, z, ignored = _pairs(x, y, w, item * points, place, points, p, q, weighted)
    u, z = _difference(u, a), _difference(z, b)
    u, z, s, t = _pair_gradient(weight * inverse, u, z, ga, gb, gc, gd, ge, gv, gc, gd, ge)
    _write(u, gx, item * points, place, points)
    _write(z, gy, item * points, place, points)
    if weighted:
        tl.store(
            gw + item * points + place, tl.where(ignored, 0.0, inverse * (s + t) + constant), place < points
        )


@triton.jit(do_not_specialize=COUNTS)
def _misfits(
    x, y, w, pivots, m, rotations, sums, points, parts, blocks,
    weighted: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    p, q = _pivots(pivots, item)
    _n, a, b, _c, _d, _e, _v = _read_moments(m, item)
    rotations += item * 9
    r = (tl.load(rotations + 0), tl.load(rotations + 3), tl.load(rotations + 6))
    s = (tl.load(rotations + 1), tl.load(rotations + 4), tl.load(rotations + 7))
    t = (tl.load(rotations + 2), tl.load(rotations + 5), tl.load(rotations + 8))
    total = tl.full((), 0.0, tl.float64)
    for k in range(blocks):
        place = (part * blocks + k) * BLOCK + tl.arange(0, BLOCK)
        weight, u, z, _ignored = _pairs(x, y, w, item * points, place, points, p, q, weighted)
        total += tl.sum(weight * _squared_distance(_difference(u, a), _difference(z, b), r, s, t))
    tl.store(sums + tl.program_id(0), total)


@triton.jit
def _pairs(x, y, w, first, place, points, p, q, weighted: tl.constexpr):
    """Weights, coordinates relative to the pivots, in float64, and which pairs are ignored."""
    live = place < points
    x, y = x + (first + place) * 3, y + (first + place) * 3
    x0, x1, x2 = tl.load(x, live, 0.0), tl.load(x + 1, live, 0.0), tl.load(x + 2, live, 0.0)
    y0, y1, y2 = tl.load(y, live, 0.0), tl.load(y + 1, live, 0.0), tl.load(y + 2, live, 0.0)
    weight, ignored = live.to(tl.float64), live & False
    if weighted:
        weight = tl.load(w + first + place, live, 0.0).to(tl.float64)
        weight = tl.where(weight >= 0.0, weight, float("nan"))
        size = tl.abs(x0) + tl.abs(x1) + tl.abs(x2) + tl.abs(y0) + tl.abs(y1) + tl.abs(y2)
        ignored = (weight == 0.0) & ((size != size) | (size == float("inf")))
        x0, x1, x2 = tl.where(ignored, 0.0, x0), tl.where(ignored, 0.0, x1), tl.where(ignored, 0.0, x2)
        y0, y1, y2 = tl.where(ignored, 0.0, y0), tl.where(ignored, 0.0, y1), tl.where(ignored, 0.0, y2)
    u = (x0.to(tl.float64) - p[0], x1.to(tl.float64) - p[1], x2.to(tl.float64) - p[2])
    z = (y0.to(tl.float64) - q[0], y1.to(tl.float64) - q[1], y2.to(tl.float64) - q[2])
    return weight, u, z, ignored


@triton.jit
def _write(u, points, first, place, count):
    points += (first + place) * 3
    tl.store(points, u[0], place < count)
    tl.store(points + 1, u[1], place < count)
    tl.store(points + 2, u[2], place < count)


@triton.jit
def _pivots(pivots, item):
    p = pivots + item * 6
    return (tl.load(p), tl.load(p + 1), tl.load(p + 2)), (tl.load(p + 3), tl.load(p + 4), tl.load(p + 5))


@triton.jit
def _read_moments(m, item):
    m += item * SIZE
    a, b = _load_three(m + SOURCE, 1), _load_three(m + TARGET, 1)
    c, d, e = (
        _load_three(m + COVARIANCE, 3),
        _load_three(m + COVARIANCE + 1, 3),
        _load_three(m + COVARIANCE + 2, 3),
    )
    return tl.load(m), a, b, c, d, e, tl.load(m + SPREAD)


@triton.jit
def _load_three(m, stride: tl.constexpr):
    return tl.load(m), tl.load(m + stride), tl.load(m + 2 * stride)
