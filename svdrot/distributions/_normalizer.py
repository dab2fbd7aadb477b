r"""The normalizer of the Bingham distribution on the unit quaternions, and its moments.

$c(A) = E \exp(q^\top A q)$ over uniform $q$ is ${}_1F_1(1/2; 2; A)$, a symmetric function of the eigenvalues
$\lambda_1 \ge \dots \ge \lambda_4$ of $A$. In the eigenbasis write $q = (\sqrt t \cos\phi, \sqrt t \sin\phi,
\sqrt v \cos\psi, \sqrt v \sin\psi)$ with $t = 1 - v$: uniform $q$ has $v$ uniform on [0, 1] and both angles
uniform. With $(a, b, c) = \lambda_1 - (\lambda_2, \lambda_3, \lambda_4)$ and $\bar I_0(x) = e^{-x} I_0(x)$

$$ c(A) e^{-\lambda_1} = \int_0^1 \bar I_0(ta / 2) \, e^{-vb} \, \bar I_0(v(c - b) / 2) \, dv. $$

Every factor is positive and at most 1: nothing overflows or cancels. (This is the formula of Lee, "Bayesian
Attitude Estimation with the Matrix Fisher Distribution on SO(3)", IEEE TAC 63 (2018), eq. 10, in the
eigenvalues of the 4 x 4 form, paired such that the exponential decays.) The integrand has the scales 1/b and
1/c, however far apart, so the nodes are those of Gauss and Legendre in ln v. Given v, the doubled angles are
von Mises, which gives the moments from the same nodes.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function

from svdrot._autograd import pick
from svdrot._rules import backward_rule, batch_first, forward_rule
from svdrot._vectors import one_batch
from svdrot.engine.memory import unseen_by_dynamo

from ._sampling import bingham, draw

# Relative error of the normalizer at most 3e-10 over all combinations of the gaps 0, 1e-6, 1e-3, 0.3, 5, 200,
# 1e4 and 1e8, with 64 nodes 3e-7. Fourth moments need more: 1e-7 with 96 nodes.
NODES = 128
# The integrand in ln v falls at least as exp(ln(v) / 2): what is cut off is exp(-20) = 2e-9 of the whole.
DEPTH = 40.0
# exp(-45) = 3e-20
DECAY = 45.0


@unseen_by_dynamo  # which does not look into a cache
def gauss_legendre(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [0, 1]."""
    nodes, weights = _gauss_legendre(count)
    return torch.as_tensor(nodes, device=device), torch.as_tensor(weights, device=device)


@functools.cache
def _gauss_legendre(count: int) -> tuple[NDArray, NDArray]:
    """Return nodes and weights as arrays: tensors would stay as first made, fake or of an inference."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def _integrand(gaps: Tensor, nodes: int) -> tuple[Tensor, ...]:
    """Return weighted values at the nodes (..., nodes), t and v there, and concentrations of both angles."""
    a, b, c = gaps[..., None].unbind(-2)
    x, weight = gauss_legendre(nodes, gaps.device)
    y = (DECAY / b.clamp_min(DECAY)).log() - DEPTH * (1 - x)
    v, t = y.exp(), -torch.expm1(y)
    first, second = t * a / 2, v * (c - b) / 2
    value = torch.special.i0e(first) * torch.exp(-v * b) * torch.special.i0e(second) * v * (DEPTH * weight)
    return value, t, v, first, second


def scaled_normalizer(gaps: Tensor, nodes: int = NODES) -> Tensor:
    """Return c(A) exp(-lambda_1), in (0, 1], from the gaps (..., 3) in ascending order."""
    return _integrand(gaps, nodes)[0].sum(-1)


def derivatives(gaps: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return the scaled normalizer (...) and E q_i^2, (..., 3), of the last three coordinates of `eigen`."""
    value, t, v, first, second = _integrand(gaps, nodes)
    c = value.sum(-1)
    f, s = _mean_one_minus_cosine(first), _mean_one_minus_cosine(second)
    m2, m3, m4 = t * f, v * (2 - s), v * s
    return c, torch.stack([(value * m).sum(-1) for m in (m2, m3, m4)], -1) / (2 * c[..., None])


def _mean_one_minus_cosine(k: Tensor) -> Tensor:
    """Return the first of the moments below, to 1e-10, at half the cost."""
    j = 1 / k.clamp_min(1e4)
    direct = 1 - torch.special.i1e(k) / torch.special.i0e(k)
    return torch.where(k > 1e4, j / 2 * (1 + j / 4 * (1 + j)), direct)


