"""Small matrices on a CPU by Newton-Schulz, with word of which results hold. Engine of `general`.

The schedules are conditioning-capped (`svdrot.schedules`), so a factor that is orthonormal at the end is the
nearest one: no step spreads singular values by more than it brings them together.
"""

from functools import cache

import torch
from torch import Tensor

from svdrot.schedules import newton_schulz_schedule

from . import _polar_tiles

LARGEST = 32  # side of a matrix


def serves(m: Tensor) -> bool:
    """Whether it is the faster way, and open: compiled and exported programs know no kernels of ours."""
    return (
        m.device.type == "cpu"
        and m.dtype in LIMIT
        and 1 < m.shape[-1] <= m.shape[-2] <= LARGEST
        and not torch.compiler.is_compiling()
    )


def orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of (B, m, n) matrices, m >= n, and which of them hold: (B, m, n), (B,) bool."""
    q, residual = _polar(m.contiguous())
    return q, residual <= LIMIT[m.dtype]


def special_orthogonalize(m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations of (B, n, n) matrices, and which of them hold: (B, n, n), (B,) bool."""
    from . import cpu  # not at the top: importing svdrot does not load a compiler

    m = m.contiguous()
    r, residual = _polar(m)
    cpu.run("turn", m, r, residual, SQUARINGS[m.dtype], m.shape[-1], scratch=_scratch(m))
    return r, residual <= LIMIT[m.dtype]


# Largest |I - QᵀQ| before the last step, which leaves 0.6 of its third power: 2.5 units of rounding.
LIMIT = {dtype: (4 * torch.finfo(dtype).eps) ** (1 / 3) for dtype in (torch.float32, torch.float64)}

# To find the direction to reverse: gaps of 2^-k of the norm are told apart.
SQUARINGS = {torch.float32: 16, torch.float64: 20}


def _polar(m: Tensor) -> tuple[Tensor, Tensor]:
    from . import cpu

    rows, columns = m.shape[1:]
    steps = _steps(columns, m.dtype)
    q, residual = cpu.empty(m.shape, m.dtype), cpu.empty(m.shape[:1], m.dtype)
    cpu.run("polar", m, q, residual, steps, len(steps), rows, columns, scratch=_scratch(m))
    return q, residual


@cache
def _steps(n: int, dtype: torch.dtype) -> Tensor:
    """In powers of E = I - XᵀX, for all but one in fifty Gaussian matrices."""
    each = LIMIT[dtype] / n**0.5  # of n equal residuals
    schedule = newton_schulz_schedule(0.02 * n**-1.5, tolerance=0.3 * each**3)
    return torch.tensor([[a + b + c, -b - 2 * c, c] for a, b, c in schedule], dtype=dtype)


def _scratch(m: Tensor) -> int:
    return _polar_tiles.scratch(m.shape[-2], m.shape[-1], 64 // m.element_size())
