"""Newton-Schulz by batched products, for matrices (B, m, n) of any shape.

In torch operations; on a GPU large symmetric products without a derivative go through Triton (`gram`).
"""

import os
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from svdrot._precision import compute_dtype
from svdrot._rules import is_legacy_batch
from svdrot.engine.memory import in_memory
from svdrot.schedules import Schedule, Step


def over_frobenius(m: Tensor) -> Tensor:
    """By the largest entry first: squares of tiny or huge numbers would leave the range of the dtype."""
    m = m / _size(m, torch.inf)
    return m.div_(_size(m, 2)) if is_in_place(m) else m / _size(m, 2)


def _size(m: Tensor, order: float) -> Tensor:
    norm = torch.linalg.vector_norm(m, order, dim=(-2, -1), keepdim=True)
    return torch.where(norm > 0, norm, 1)  # not over the least number, whose square gradients go by


def eye(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def step(x: Tensor, step: Step, one: Tensor) -> Tensor:
    """X p(XᵀX) in powers of E = I - XᵀX, which vanishes as X converges, and what rounding does to it as well.

    In powers of XᵀX, whose terms cancel, the error of the result is twice as large. Of wide matrices XXᵀ.
    """
    return advance(x, residual(x, one), step)


def residual(x: Tensor, one: Tensor) -> Tensor:
    """E."""
    return symmetric_product(x if _wide(x) else x.mT, -1, one, 1)


def advance(x: Tensor, e: Tensor, step: Step) -> Tensor:
    constant, *others = about_one(step)
    p = _vanishing(e, others)
    return torch.baddbmm(x, p, x, beta=constant) if _wide(x) else torch.baddbmm(x, x, p, beta=constant)


def _vanishing(e: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial in E whose coefficients of E, E², ... these are."""
    *others, last = coefficients
    if not others:
        return last * e
    p = symmetric_product(e, last, e, others.pop())
    for c in reversed(others):
        p = torch.baddbmm(e, e, p, beta=c)
    return p


IN_PLACE = 2**23  # bytes of a matrix on a CPU from which on its memory counts
ROWS = 256  # that are multiplied at a time, as fast as all at once


def is_in_place(x: Tensor) -> bool:
    """Whether steps are to overwrite X: it is large, and nobody looks inside."""
    return x.is_cpu and x.shape[-2:].numel() * x.itemsize >= IN_PLACE and is_opaque(x)


def step_in_place(x: Tensor, step: Step) -> None:
    """Write X p(XᵀX) on X row after row, of wide matrices column after column: beside it there is but E.

    Of a nearly square matrix each row is multiplied by E twice, as long as E² would take; else E² is made.
    """
    for matrix in x.mT if _wide(x) else x:
        e = (matrix.mT @ matrix).neg_()
        e.diagonal().add_(1)
        coefficients = about_one(step)
        if len(matrix) > 2 * len(e):
            e, coefficients = _vanishing(e[None], coefficients[1:])[0], (coefficients[0], 1.0)
        *others, last = coefficients
        for rows in matrix.split(ROWS):
            found = torch.addmm(rows, rows, e, beta=others[-1], alpha=last)
            for c in reversed(others[:-1]):
                found = torch.addmm(rows, found, e, beta=c)
            rows.copy_(found)


# Where `gram` is taken, and from which side on: near where others' kernels of the kind begin to gain. Not yet
# measured.
TILED_ON, TILED = ("cuda",), 2048


def symmetric_product(x: Tensor, alpha: float, c: Tensor, beta: float) -> Tensor:
    """alpha X Xᵀ + beta C for symmetric C."""
    large = x.device.type in TILED_ON and x.shape[-2] >= TILED and x.dtype != torch.float64
    if large and is_opaque(x, c) and (module := _gram()) is not None:
        return module.gram(x, alpha, c, beta)
    return torch.baddbmm(c, x, x.mT, beta=beta, alpha=alpha)


def is_faster_in_full(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether products in half precision take longer than in float32, as they do on a CPU without units for
    them: 1.4 to 1.7 times as long.
    """
    return x.is_cpu and dtype in UNITS and not _has_units(dtype)


# Who tells of units by which oneDNN, which torch's products go through, multiplies faster than in float32:
# tiles, and dot products in a register, twice as fast. What ONEDNN_MAX_CPU_ISA may leave it that has neither.
UNITS = {
    torch.bfloat16: ("_is_amx_tile_supported", "_is_avx512_bf16_supported"),
    torch.float16: ("_is_amx_tile_supported",),
}
WITHOUT_UNITS = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


@torch.compiler.assume_constant_result
@cache
def _has_units(dtype: torch.dtype) -> bool:
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_UNITS:
        return False
    return any(getattr(torch.cpu, unit, lambda: True)() for unit in UNITS[dtype])


def is_opaque(*tensors: Tensor) -> bool:
    """Whether nobody asks for derivatives of what is computed, nor looks inside."""
    if not in_memory(*tensors) or torch._C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0:
        return False
    if any(map(is_legacy_batch, tensors)):
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


@cache
def _gram() -> ModuleType | None:
    try:
        from svdrot._kernels.gpu import gram
    except ImportError:  # no Triton
        return None
    return gram


def about_one(step: Step) -> Step:
    """The coefficients of a polynomial in y = 1 - e as those in e."""
    shifted = [0.0] * len(step)
    for c in reversed(step):  # Horner: q <- q (1 - e) + c
        shifted = [s - t for s, t in zip(shifted, [0.0, *shifted[:-1]], strict=True)]
        shifted[0] += c
    return tuple(shifted)


def first_step(x: Tensor, step: Step) -> Tensor:
    """X / s and then p, for the Schatten-8 norm s: the fourth root of the Frobenius norm of (XᵀX)²."""
    gram = x @ x.mT if _wide(x) else x.mT @ x
    square = gram @ gram
    fourth = torch.linalg.vector_norm(square.to(compute_dtype(square)), dim=(-2, -1), keepdim=True)
    some = fourth > 0
    scale = torch.where(some, torch.where(some, fourth, 1) ** -0.25, 0).to(x.dtype)
    a, b, *rest = step
    p = b * scale**3 * gram
    power = square
    for i, c in enumerate(rest):
        p = p + c * scale ** (5 + 2 * i) * power
        power = power @ gram if i + 1 < len(rest) else power
    return a * scale * x + (p @ x if _wide(x) else x @ p)


def lyapunov(h: Tensor, s: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The skew X with H X + X H = S, H > 0, S skew, by a schedule of quintics; 2 |I - H| before the last one.

    With Z = [[H, S], [0, -H]], sign Z = [[I, 2 X], [0, -I]], for both commute, and Z <- Z p(Z²) goes there.
    In powers of I - Z² = [[E, F], [0, E]], E = I - H² and F = S H - H S, a step p = a + b e + c e² is

        P = a + b E + c E²,    P' = b F + c (E F + F E),    H <- H P,    S <- S P + H P'.

    All but S are symmetric: seven products. If the schedule takes the eigenvalue l of H to f(l), then X is in
    its eigenvectors the solution times (f(l_i) + f(l_j)) / 2.
    """
    tiny = torch.finfo(h.dtype).tiny
    size, of_s = (x.abs().amax((-2, -1), keepdim=True).clamp_min(tiny) for x in (h, s))
    h, s = h / size, s / of_s
    square = h @ h
    norm = torch.linalg.vector_norm(square @ square, dim=(-2, -1), keepdim=True) ** 0.25  # as `first_step`
    h = h / norm.clamp_min(tiny)
    one, before = eye(h.shape[-1], h), h
    for step in schedule:
        a, b, c = about_one(step)
        e, before = symmetric_product(h, -1, one, 1), h
        f = s @ h
        f = f + f.mT
        p = symmetric_product(e, c, e, b)
        g = e @ f
        g = b * f + c * (g + g.mT)
        s = torch.baddbmm(torch.baddbmm(s, s, p, beta=a), h, g)
        s = (s - s.mT) / 2  # left to rounding, it would cost a digit
        h = torch.baddbmm(h, h, p, beta=a)
    # |I - H²| would not see that an eigenvalue has gone to -1.
    return s / (2 * norm) * (of_s / size), 2 * torch.linalg.vector_norm(one - before, dim=(-2, -1))


def _wide(x: Tensor) -> bool:
    return x.shape[-2] < x.shape[-1]