def _one_minus_cosine(k: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and second moment of 1 - cos under the density exp(k cos)."""
    small = k.clamp(max=200.0)
    ratio = torch.special.i1e(small) / torch.special.i0e(small)
    first = 1 - ratio
    # E cos^2 = 1 - ratio / k, and 1/2 in the limit; below 1e-4 its next term, 1 - (1/2 - k^2 / 16).
    over = torch.where(small < 1e-4, 0.5 - small**2 / 16, ratio / small.clamp_min(1e-4))
    second = 2 * first - over
    # Beyond, 1 - I1/I0 = 1/2k + 1/8k^2 + 1/8k^3 + 25/128k^4 + 13/32k^5 + ..., whose leading terms cancel in
    # the second moment.
    j = 1 / k.clamp_min(200.0)
    rest = j * j * (1 / 8 + j * (1 / 8 + j * (25 / 128 + j * (13 / 32 + j * (1073 / 1024)))))
    large = k > 200
    return torch.where(large, j / 2 + rest, first), torch.where(
        large, 2 * rest + j * j / 2 + rest * j, second
    )


def moments(gaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scaled normalizer (...), E q_i^2 (..., 4) and E q_i^2 q_j^2 (..., 4, 4) by `eigen`."""
    value, t, v, first, second = _integrand(gaps, NODES)
    c = value.sum(-1)
    p = value / c[..., None]
    f1, f2 = _one_minus_cosine(first)
    s1, s2 = _one_minus_cosine(second)
    m2 = (p * t * f1).sum(-1) / 2
    m4 = (p * v * s1).sum(-1) / 2
    m3 = (p * v * (2 - s1)).sum(-1) / 2
    tt, tv, vv = p * t * t, p * t * v, p * v * v
    pairs = (
        (tt * (4 - 4 * f1 + f2), tt * (2 * f1 - f2), tv * (2 - f1) * (2 - s1), tv * (2 - f1) * s1),
        (tt * (2 * f1 - f2), tt * f2, tv * f1 * (2 - s1), tv * f1 * s1),
        (tv * (2 - f1) * (2 - s1), tv * f1 * (2 - s1), vv * (4 - 4 * s1 + s2), vv * (2 * s1 - s2)),
        (tv * (2 - f1) * s1, tv * f1 * s1, vv * (2 * s1 - s2), vv * s2),
    )
    fourth = torch.stack([torch.stack([x.sum(-1) / 4 for x in row], -1) for row in pairs], -2)
    return c, torch.stack((1 - m2 - m3 - m4, m2, m3, m4), -1), fourth


def eigen(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest eigenvalue (...), gaps below it (..., 3) ascending, eigenvectors as columns in that
    order.

    A matrix that is not finite gives NaN: the decomposition itself would raise for the whole batch.
    """
    finite = a.isfinite().all((-2, -1))
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], (a + a.mT) / 2, 0))
    values, vectors = values.flip(-1), vectors.flip(-1)
    values = torch.where(finite[..., None], values, torch.nan)
    return values[..., 0], values[..., :1] - values[..., 1:], vectors


def spectral(vectors: Tensor, values: Tensor) -> Tensor:
    """Return the symmetric matrix of eigenvectors, as columns, and eigenvalues."""
    return (vectors * values[..., None, :]) @ vectors.mT


def _covariance(second: Tensor, fourth: Tensor) -> Tensor:
    """Return the covariance of the q_i^2, (..., 4, 4).

    They sum to 1, so rows sum to 0: what would cancel in the first row comes from the others.
    """
    covariance = (fourth - second[..., :, None] * second[..., None, :])[..., 1:, 1:]
    covariance = torch.cat((-covariance.sum(-2, keepdim=True), covariance), -2)
    return torch.cat((-covariance.sum(-1, keepdim=True), covariance), -1)


class _Last(Function):
    """Return `value`, a function of `inputs` without a derivative: asking for one is an error, not zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NotImplementedError(NO_FURTHER)

    @staticmethod
    def jvp(ctx, *tangents):
        raise NotImplementedError(NO_FURTHER)


NO_FURTHER = "this function of svdrot.distributions has no further derivative"


def last_tangent(value: Tensor, *inputs: Tensor) -> Tensor:
    """Return a tangent, as a function of what it comes from without a derivative."""
    return _Last.apply(value.detach(), *inputs)  # pyright: ignore[reportReturnType]


def last_derivative(backward: Callable) -> Callable:
    """Return a backward that cannot itself be differentiated.

    torch's own `once_differentiable` looks at the incoming gradients alone, and drops the derivative without
    a word where these are constant (torch 2.13).
    """

    @functools.wraps(backward)
    def wrapped(ctx, *grads):
        with torch.no_grad():
            values = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return values
        inputs = (*ctx.saved_tensors, *grads)
        if isinstance(values, Tensor):
            return _Last.apply(values, *inputs)
        return tuple(value if value is None else _Last.apply(value, *inputs) for value in values)

    return wrapped


class _LogNormalizer(Function):
    @staticmethod
    def forward(a: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        top, gaps, _ = eigen(a)
        return top + scaled_normalizer(gaps).log()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @backward_rule
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = ctx.saved_tensors
        return grad[..., None, None] * second_moment(a)

    @staticmethod
    def vmap(info, in_dims, a: Tensor) -> tuple[Tensor, int]:
        return log_normalizer(*batch_first(info, in_dims, a)), 0


class _LogNormalizerWithJvp(_LogNormalizer):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (second_moment(saved[0]) * t).sum((-2, -1))


class _SecondMoment(Function):
    @staticmethod
    def forward(a: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        _, gaps, vectors = eigen(a)
        return spectral(vectors, moments(gaps)[1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @backward_rule
    @last_derivative
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = ctx.saved_tensors
        return _second_moment_along(a, grad)

    @staticmethod
    def vmap(info, in_dims, a: Tensor) -> tuple[Tensor, int]:
        return second_moment(*batch_first(info, in_dims, a)), 0


class _SecondMomentWithJvp(_SecondMoment):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = saved
        return last_tangent(_second_moment_along(a, t), a, t)


def _second_moment_along(a: Tensor, b: Tensor) -> Tensor:
    """Return the derivative of E q q^T along B: its covariance with q^T B q, a symmetric map of B.

    In the eigenbasis all that is odd in some q_i vanishes, and no eigenvalues are subtracted.
    """
    _, gaps, vectors = eigen(a)
    _, second, fourth = moments(gaps)
    b = vectors.mT @ ((b + b.mT) / 2) @ vectors
    diagonal = (_covariance(second, fourth) * b.diagonal(dim1=-2, dim2=-1)[..., None, :]).sum(-1)
    off = 2 * fourth * b
    off = off - torch.diag_embed(off.diagonal(dim1=-2, dim2=-1))
    return vectors @ (off + torch.diag_embed(diagonal)) @ vectors.mT


class _Entropy(Function):
    @staticmethod
    def forward(a: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        _, gaps, _ = eigen(a)
        c, second, _ = moments(gaps)
        return c.log() + (gaps * second[..., 1:]).sum(-1)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @backward_rule
    @last_derivative
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = ctx.saved_tensors
        return grad[..., None, None] * _entropy_slope(a)

    @staticmethod
    def vmap(info, in_dims, a: Tensor) -> tuple[Tensor, int]:
        return entropy(*batch_first(info, in_dims, a)), 0


class _EntropyWithJvp(_Entropy):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = saved
        return last_tangent((_entropy_slope(a) * t).sum((-2, -1)), a, t)


def _entropy_slope(a: Tensor) -> Tensor:
    _, gaps, vectors = eigen(a)
    _, second, fourth = moments(gaps)
    slopes = (_covariance(second, fourth)[..., 1:] * gaps[..., None, :]).sum(-1)
    return spectral(vectors, slopes)


def log_normalizer(a: Tensor) -> Tensor:
    """Return ln c(A), (...), of symmetric matrices (..., 4, 4) in float64.

    Differentiable twice, equal eigenvalues included: the first derivative is `second_moment`.
    """
    return pick(_LogNormalizer, _LogNormalizerWithJvp).apply(a)  # pyright: ignore[reportReturnType]


def second_moment(a: Tensor) -> Tensor:
    """Return E q q^T, (..., 4, 4), under the density exp(q^T A q) / c(A). Differentiable once."""
    return pick(_SecondMoment, _SecondMomentWithJvp).apply(a)  # pyright: ignore[reportReturnType]


def entropy(a: Tensor) -> Tensor:
    """Return ln c(A) - E q^T A q, (...), from the gaps, without its cancellation. Differentiable once."""
    return pick(_Entropy, _EntropyWithJvp).apply(a)  # pyright: ignore[reportReturnType]


def sample(a: Tensor, count: int) -> Tensor:
    """Draw unit quaternions (count, B, 4) with density exp(q^T A q) / c(A), in float64.

    A has shape (B, 4, 4).
    """
    _, gaps, vectors = eigen(a)
    q = draw(bingham, one_batch(gaps.expand(count, *gaps.shape), 1)).reshape(count, len(gaps), 4)
    return (vectors * q[..., None, :]).sum(-1)
