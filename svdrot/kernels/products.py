"""Batches of matrices by Newton-Schulz, with word of which results hold. Engine of `general`.

Small ones are computed on a CPU a matrix in every lane (`_polar_tiles`), all others by the products of BLAS
(`iteration`). The schedules are conditioning-capped (`svdrot.schedules`), so a factor that is orthonormal at
the end is the nearest one: no step spreads singular values by more than it brings them together.
"""

from functools import cache

import torch
from torch import Tensor

from svdrot.schedules import Schedule, newton_schulz_schedule

from . import _polar_tiles, cpu, iteration

SMALL = 32  # largest side in lanes
LARGE = 128  # largest side at all: at 256 the SVD is as fast
ALWAYS = ("cuda",)  # devices where products serve every size; not yet measured


def serves(m: Tensor, special: bool = False) -> bool:
    """Whether it is the faster way, and open: compiled and exported programs know no kernels of ours."""
    if m.dtype not in LIMIT or torch.compiler.is_compiling():
        return False
    rows, columns = m.shape[1:]
    if m.device.type in ALWAYS:
        return 1 < columns <= rows
    if m.device.type != "cpu":
        return False
    if rows <= SMALL:  # a tile takes as long for one matrix as for 16
        return 1 < columns <= rows and (columns <= 12 or m.shape[0] > 1)
    enough = m.shape[0] > 3 if special else m.shape[0] * columns >= 96
    return SMALL < columns <= rows <= LARGE and enough and m.dtype == torch.float32


def orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of (B, m, n) matrices, m >= n, and which of them hold: (B, m, n), (B,) bool."""
    m = m.contiguous()
    q, residual = _in_lanes(m) if _fits_lanes(m) else _by_blas(m)
    return q, residual <= LIMIT[m.dtype]


def special_orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations of (B, n, n) matrices, and which of them hold: (B, n, n), (B,) bool."""
    m = m.contiguous()
    r, residual = _turned_in_lanes(m) if _fits_lanes(m) else _turned_by_blas(m)
    return r, residual <= LIMIT[m.dtype]


def _fits_lanes(m: Tensor) -> bool:
    return m.shape[1] <= SMALL and m.device.type not in ALWAYS


def solves(p: Tensor, c: Tensor, damping: float) -> bool:
    """Whether products are the way to `solve`: not on a CPU, where eigenvectors take about as long for n = 9
    to 32, and a tenth for n = 512. Products know no damping: it must do less than rounding does, even at the
    smallest pair sums for which they converge.
    """
    n = p.shape[-1]
    if p.device.type not in ALWAYS or p.dtype not in LIMIT or n == 1:
        return False
    wrapped = torch._C._functorch.is_legacy_batchedtensor  # pyright: ignore
    return damping**2 <= 2 * _lower(n) * torch.finfo(p.dtype).eps and not (wrapped(p) or wrapped(c))


def solve(p: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Skew X with P X + X P = C in its first n rows, Y with Y P = C in the others, and which of them hold."""
    n = p.shape[-1]
    x, residual = iteration.lyapunov(p, c[:, :n], _schedule(n, p.dtype, _lower(n)))
    ok, below = residual <= LIMIT[p.dtype], c[:, n:]
    if below.shape[1] == 0:
        return x, ok
    factor, _ = torch.linalg.cholesky_ex(p)
    return torch.cat((x, torch.cholesky_solve(below.mT, factor).mT), -2), ok


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
    rows, columns = m.shape[1:]
    steps = _steps(columns, m.dtype)
    q, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    cpu.run("polar", m, q, residual, steps, len(steps), rows, columns, scratch=_scratch(m))
    return q, residual


def _turned_in_lanes(m: Tensor) -> tuple[Tensor, Tensor]:
    r, residual = _in_lanes(m)
    places = cpu.empty(m.shape[:1], m.dtype)
    cpu.run("turn", m, r, residual, places, SQUARINGS[m.dtype] - 1, m.shape[-1], scratch=_scratch(m))
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
    first, *others, last = _schedule(n, m.dtype, _lower(n))
    x, one = iteration.over_frobenius(m), iteration.eye(n, m)
    x = iteration.first_step(x, first)
    for step in others:
        x = iteration.step(x, step, one)
    e = iteration.residual(x, one)
    return iteration.advance(x, e, last), torch.linalg.vector_norm(e, dim=(-2, -1))


def _lower(n: int) -> float:
    """As for `_steps`, but the Schatten-8 norm is smaller than Frobenius' by n^(3/8) for equal values."""
    return 0.02 * n**-1.125


def _turned_by_blas(m: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel `turn`, in torch operations."""
    q, residual = _by_blas(m)
    reflected = torch.linalg.slogdet(q).sign < 0
    # To find out on a GPU which they are, the host would have to wait: it turns all, and takes these.
    which = slice(None) if m.device.type in ALWAYS else torch.where(reflected)[0]
    x, h, reflected = q[which], iteration.over_frobenius(m[which]), reflected[which]
    h = x.mT @ h
    p = iteration.eye(m.shape[-1], m) - (h + h.mT) / 2
    for s in range(SQUARINGS[m.dtype]):
        p = p / _trace(p)[:, None, None] if s % 2 == 0 else p
        p = p @ p
    best = p.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)
    v = p.gather(-1, best[:, None].expand(-1, p.shape[-1], 1))
    largest, square = v[:, :, 0].gather(-1, best)[:, 0], v.square().sum((-2, -1))
    of_rank_one = (square - largest * _trace(p)).abs() <= 64 * torch.finfo(m.dtype).eps * square
    turned = x - 2 * (x @ v) * (v.mT / square[:, None, None])
    q[which] = torch.where(reflected[:, None, None], turned, x)
    residual[which] = torch.where(of_rank_one | ~reflected, residual[which], torch.inf)
    return q, residual


def _trace(p: Tensor) -> Tensor:
    return p.diagonal(dim1=-2, dim2=-1).sum(-1)
