"""Batches of matrices on a CPU by Newton-Schulz, with word of which results hold. Engine of `general`.

Small ones are computed a matrix in every lane (`_polar_tiles`), larger ones by the products of BLAS
(`iteration`). The schedules are conditioning-capped (`svdrot.schedules`), so a factor that is orthonormal at
the end is the nearest one: no step spreads singular values by more than it brings them together.
"""

from functools import cache

import torch
from torch import Tensor

from svdrot.schedules import Schedule, newton_schulz_schedule

from . import _polar_tiles, iteration

SMALL = 32  # largest side in lanes
LARGE = 128  # largest side at all: at 256 the SVD is as fast


def serves(m: Tensor) -> bool:
    """Whether it is the faster way, and open: compiled and exported programs know no kernels of ours."""
    if m.device.type != "cpu" or m.dtype not in LIMIT or torch.compiler.is_compiling():
        return False
    rows, columns = m.shape[1:]
    if rows <= SMALL:  # a tile takes as long for one matrix as for 16
        return 1 < columns <= rows and (columns <= 12 or m.shape[0] > 1)
    return SMALL < columns <= rows <= LARGE and m.shape[0] > 3 and m.dtype == torch.float32


def orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of (B, m, n) matrices, m >= n, and which of them hold: (B, m, n), (B,) bool."""
    m = m.contiguous()
    q, residual = _in_lanes(m) if m.shape[1] <= SMALL else _by_blas(m)
    return q, residual <= LIMIT[m.dtype]


def special_orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations of (B, n, n) matrices, and which of them hold: (B, n, n), (B,) bool."""
    m = m.contiguous()
    r, residual = _turned_in_lanes(m) if m.shape[1] <= SMALL else _turned_by_blas(m)
    return r, residual <= LIMIT[m.dtype]


# Largest |I - QᵀQ| before the last step, which leaves 0.6 of its third power: 2.5 units of rounding.
LIMIT = {dtype: (4 * torch.finfo(dtype).eps) ** (1 / 3) for dtype in (torch.float32, torch.float64)}

# To find the direction to reverse: gaps of 2^-k of the norm are told apart.
SQUARINGS = {torch.float32: 16, torch.float64: 20}


@cache
def _schedule(n: int, dtype: torch.dtype, lower: float) -> Schedule:
    each = LIMIT[dtype] / n**0.5  # of n equal residuals
    return newton_schulz_schedule(lower, tolerance=0.3 * each**3)


# A matrix in every lane.


def _in_lanes(m: Tensor) -> tuple[Tensor, Tensor]:
    from . import cpu  # not at the top: importing svdrot does not load a compiler

    rows, columns = m.shape[1:]
    steps = _steps(columns, m.dtype)
    q, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    cpu.run("polar", m, q, residual, steps, len(steps), rows, columns, scratch=_scratch(m))
    return q, residual


def _turned_in_lanes(m: Tensor) -> tuple[Tensor, Tensor]:
    from . import cpu

    r, residual = _in_lanes(m)
    cpu.run("turn", m, r, residual, SQUARINGS[m.dtype], m.shape[-1], scratch=_scratch(m))
    return r, residual


@cache
def _steps(n: int, dtype: torch.dtype) -> Tensor:
    """In powers of E = I - XᵀX, for all but one in fifty Gaussian matrices."""
    schedule = _schedule(n, dtype, 0.02 * n**-1.5)
    return torch.tensor([iteration.about_one(step) for step in schedule], dtype=dtype)


def _scratch(m: Tensor) -> int:
    return _polar_tiles.scratch(m.shape[-2], m.shape[-1], 64 // m.element_size())


# By BLAS.


def _by_blas(m: Tensor) -> tuple[Tensor, Tensor]:
    n = m.shape[-1]
    # As above, but the Schatten-8 norm is smaller than Frobenius' by n^(3/8) where singular values are equal.
    first, *others, last = _schedule(n, m.dtype, 0.02 * n**-1.125)
    x, one = iteration.over_frobenius(m), iteration.eye(n, m)
    x = iteration.first_step(x, first)
    for step in others:
        x = iteration.step(x, step, one)
    e = iteration.residual(x, one)
    return iteration.advance(x, e, last), torch.linalg.vector_norm(e, dim=(-2, -1))


def _turned_by_blas(m: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel `turn`, in torch operations."""
    q, residual = _by_blas(m)
    (reflected,) = torch.where(torch.linalg.slogdet(q).sign < 0)
    x, h = q[reflected], iteration.over_frobenius(m[reflected])
    h = x.mT @ h
    p = iteration.eye(m.shape[-1], m) - (h + h.mT) / 2
    for s in range(SQUARINGS[m.dtype]):
        p = p / _trace(p)[:, None, None] if s % 2 == 0 else p
        p = p @ p
    best = p.diagonal(dim1=-2, dim2=-1).argmax(-1)
    rows = torch.arange(len(p))
    v, largest = p[rows, :, best], p[rows, best, best]
    square = v.square().sum(-1)
    of_rank_one = (square - largest * _trace(p)).abs() <= 64 * torch.finfo(m.dtype).eps * square
    q[reflected] = x - 2 * (x @ v[:, :, None]) * (v / square[:, None])[:, None, :]
    residual[reflected] = torch.where(of_rank_one, residual[reflected], torch.inf)
    return q, residual


def _trace(p: Tensor) -> Tensor:
    return p.diagonal(dim1=-2, dim2=-1).sum(-1)
