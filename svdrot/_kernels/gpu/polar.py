# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
"""Newton-Schulz in Triton, a program for each matrix, which stays in its registers from first step to last.

By products of BLAS it takes a launch and a way through memory for each of some forty products. The algorithms
are those of CPUs (`cpu.loops.polar_rows`), with their certificate: a residual beside each result.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from svdrot._kernels.gpu import tiles

LARGEST = 64  # side
BYTES = 1024  # of a matrix in the registers of a warp
WARPS = 8  # at most: more than these have fewer registers each


def factor(m: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of (B, m, n) matrices, m >= n, after steps (S, 3), and |I - QᵀQ| before the last one."""
    return _factor(m, steps, 0)


def rotation(m: Tensor, steps: Tensor, squarings: int) -> tuple[Tensor, Tensor]:
    """Rotations nearest to (B, n, n) matrices, and as `factor`, or infinity where the direction to reverse
    was not told apart."""
    return _factor(m, steps, squarings)


def _factor(m: Tensor, steps: Tensor, squarings: int) -> tuple[Tensor, Tensor]:
    q, residual = torch.empty_like(m), m.new_empty(len(m))
    _launch(_polar, m, q, residual, steps, len(steps), squarings, SPECIAL=squarings > 0)
    return q, residual


def differential(m: Tensor, q: Tensor, t: Tensor, squarings: int) -> tuple[Tensor, Tensor]:
    """Derivatives along T of the factors Q, or nearest rotations, and 0, or infinity where they do not
    hold."""
    d, residual = torch.empty_like(m), m.new_empty(len(m))
    _launch(_differential, m, q, t, d, residual, squarings, TALL=m.shape[1] > m.shape[2])
    return d, residual


def pullback(m: Tensor, g: Tensor, steps: Tensor) -> Tensor:
    """Gradients in M of what `factor` gives, for gradients G of that."""
    d, kept = torch.empty_like(m), m.new_empty(len(m), len(steps), *m.shape[1:])
    _launch(_pullback, m, g, d, kept, steps, len(steps))
    return d


def _launch(kernel: Any, m: Tensor, *arguments: Tensor | int, **options: bool) -> None:
    batch, rows, columns = m.shape
    if batch:
        sizes = tile(rows, columns, m.dtype)
        with torch.cuda.device_of(m):
            kernel[(batch,)](
                m, *arguments, rows, columns, **options, **constants(m.dtype), **sizes, enable_fp_fusion=True
            )


