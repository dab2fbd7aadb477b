"""Batches of matrices by Newton-Schulz, with word of which results hold. Engine of `general`.

On a CPU, where they are small: many of them a matrix in every lane (`polar_lanes`), a few or somewhat larger
ones one after the other (`polar_rows`). On a GPU small ones in one kernel (`gpu.polar`), others by the
products of BLAS (`iteration`). The schedules are conditioning-capped (`svdrot.schedules`), so a factor that
is orthonormal at the end is the nearest one: no step spreads singular values by more than it brings them
together.
"""

from functools import cache, lru_cache
from types import ModuleType

import torch
from torch import Tensor

from svdrot._precision import compute_dtype, device_type
from svdrot._rules import is_legacy_batch
from svdrot.engine.memory import in_memory
from svdrot.schedules import Schedule, newton_schulz_schedule

from . import cpu, select_polar
from .cpu.loops import polar_lanes, polar_rows
from .operations import iteration

LARGE = {torch.float32: 112, torch.float64: 96}  # largest side: beyond, the SVD is as fast
SMALL = 24  # largest side in lanes: at 32 five tiles of 16 matrices do not fit the cache
ALWAYS = ("cuda",)  # devices where products serve every size; not yet measured
ON_HOST = 4096  # residuals of a GPU that come to the host at once, without a kernel for their largest


def serves(m: Tensor) -> bool:
    """Whether it is the faster way, and open."""
    rows, columns = m.shape[1:]
    if not 1 < columns <= rows or m.dtype not in LARGE or not in_memory(m):
        return False
    return _always(m) or (m.is_cpu and rows <= LARGE[m.dtype])


def _always(m: Tensor) -> bool:
    return device_type(m) in ALWAYS


def _in_registers(m: Tensor) -> ModuleType | None:
    """The kernels of a GPU, for matrices that fit into the registers of a program."""
    kernels = select_polar(m)
    return kernels if kernels is not None and max(m.shape[1:]) <= kernels.LARGEST else None


def orthogonalize(m: Tensor) -> tuple[Tensor, Tensor | None]:
    """Factors of (B, m, n) matrices, m >= n, and which of them hold, (B,) bool, or None if all do."""
    m = m.contiguous()
    by_blas = _always(m) and _in_registers(m) is None
    q, residual = _by_blas(m) if by_blas else _by_kernels(m, _own_steps(m))
    return q, _holding(residual)


