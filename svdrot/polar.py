r"""The orthogonal polar factor by matrix products alone: $M = Q H$, $Q$ orthonormal, $H$ symmetric positive.

`newton_schulz` is the bare iteration, as optimizers use it.
"""

import torch
from torch import Tensor

from svdrot._checks import check_matrix, compute_dtype
from svdrot.schedules import Schedule, Step


def newton_schulz(
    matrix: Tensor, schedule: Schedule, *, dtype: torch.dtype | None = None, schatten: int = 2
) -> Tensor:
    r"""$U p(S) V^\top$ for a matrix $U S V^\top$ over one of its norms, $p$ the composition of a schedule.

    Nothing but products with the Gram matrix of the shorter side. How near to orthonormal the result is
    depends on the schedule and on the singular values; directions of singular value 0 stay 0, so the zero
    matrix gives the zero matrix. Differentiable as any torch operation, at the cost of keeping every step.

    Args:
        matrix: shape (..., m, n), any floating dtype, any scale. It is not changed.
        schedule: the polynomials; `svdrot.schedules.SCHEDULES`, `newton_schulz_schedule`.
        dtype: of the products. Default: that of `matrix`, but not less than float32. The norm is always taken
            in float32 at least, before any conversion.
        schatten: which norm: 2 (Frobenius), or 8, at most $n^{1/8}$ times the largest singular value, taken
            from products that the first step makes anyway. Both are at least the largest singular value, so
            what is divided by them fits any schedule; 8 spares about two steps at n = 2048.

    Returns:
        Shape (..., m, n), in the dtype of `matrix`. NaN or infinity in a matrix gives NaN for that matrix.

    Raises:
        ValueError: if `matrix` has fewer than two dimensions, `schedule` has no step or one of fewer than two
            coefficients, or `schatten` is neither 2 nor 8.
        TypeError: if `matrix` is not a floating-point tensor.
    """
    check_matrix("matrix", matrix)
    if not schedule or min(map(len, schedule)) < 2:
        raise ValueError(
            f"`schedule` must be a tuple of steps of at least two coefficients; got {schedule!r}."
        )
    if schatten not in (2, 8):
        raise ValueError(f"`schatten` must be 2 or 8; got {schatten!r}.")
    x = _over_frobenius(matrix.reshape(-1, *matrix.shape[-2:]).to(compute_dtype(matrix)))
    x = x.to(dtype or x.dtype)
    wide = x.shape[-2] < x.shape[-1]
    x = x.mT if wide else x
    if schatten == 8:
        x, schedule = _first_step(x, schedule[0]), schedule[1:]
    for step in schedule:
        x = _step(x, step)
    x = x.mT if wide else x
    return x.to(matrix.dtype).reshape(matrix.shape)


def _over_frobenius(m: Tensor) -> Tensor:
    """By the largest entry first: squares of tiny or huge numbers would leave the range of the dtype."""
    largest = m.abs().amax((-2, -1), keepdim=True)
    m = m / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(m, dim=(-2, -1), keepdim=True)
    return m / torch.where(norm > 0, norm, 1)


def _step(x: Tensor, step: Step) -> Tensor:
    """X p(XᵀX) in powers of E = I - XᵀX, which vanishes as X converges, and what rounding does to it as well.

    In powers of XᵀX, whose terms cancel, the error of the result is twice as large.
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    e = torch.baddbmm(eye, x.mT, x, alpha=-1)
    *inner, highest = _about_one(step)
    p = highest * e
    for c in reversed(inner[1:]):
        p = torch.baddbmm(e, e, p, beta=c)
    return torch.baddbmm(x, x, p, beta=inner[0])


def _about_one(step: Step) -> Step:
    """The coefficients of a polynomial in y = 1 - e as those in e."""
    shifted = [0.0] * len(step)
    for c in reversed(step):  # Horner: q <- q (1 - e) + c
        shifted = [s - t for s, t in zip(shifted, [0.0, *shifted[:-1]], strict=True)]
        shifted[0] += c
    return tuple(shifted)


def _first_step(x: Tensor, step: Step) -> Tensor:
    """X / s and then p, for the Schatten-8 norm s: the fourth root of the Frobenius norm of (XᵀX)²."""
    gram = x.mT @ x
    square = gram @ gram
    norm = torch.linalg.vector_norm(square.to(compute_dtype(square)), dim=(-2, -1), keepdim=True) ** 0.25
    scale = torch.where(norm > 0, 1 / norm, 0).to(x.dtype)
    a, b, *rest = step
    p = b * scale**3 * gram
    power = square
    for i, c in enumerate(rest):
        p = p + c * scale ** (5 + 2 * i) * power
        power = power @ gram if i + 1 < len(rest) else power
    return a * scale * x + x @ p