def tile(rows: int, columns: int, dtype: torch.dtype) -> dict[str, int]:
    """The padded sides, and the warps of a program."""
    height, width = (max(16, 1 << (side - 1).bit_length()) for side in (rows, columns))
    warps = min(WARPS, height * width * dtype.itemsize // BYTES)
    return {"HEIGHT": height, "WIDTH": width, "num_warps": warps}


def constants(dtype: torch.dtype) -> dict[str, float]:
    return {"EPS": torch.finfo(dtype).eps, "TINY": torch.finfo(dtype).tiny}


# Nothing is compiled anew for another size or schedule, but for another tile.
COUNTS = ("count", "squarings", "rows", "columns")


@triton.jit(do_not_specialize=COUNTS)
def _polar(
    m, q, residual, steps, count, squarings, rows, columns,
    SPECIAL: tl.constexpr, EPS: tl.constexpr, TINY: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A step (a, b, c) is X <- a X + X (b E + c E²), E = I - XᵀX.

    If `SPECIAL`, where det Q < 0, the smallest direction v of QᵀM is reversed: the dominant one of
    P = 1 - c QᵀM / |QᵀM|, where c may be nearly 2 sqrt(1 - 1 / n).
    """
    item = tl.program_id(0).to(tl.int64)
    at, live = _places(item, rows, columns, HEIGHT, WIDTH)
    x, _scale = tiles.over_frobenius(tl.load(m + at, live, 0.0), TINY)
    error = tl.sum(tl.sum(x, 1), 0) * 0.0
    for s in range(count):
        a, b, c = tl.load(steps + 3 * s), tl.load(steps + 3 * s + 1), tl.load(steps + 3 * s + 2)
        e = tiles.identity(columns, x, WIDTH) - tiles.gram(x)
        if s == count - 1:
            error = tiles.norm(e)
        x = a * x + tiles.product(x, b * e + c * tiles.gram(e))
    if SPECIAL:
        if tiles.has_negative_determinant(x, columns) == 1:
            y, _scale = tiles.over_frobenius(tl.load(m + at, live, 0.0), TINY)
            h = tiles.transposed_product(x, y)
            p = tiles.identity(columns, x, WIDTH) - _shift(columns, x, EPS) * (0.5 * (h + tl.trans(h)))
            v, apart = tiles.dominant_direction(p, squarings)
            v = v / tl.sqrt(tl.sum(v * v, 0) + TINY)
            x -= (2.0 * tiles.image(x, v))[:, None] * v[None, :]
            error = tl.where(apart == 1, error, float("inf"))
    tl.store(q + at, x, live)
    tl.store(residual + item, error)


@triton.jit(do_not_specialize=COUNTS)
def _differential(
    m, q, t, d, residual, squarings, rows, columns,
    TALL: tl.constexpr, EPS: tl.constexpr, TINY: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Q X + Y with H X + X H = S and Y H = T - Q A, which `differential_rows` of CPUs derives."""
    item = tl.program_id(0).to(tl.int64)
    at, live = _places(item, rows, columns, HEIGHT, WIDTH)
    x, scale = tiles.over_frobenius(tl.load(m + at, live, 0.0), TINY)
    factor = tl.load(q + at, live, 0.0)
    h = tiles.transposed_product(factor, x)
    h = 0.5 * (h + tl.trans(h))
    one = tiles.identity(columns, h, WIDTH)
    along = tl.load(t + at, live, 0.0)
    s = tiles.transposed_product(factor, along)
    holds, reflected = 1, 0
    v = tl.sum(h, 0) * 0.0
    w = v
    if TALL:
        inverse, holds = tiles.inverse(h, columns, 64 * EPS)
        along = tiles.product(along - tiles.product(factor, s), inverse)
    s = s - tl.trans(s)
    if not TALL:
        reflected = tiles.has_negative_determinant(h, columns)
        if reflected == 1:  # the direction v of the one negative eigenvalue, l, is taken out first
            v, holds = tiles.dominant_direction(one - _shift(columns, h, EPS) * h, squarings)
            v = v / tl.sqrt(tl.sum(v * v, 0) + TINY)
            l = tl.sum(v * tiles.image(h, v), 0)
            w = tiles.image(s, v)
            h += ((1.0 - l) * v)[:, None] * v[None, :]
            s += v[:, None] * w[None, :] - w[:, None] * v[None, :]
            inverse, positive = tiles.inverse(h + l * one, columns, 64 * EPS)
            w = tiles.image(inverse, w)
            holds *= positive
    p = 1.5 / columns.to(h.dtype)  # near the middle of the eigenvalues of a Gaussian matrix
    inverse, _positive = tiles.inverse(h + p * one, columns, 64 * EPS)
    x = tiles.product(tiles.product((2.0 * p) * inverse, s), inverse)
    u = one - (2.0 * p) * inverse
    converged, k = 0, 0
    while (k < squarings) & (converged == 0):
        x += tiles.product(tiles.product(u, x), u)
        u = tiles.gram(u)
        converged = (tl.sum(tl.sum(u * u, 1), 0) < EPS / 4).to(tl.int32)
        k += 1
    x = x - tl.trans(x)
    x += 2.0 * (w[:, None] * v[None, :] - v[:, None] * w[None, :])
    found = (0.5 * scale) * tiles.product(tl.load(q + at, live, 0.0), x)
    if TALL:
        found += scale * along
    tl.store(d + at, found, live)
    tl.store(residual + item, tl.where(converged * holds == 1, 0.0, float("inf")))


@triton.jit(do_not_specialize=COUNTS)
def _pullback(
    m, g, d, kept, steps, count, rows, columns,
    EPS: tl.constexpr, TINY: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The steps of `_polar` once more, each X put away, and then back through them.

    For Y = a X + X P with P = b E + c E² and F = XᵀG, the gradient G of Y becomes
    a G + G P - X (D + Dᵀ), D = b F + c (E F + F E), and that of X = M / |M| at last (G - <G, X> X) / |M|.
    """
    item = tl.program_id(0).to(tl.int64)
    at, live = _places(item, rows, columns, HEIGHT, WIDTH)
    inside, _live = _places(item * count, rows, columns, HEIGHT, WIDTH)
    x, scale = tiles.over_frobenius(tl.load(m + at, live, 0.0), TINY)
    one = tiles.identity(columns, x, WIDTH)
    for s in range(count):
        a, b, c = tl.load(steps + 3 * s), tl.load(steps + 3 * s + 1), tl.load(steps + 3 * s + 2)
        tl.store(kept + inside + s * rows * columns, x, live)
        e = one - tiles.gram(x)
        x = a * x + tiles.product(x, b * e + c * tiles.gram(e))
    tl.debug_barrier()  # what one thread has put away another may take
    gradient = tl.load(g + at, live, 0.0)
    for r in range(count):
        s = count - 1 - r
        a, b, c = tl.load(steps + 3 * s), tl.load(steps + 3 * s + 1), tl.load(steps + 3 * s + 2)
        x = tl.load(kept + inside + s * rows * columns, live, 0.0)
        e = one - tiles.gram(x)
        f = tiles.transposed_product(x, gradient)
        f = b * f + c * (tiles.product(e, f) + tiles.product(f, e))
        gradient = a * gradient + tiles.product(gradient, b * e + c * tiles.gram(e))
        gradient -= tiles.product(x, f + tl.trans(f))
    start = tl.load(kept + inside, live, 0.0)
    along = tl.sum(tl.sum(gradient * start, 1), 0)
    scale = tl.where(tl.sum(tl.sum(start * start, 1), 0) == 0.0, 1.0, scale)  # zero stays what it is
    tl.store(d + at, (gradient - along * start) * scale, live)


@triton.jit
def _places(item, rows, columns, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    i, j = tl.arange(0, HEIGHT)[:, None], tl.arange(0, WIDTH)[None, :]
    return item * rows * columns + i * columns + j, (i < rows) & (j < columns)


@triton.jit
def _shift(n, x, EPS: tl.constexpr):
    """2 sqrt(1 - 1 / n), or hardly less."""
    return (2.0 * (1.0 - 64 * EPS)) * tl.sqrt(1.0 - 1.0 / n.to(x.dtype))