def by_blas(m: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same, by products of BLAS."""
    q, residual = _by_blas(m)
    return q, _holding(residual)


def special_orthogonalize(m: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rotations of (B, n, n) matrices, and which of them hold, (B,) bool, or None if all do."""
    m = m.contiguous()
    if (kernels := _in_registers(m)) is not None:
        r, residual = kernels.rotation(m, _own_steps(m), SQUARINGS[m.dtype])
    elif _always(m):
        r, residual = _turned_by_blas(m)
    else:
        r, residual = _turned_in_lanes(m) if _fills_lanes(m) else _turned_in_rows(m)
    return r, _holding(residual)


def iterates(m: Tensor, schedule: Schedule) -> bool:
    """Whether `iterate` is open: for steps up to quintics, with nobody who differentiates or looks inside."""
    if not iteration.is_opaque(m) or not _quintic(schedule):
        return False
    if _in_registers(m) is not None:
        return True
    return m.is_cpu and not _always(m) and max(m.shape[-2:]) <= LARGE[compute_dtype(m)]


def _quintic(schedule: Schedule) -> bool:
    return max(map(len, schedule)) <= 3


def iterate(m: Tensor, schedule: Schedule) -> Tensor:
    """(B, m, n) matrices over their Frobenius norms after a schedule, in float32 or float64."""
    wide = m.shape[1] < m.shape[2]
    m = (m.mT if wide else m).contiguous()
    q, _ = _by_kernels(m, _table(schedule, m.dtype, _where(m)))
    return q.mT if wide else q


def pulls_back(m: Tensor, schedule: Schedule) -> bool:
    """Whether `iterate` is open but for derivatives, and `pull_back` gives those of first order."""
    return _in_registers(m) is not None and iterates(m.detach(), schedule)


def pull_back(m: Tensor, schedule: Schedule, g: Tensor) -> Tensor:
    """Gradients in m for gradients g of what `iterate` gives."""
    wide = m.shape[1] < m.shape[2]
    m, g = ((x.mT if wide else x).contiguous() for x in (m, g))
    kernels = _in_registers(m)
    assert kernels is not None  # `pulls_back`
    d = kernels.pullback(m, g, _table(schedule, m.dtype, m.device))
    return d.mT if wide else d


def _by_kernels(m: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    if (kernels := _in_registers(m)) is not None:
        return kernels.factor(m, steps)
    return _in_lanes(m, steps) if _fills_lanes(m) else _in_rows(m, steps)


def _fills_lanes(m: Tensor) -> bool:
    """A tile takes as long for one matrix as for 16."""
    count, rows, _ = m.shape
    return rows <= SMALL and count >= _lanes(m) // 2


def _holding(residual: Tensor) -> Tensor | None:
    count, limit = residual.numel(), LIMIT[residual.dtype]
    if count == 0:
        return None
    # On a GPU the one synchronization, where a decomposition makes several. NaN wins every maximum.
    residual = residual.cpu() if 1 < count <= ON_HOST else residual
    worst = residual.item() if count == 1 else residual.max().item()
    return None if worst <= limit else residual <= limit


def differentiates(m: Tensor, t: Tensor) -> bool:
    """Whether `differential` is the faster way, and nobody differentiates or batches what it gives."""
    if not serves(m) or (_always(m) and _in_registers(m) is None):
        return False
    return t.dtype == m.dtype and iteration.is_opaque(m, t)


def differential(m: Tensor, q: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
    """Derivatives along `t` of the factors or rotations q of (B, m, n) matrices, and which hold, or None."""
    rows, columns = m.shape[1:]
    m, q, t = m.contiguous(), q.contiguous(), t.contiguous()
    if (kernels := _in_registers(m)) is not None:
        d, residual = kernels.differential(m, q, t, SQUARINGS[m.dtype])
        return d, _holding(residual)
    d, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    arguments = m, q, t, d, residual, SQUARINGS[m.dtype], rows, columns
    _run("differential_rows", *arguments, module=polar_rows)
    return d, _holding(residual)


def solves(p: Tensor, c: Tensor) -> bool:
    """Whether products are the way to `solve`: not on a CPU, where eigenvectors take about as long for n = 9
    to 32, and a tenth for n = 512.
    """
    n = p.shape[-1]
    if not _always(p) or p.dtype not in LARGE or n == 1 or not in_memory(p, c):
        return False
    return not is_legacy_batch(p) and not is_legacy_batch(c)


def solve(p: Tensor, c: Tensor) -> tuple[Tensor, Tensor | None]:
    """Skew X with P X + X P = C in its first n rows, Y with Y P = C in the others, and which of them hold."""
    n = p.shape[-1]
    x, residual = iteration.lyapunov(p, c[:, :n], _schedule(n, p.dtype, _lower(n)))
    ok, below = _holding(residual), c[:, n:]
    if below.shape[1] == 0:
        return x, ok
    factor, _ = torch.linalg.cholesky_ex(p)
    return torch.cat((x, torch.cholesky_solve(below.mT, factor).mT), -2), ok


# Largest |I - QᵀQ| before the last step, which leaves 0.6 of its third power: 2.5 units of rounding.
LIMIT = {dtype: (4 * torch.finfo(dtype).eps) ** (1 / 3) for dtype in (torch.float32, torch.float64)}

# To find the direction to reverse, and for derivatives: gaps of 2^-k of the norm are told apart.
SQUARINGS = {torch.float32: 16, torch.float64: 20}


@cache
def _schedule(n: int, dtype: torch.dtype, lower: float) -> Schedule:
    each = LIMIT[dtype] / n**0.5  # of n equal residuals
    return newton_schulz_schedule(lower, tolerance=0.3 * each**3)


def _own_steps(m: Tensor) -> Tensor:
    """For all but one in fifty Gaussian matrices."""
    return _table_of_own(m.shape[-1], m.dtype, _where(m))


@cache
def _table_of_own(n: int, dtype: torch.dtype, where: torch.device | str) -> Tensor:
    return _table(_schedule(n, dtype, 0.02 * n**-1.5), dtype, where)


def _where(m: Tensor) -> torch.device | str:
    """The device; avoids `.device` for CPU tensors, as `device_type` does."""
    return "cpu" if m.is_cpu else m.device


@lru_cache(256)
def _table(schedule: Schedule, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Cubics and quintics in powers of E = I - XᵀX, as the kernels take them: where they are, copied once."""
    steps = [(*iteration.about_one(step), 0.0)[:3] for step in schedule]
    return torch.tensor(steps, dtype=dtype, device=device)


def _lanes(m: Tensor) -> int:
    return 64 // m.element_size()


# A matrix in every lane.


def _in_lanes(m: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = m.shape[1:]
    q, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    _run("polar", m, q, residual, steps, len(steps), rows, columns, module=polar_lanes)
    return q, residual


def _turned_in_lanes(m: Tensor) -> tuple[Tensor, Tensor]:
    r, residual = _in_lanes(m, _own_steps(m))
    places = cpu.empty(m.shape[:1], m.dtype)
    _run("turn", m, r, residual, places, SQUARINGS[m.dtype] - 1, m.shape[-1], module=polar_lanes)
    return r, residual


# A matrix after the other.


def _in_rows(m: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = m.shape[1:]
    q, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    _run("polar_rows", m, q, residual, steps, len(steps), rows, columns, module=polar_rows)
    return q, residual


def _turned_in_rows(m: Tensor) -> tuple[Tensor, Tensor]:
    n, squarings = m.shape[-1], SQUARINGS[m.dtype]
    steps = _own_steps(m)
    r, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    _run("rotation_rows", m, r, residual, steps, len(steps), squarings, n, module=polar_rows)
    return r, residual


def _run(name: str, m: Tensor, *arguments: Tensor | float, module: ModuleType) -> None:
    count, rows, columns = m.shape
    scratch = module.scratch(rows, columns, _lanes(m))
    # The work for an entry grows as the side, from that of a 3 x 3 projection at 6 columns on.
    numbers = rows * columns**2 // 6
    if count * numbers < cpu.NUMBERS_PER_THREAD:  # to find out that one thread is enough takes 5 us
        addresses = [x.data_ptr() if isinstance(x, Tensor) else x for x in (m, *arguments)]
        tiles = cpu.empty((scratch,), m.dtype)
        cpu.load(name, m.dtype)(*addresses, tiles.data_ptr(), 0, count)
    else:
        tile = 64 if module is polar_lanes else 1
        cpu.run_rows(name, m.dtype, count, numbers, (m, *arguments), scratch, tile)


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
    """Lower end of the steps by the Schatten-8 norm.

    That norm is smaller than Frobenius' by n^(3/8) for equal values; see `_own_steps`.
    """
    return 0.02 * n**-1.125


def _turned_by_blas(m: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel `turn`, in torch operations."""
    q, residual = _by_blas(m)
    reflected = torch.linalg.slogdet(q).sign < 0
    # To find out on a GPU which they are, the host would have to wait: it turns all, and takes these.
    which = slice(None) if _always(m) else torch.where(reflected)[0]
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
