"""Matrices of any size by products or a decomposition, in torch operations. Contract: `svdrot.kernels`.

With M = Q P, Q the orthogonal factor and P = QᵀM symmetric, a tangent dQ = Q X + Y (X skew, QᵀY = 0) keeps P
symmetric if P X + X P = QᵀdM - dMᵀQ and Y P = (I - QQᵀ) dM. In eigenvectors of P both divide by sums of two
singular values (those of Y with zero), never by differences: repeated singular values are harmless. The
solution is differentiated by solving the same equations again, so this holds for derivatives of every order.

Programs that are recorded have no such rule. There results are constants, plus what is zero and has the
derivatives of the first three orders (`_recorded`).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from svdrot._kernels import products
from svdrot._precision import in_full_precision
from svdrot._rules import backward_rule, batch_first, forward_rule, joined, parted
from svdrot.engine.memory import in_memory, is_differentiable_record


@in_full_precision
def special_orthogonalize(m: Tensor, damping: float | None = None, in_function: bool = False) -> Tensor:
    if m.shape[-1] > 2 and products.serves(m):
        return _completed(*products.special_orthogonalize(m), _special_by_decomposition, m)
    if is_differentiable_record(in_function):
        return _recorded(m, _special_by_decomposition(m.detach()).detach(), damping)
    return _special_by_decomposition(m)


def _special_by_decomposition(m: Tensor) -> Tensor:
    u, vh = _singular_vectors(m)
    r = u @ vh
    # -2 where the smallest direction is to be reversed. (`det` multiplies pivots, and is 0 for n = 512.)
    twice = torch.linalg.slogdet(r).sign[:, None, None] - 1
    return torch.baddbmm(r, twice * u[..., -1:], vh[:, -1:])


def _completed(
    q: Tensor, ok: Tensor | None, by_decomposition: Callable[..., Tensor], *arguments: Tensor
) -> Tensor:
    """The results that hold, and the others by a decomposition."""
    if ok is None:
        return q
    if len(q) == 1:
        return by_decomposition(*arguments)
    q[~ok] = by_decomposition(*(x[~ok] for x in arguments))
    return q


@in_full_precision
def special_orthogonalize_differential(
    m: Tensor, r: Tensor, t: Tensor, damping: float | None = None
) -> Tensor:
    if damping is None and products.differentiates(m, t):
        return _completed(*products.differential(m, r, t), _special_differential, m, r, t)
    return _special_differential(m, r, t, damping)


def _special_differential(m: Tensor, r: Tensor, t: Tensor, damping: float | None = None) -> Tensor:
    a = r.mT @ t
    return r @ solve(_symmetric(r.mT @ m), a - a.mT, damping)


@in_full_precision
def projection_gap(m: Tensor, in_function: bool = False) -> tuple[Tensor, Tensor]:
    recorded = is_differentiable_record(in_function)
    fixed = m.detach() if recorded else m
    u, s, vh = _decompose(fixed)
    if m.shape[-1] == 1:  # there is one rotation, and nothing to confuse it with
        gap, slopes = s[:, 0] + torch.inf, u * 0
    else:
        gap, slopes = s[:, -2:].sum(-1), u[..., -2:] @ vh[:, -2:]
    if recorded:  # the slopes times nothing, and what makes a second derivative infinite
        moved = m - fixed
        gap = gap.detach() + (slopes.detach() * moved + moved.pow(1.5)).sum((-2, -1))
    return gap, slopes


@in_full_precision
def orthogonalize(m: Tensor, in_function: bool = False) -> Tensor:
    """The nearest matrix with orthonormal columns, (B, m, n) with m >= n."""
    if products.serves(m):
        return _completed(*products.orthogonalize(m), _by_decomposition, m)
    if is_differentiable_record(in_function):
        return _recorded(m, _by_decomposition(m.detach()).detach(), None)
    return _by_decomposition(m)


def by_products(m: Tensor) -> Tensor:
    """`orthogonalize` by Newton-Schulz, whatever the size; of what does not converge, by a decomposition."""
    return _completed(*products.by_blas(m), _by_decomposition, m)


def _by_decomposition(m: Tensor) -> Tensor:
    u, vh = _singular_vectors(m)
    return u @ vh


def _singular_vectors(m: Tensor) -> tuple[Tensor, Tensor]:
    """U, Vᵀ; U is NaN for matrices that are not finite, which LAPACK refuses."""
    by_lapack = m.is_cpu and in_memory(m)
    ok = None if by_lapack and math.isfinite(m.sum().item()) else _finite(m)
    m = m if ok is None else torch.where(ok, m, 0)
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    if by_lapack and len(m) > 1 and m.shape[-1] > 1:
        for row in _chosen_by_rounding(s.numpy()):
            u[row], _, vh[row] = torch.linalg.svd(m[row], full_matrices=False)
    return u if ok is None else torch.where(ok, u, torch.nan), vh


def _chosen_by_rounding(s: np.ndarray) -> list[int]:
    """Matrices of whose smallest singular vectors less than a third of the digits hold: to be taken alone.

    MKL's rounding depends on where a matrix begins, modulo 64 bytes. In a batch of those that need a
    decomposition that is for the others to say: without this, a NaN next to a reflection turned its nearest
    rotation into another one. (In numpy: 6 us where torch takes 25.)
    """
    apart = np.minimum(s[:, -1], s[:, -2] - s[:, -1])
    return np.flatnonzero(apart < np.finfo(s.dtype).eps ** (2 / 3) * s[:, 0]).tolist()


@in_full_precision
def orthogonalize_differential(m: Tensor, q: Tensor, t: Tensor) -> Tensor:
    if products.differentiates(m, t):
        return _completed(*products.differential(m, q, t), _differential, m, q, t)
    return _differential(m, q, t)


def _differential(m: Tensor, q: Tensor, t: Tensor) -> Tensor:
    if m.shape[-1] == m.shape[-2]:  # Y is zero, and its rounding over the smallest singular value is not
        return _special_differential(m, q, t)
    a = q.mT @ t
    right_hand_side = torch.cat((a - a.mT, t - q @ a), -2)
    x, y = solve(_symmetric(q.mT @ m), right_hand_side).split((m.shape[-1], m.shape[-2]), -2)
    return q @ x + y


def _recorded(m: Tensor, q: Tensor, damping: float | None) -> Tensor:
    """The result q of m, with derivatives of the first three orders through each operation.

    For D = q X + Y let Q = (q + D)(I - DᵀD / 2), orthonormal up to third order. That QᵀM is symmetric and M =
    Q QᵀM are equations for X and Y, of which the first order is that of `solve`. P is taken as a constant,
    and what it inverts is always 0: three steps from 0, each with one order more, have the derivatives of X
    and Y and no others, not those of `solve`. What rounding has left of the equations is taken off.
    """
    rows, n = m.shape[-2:]
    p = _symmetric(q.mT @ m.detach())
    solved = _solver(p, rows if rows > n else 0, damping)

    def left(q1: Tensor) -> Tensor:
        a = q1.mT @ m
        if rows == n:
            return a - a.mT
        off = m - q1 @ a
        return torch.cat((a - a.mT, off - q @ (q.mT @ off)), -2)

    def step(x: Tensor) -> Tensor:
        top, bottom = x[:, :n], x[:, n:]
        d = q @ top + bottom if rows > n else q @ top
        return d - (q + d) @ (d.mT @ d) / 2

    at_q = left(q)
    rounding = at_q.detach()
    x = solved(at_q - rounding)
    for _ in range(2):
        first = torch.cat((p @ _top(x), torch.zeros_like(x[:, n:])), -2) + x @ p
        x = solved(left(q + step(x)) - rounding + first)
    beyond = (m - m.detach()).pow(3.5).sum((-2, -1), keepdim=True)  # the fourth is infinite
    return q + (step(x) + beyond)


def _recorded_solution(p: Tensor, c: Tensor, damping: float | None) -> Tensor:
    """`solve` with derivatives of the first three orders: P is a constant, and steps count its deviation."""
    n = p.shape[-1]
    solved, deviation = _solver(p.detach(), c.shape[-2] - n, damping), p - p.detach()
    x = solved(c)
    for _ in range(3):
        turned = torch.cat((deviation @ _top(x), torch.zeros_like(x[:, n:])), -2)
        x = solved(c - turned - x @ deviation)
    return x + deviation.pow(3.5).sum((-2, -1), keepdim=True)


@in_full_precision
def solve(p: Tensor, c: Tensor, damping: float | None = None) -> Tensor:
    """Skew X with P X + X P = C in its first n rows, Y with Y P = C in the others, for symmetric P.

    C is skew in its first rows. What rounding makes of a pair sum that vanishes is left out (`_reciprocal`);
    with `damping` 1 / g becomes g / (g² + d²), with d = `damping` times the largest eigenvalue of P.
    """
    if not torch.compiler.is_compiling():
        return _Solve.apply(p, c, damping)
    return (_recorded_solution if is_differentiable_record() else _by_eigenvectors)(p, c, damping)


def _by_eigenvectors(p: Tensor, c: Tensor, damping: float | None = None) -> Tensor:
    return _solver(p, c.shape[-2] - p.shape[-1], damping)(c)


def _solver(p: Tensor, below: int, damping: float | None) -> Callable[[Tensor], Tensor]:
    """`solve` as a function of C, with so many rows below the first n."""
    n = p.shape[-1]
    ok = _finite(p)
    scale = p.detach().abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    s, v = torch.linalg.eigh(torch.where(ok, p / scale, 0))
    left = torch.cat((s, s.new_zeros(s.shape[0], below)), -1)
    pair = left[:, :, None] + s[:, None, :]
    size = s.abs().amax(-1)[:, None, None]
    if damping is None:
        inverse = _reciprocal(pair, 8 * math.sqrt(n) * torch.finfo(p.dtype).eps * size)
    else:
        inverse = pair / (pair.square() + (damping * size).square() + torch.finfo(p.dtype).tiny)

    def solved(c: Tensor) -> Tensor:
        top, bottom = (c @ v).split((n, below), -2)
        x = torch.cat((v.mT @ top, bottom), -2) * inverse
        top, bottom = (x @ v.mT).split((n, below), -2)
        return torch.where(ok, torch.cat((v @ top, bottom), -2) / scale, torch.nan)

    return solved


def _reciprocal(g: Tensor, least: Tensor) -> Tensor:
    """1 / g from 2 `least` on, 0 up to `least`, and between them smoothly from one to the other.

    Of n x n matrices rounding, that of the matrices themselves included, moves pair sums by units that grow
    like √n: below 8 √n of them not one digit of 1 / g is right.
    """
    x = (g / least.clamp_min(torch.finfo(g.dtype).tiny) - 1).clamp(0, 1)
    return x * x * (3 - 2 * x) / torch.where(x > 0, g, 1)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(p, c, damping):
        if damping is None and products.solves(p, c):
            return _completed(*products.solve(p, c), _by_eigenvectors, p, c)
        if is_differentiable_record(True):
            return _recorded_solution(p, c, damping)
        return _by_eigenvectors(p, c, damping)

    @staticmethod
    def setup_context(ctx, inputs, output):
        p, _, ctx.damping = inputs
        ctx.save_for_backward(p, output)
        ctx.save_for_forward(p, output)

    @staticmethod
    @backward_rule
    def backward(ctx, g):
        p, x = ctx.saved_tensors
        top, bottom = g[:, : p.shape[-1]], g[:, p.shape[-1] :]
        y = solve(p, torch.cat(((top - top.mT) / 2, bottom), -2), ctx.damping)
        return -(_top(y) @ _top(x).mT + x.mT @ y), y, None

    @staticmethod
    @forward_rule
    def jvp(ctx, saved, tp, tc, _):
        p, x = saved
        px = tp @ _top(x)
        rows = torch.cat((px, px.new_zeros(px.shape[0], x.shape[-2] - px.shape[-2], px.shape[-1])), -2)
        return solve(p, tc - rows - x @ tp, ctx.damping)

    @staticmethod
    def vmap(info, in_dims, p, c, damping):
        """One more batch dimension is one more batch."""
        p, c = batch_first(info, in_dims, p, c)
        return parted(solve(joined(p), joined(c), damping), *p.shape[:2]), 0


def _top(x: Tensor) -> Tensor:
    return x[:, : x.shape[-1]]


def _decompose(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vᵀ with det(U Vᵀ) = 1, so that the last singular value carries the sign of det M."""
    ok = _finite(m)
    u, s, vh = torch.linalg.svd(torch.where(ok, m, 0))
    sign = torch.linalg.slogdet(u @ vh).sign
    flip = torch.cat((s.new_ones(s.shape[0], s.shape[-1] - 1), sign[:, None]), -1)
    return torch.where(ok, u * flip[:, None, :], torch.nan), torch.where(ok[..., 0], s * flip, torch.nan), vh


def _finite(m: Tensor) -> Tensor:
    return m.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)


def _symmetric(p: Tensor) -> Tensor:
    return (p + p.mT) / 2
