# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Pairs of points in Triton: a program for each segment of a cloud. Contract: `operations.pairs`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot._formulas import projection
from svdrot._kernels import pairs
from svdrot._kernels.operations import pairs as pairs_reference
from svdrot._kernels.operations.pairs import merged as merged_segments
from svdrot._kernels.records import MOMENTS

BLOCK = 256  # pairs at a time
BLOCKS = 16  # most of them that one program goes over

# Places in a row of moments.
SIZE = tl.constexpr(MOMENTS.size)
SOURCE, TARGET = (tl.constexpr(MOMENTS.places[name]) for name in ("source", "target"))
COVARIANCE, SPREAD = (tl.constexpr(MOMENTS.places[name]) for name in ("covariance", "spread"))


def moments(x: Tensor, y: Tensor, w: Tensor | None, centered: bool) -> tuple[Tensor, Tensor]:
    pivots = pairs_reference.first_that_counts(x, y, w)
    pivots = pivots if centered else torch.zeros_like(pivots)
    segments = max(1, triton.cdiv(x.shape[1], BLOCK * BLOCKS))
    m = x.new_empty(len(x), segments, MOMENTS.size, dtype=torch.float64)
    _launch(_moments, x, y, w, segments, BLOCKS, pivots, m, centered=centered)
    return merged_segments(m) if segments > 1 else m[:, 0], pivots


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
    return sums.sum(1)


def _launch(
    kernel, x: Tensor, y: Tensor, w: Tensor | None, parts: int, blocks: int, *results: Tensor, **options: bool
) -> None:
    """A program for each of the `parts` of each cloud, of so many blocks."""
    if len(x) and parts:
        arguments = (x, y, x if w is None else w, *results, x.shape[1], parts)
        sizes = {"BLOCKS": blocks, "BLOCK": BLOCK}
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


def _bound() -> dict[str, Any]:
    words: dict[str, Any] = {"__name__": __name__, "tl": tl}
    words |= {"sqrt": _sqrt, "absolute": _absolute, "where": _where}
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
_second_moments = _WORDS["second_moments"]
_pair_gradient = _WORDS["pair_gradient"]
_squared_distance = _WORDS["squared_distance"]


@triton.jit
def _moments(
    x, y, w, pivots, m, points, parts,
    centered: tl.constexpr, weighted: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    p, q = _pivots(pivots, item)
    zero = tl.full((), 0.0, tl.float64)
    n, v = zero, zero
    a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
    c0, c1, c2, d0, d1, d2, e0, e1, e2 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for k in range(BLOCKS):
        place = (part * BLOCKS + k) * BLOCK + tl.arange(0, BLOCK)
        weight, u, z, _ignored = _pairs(x, y, w, item * points, place, points, p, q, weighted)
        total = tl.sum(weight)
        a, b = (zero, zero, zero), (zero, zero, zero)
        if centered:
            inverse = 1.0 / tl.where(total == 0.0, 1.0, total)
            a = (
                tl.sum(weight * u[0]) * inverse,
                tl.sum(weight * u[1]) * inverse,
                tl.sum(weight * u[2]) * inverse,
            )
            b = (
                tl.sum(weight * z[0]) * inverse,
                tl.sum(weight * z[1]) * inverse,
                tl.sum(weight * z[2]) * inverse,
            )
        f, g, h, s = _second_moments(weight, _difference(u, a), _difference(z, b))
        f = (tl.sum(f[0]), tl.sum(f[1]), tl.sum(f[2]))
        g = (tl.sum(g[0]), tl.sum(g[1]), tl.sum(g[2]))
        h = (tl.sum(h[0]), tl.sum(h[1]), tl.sum(h[2]))
        n, a, b, c, d, e, v = _merged(
            n, (a0, a1, a2), (b0, b1, b2), (c0, c1, c2), (d0, d1, d2), (e0, e1, e2), v,
            total, a, b, f, g, h, tl.sum(s),
        )  # fmt: skip
        a0, a1, a2 = a[0], a[1], a[2]
        b0, b1, b2 = b[0], b[1], b[2]
        c0, c1, c2 = c[0], c[1], c[2]
        d0, d1, d2 = d[0], d[1], d[2]
        e0, e1, e2 = e[0], e[1], e[2]
    inverse = 1.0 / tl.where(n == 0.0, 1.0, n)
    m += tl.program_id(0).to(tl.int64) * SIZE
    tl.store(m, n)
    _write_three(m + SOURCE, 1, a0, a1, a2)
    _write_three(m + TARGET, 1, b0, b1, b2)
    _write_three(m + COVARIANCE, 3, c0 * inverse, c1 * inverse, c2 * inverse)
    _write_three(m + COVARIANCE + 1, 3, d0 * inverse, d1 * inverse, d2 * inverse)
    _write_three(m + COVARIANCE + 2, 3, e0 * inverse, e1 * inverse, e2 * inverse)
    tl.store(m + SPREAD, v * inverse)


@triton.jit
def _write_three(m, stride: tl.constexpr, a, b, c):
    tl.store(m, a)
    tl.store(m + stride, b)
    tl.store(m + 2 * stride, c)


@triton.jit
def _gradients(
    x, y, w, pivots, m, g, gx, gy, gw, points, parts,
    weighted: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
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


@triton.jit
def _misfits(
    x, y, w, pivots, m, rotations, sums, points, parts,
    weighted: tl.constexpr, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    item, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    p, q = _pivots(pivots, item)
    _n, a, b, _c, _d, _e, _v = _read_moments(m, item)
    rotations += item * 9
    r = (tl.load(rotations + 0), tl.load(rotations + 3), tl.load(rotations + 6))
    s = (tl.load(rotations + 1), tl.load(rotations + 4), tl.load(rotations + 7))
    t = (tl.load(rotations + 2), tl.load(rotations + 5), tl.load(rotations + 8))
    total = tl.full((), 0.0, tl.float64)
    for k in range(BLOCKS):
        place = (part * BLOCKS + k) * BLOCK + tl.arange(0, BLOCK)
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
