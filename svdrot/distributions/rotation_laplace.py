r"""The Rotation-Laplace distribution of rotations, as a mixture of matrix Fisher distributions.

The density is $e^{-\sqrt Q} / \sqrt Q$ over its integral, where $Q = \operatorname{tr}(S) -
\operatorname{tr}(A^\top R)$. Since

$$ \frac{e^{-\sqrt Q}}{\sqrt Q} = \int_0^\infty w(u) e^{-uQ} du, \qquad
   w(u) = \frac{e^{-1 / 4u}}{\sqrt{\pi u}}, $$

it is a mixture of the matrix Fisher distributions of $uA$, and its normalizer the integral of theirs,
$\int w(u) \bar c(uD) du$ with $\bar c$ of `_normalizer`: once more by the nodes of Gauss and
Legendre, in ln u.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from svdrot._autograd import pick
from svdrot._rules import backward_rule, batch_first, forward_rule
from svdrot._vectors import one_batch
from svdrot.projection import special_orthogonalize
from svdrot.representations import matrix_to_quaternion, quaternion_to_matrix

from . import _constraints
from ._form import matrix_of_form, quaternion_form
from ._matrix import MatrixDistribution
from ._normalizer import (
    derivatives,
    eigen,
    gauss_legendre,
    last_derivative,
    last_tangent,
    moments,
    scaled_normalizer,
    spectral,
)
from ._sampling import bingham, draw

# 5e-8 and 2e-8 of the normalizer over all combinations of the gaps 0, 1e-6, 1e-3, 0.3, 5, 200, 1e4 and 1e8.
NODES = 128
INNER_NODES = 80
# So many u at a time, times the inner nodes: what fits in a cache for batches of a hundred.
BLOCK = 16
# Two smallest pair sums below this part of the largest: the density has no integral, up to rounding.
SINGULAR = 1e-12

Weights = Callable[[Tensor], Tensor]


def _nodes(gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return u and the weights du at the nodes, (..., NODES).

    In ln u the integrand falls faster than any exponential below u = 1/4, as exp(ln(u) / 2) below u = 1 / c
    if that is larger, and above 1 as exp(-ln(u) / 2) from 1 / b on, exp(-ln u) from 1 / a on.
    """
    a, b, c = gaps.log().unbind(-1)
    low = torch.maximum(torch.full_like(c, -math.log(200)), -c - 37)
    high = torch.minimum((-a).clamp_min(0) + 19, (-b).clamp_min(0) + 38)
    x, weight = gauss_legendre(NODES, gaps.device)
    span = (high - low)[..., None]
    u = (low[..., None] + span * x).exp()
    return u, u * span * weight


def _normalizers(u: Tensor, gaps: Tensor) -> Tensor:
    """Return the scaled normalizers of uA at the nodes u, (..., NODES), some at a time."""
    blocks = u.split(BLOCK, -1)
    return torch.cat([scaled_normalizer(x[..., None] * gaps[..., None, :], INNER_NODES) for x in blocks], -1)


def _density(u: Tensor) -> Tensor:
    """Return w(u), the weight that makes exp(-sqrt Q) / sqrt Q of exp(-uQ)."""
    return torch.exp(-0.25 / u) / (math.pi * u).sqrt()


def _exponential(u: Tensor) -> Tensor:
    """Return the weight that makes exp(-sqrt Q)."""
    return torch.exp(-0.25 / u) / (2 * math.sqrt(math.pi) * u**1.5)


def _logarithmic(u: Tensor) -> Tensor:
    r"""Return the weight that makes ln(Q) exp(-sqrt Q) / sqrt Q.

    With $\ln Q = \int_0^\infty (e^{-t} - e^{-tQ}) dt / t$ it is
    $-(\gamma + \ln u) w(u) - \int_0^1 (w(ux) - w(u)) / (1 - x) dx$.
    """
    x, weight = gauss_legendre(96, u.device)
    # x = y^4 smooths the square root at 0, where w(ux) ~ exp(-1 / 4ux) leaves nothing for small u
    y, jacobian = x**4, 4 * x**3
    w = _density(u)
    rest = ((_density(u[..., None] * y) - w[..., None]) / (1 - y) * jacobian * weight).sum(-1)
    return -(0.5772156649015329 + u.log()) * w - rest


def _defined_gaps(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gaps and eigenvectors, see `eigen`, and where they give a distribution.

    Elsewhere the gaps are 1.
    """
    _, gaps, vectors = eigen(a)
    defined = gaps[..., 1] > SINGULAR * gaps[..., 2]
    return torch.where(defined[..., None], gaps, 1), vectors, defined


def _sums(gaps: Tensor, u: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums over the nodes of weight c E x for x = 1, q_i^2 (..., 4) and q_i^2 q_j^2 (..., 4, 4)."""
    sums = [torch.zeros_like(gaps[..., 0]), gaps.new_zeros(()), gaps.new_zeros(())]
    for at, factor in zip(u.split(BLOCK, -1), weight.split(BLOCK, -1), strict=True):
        c, second, fourth = moments(at[..., None] * gaps[..., None, :])
        p = factor * c
        sums[0] = sums[0] + p.sum(-1)
        sums[1] = sums[1] + (p[..., None] * second).sum(-2)
        sums[2] = sums[2] + (p[..., None, None] * fourth).sum(-3)
    return sums[0], sums[1], sums[2]


class _Mixture(Function):
    """Integrate weights(u) (..., k) against the normalizers of uA: (..., k) from A (..., 4, 4)."""

    @staticmethod
    def forward(a: Tensor, weights: tuple[Weights, ...]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gaps, _, defined = _defined_gaps(a)
        u, du = _nodes(gaps)
        c = _normalizers(u, gaps) * du
        integrals = torch.stack([(w(u) * c).sum(-1) for w in weights], -1)
        return torch.where(defined[..., None], integrals, torch.nan)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        a, ctx.weights = inputs
        ctx.save_for_backward(a)
        ctx.save_for_forward(a)

    @staticmethod
    @backward_rule
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = ctx.saved_tensors
        return _slope(a, grad, ctx.weights), None

    @staticmethod
    def vmap(info, in_dims, a: Tensor, weights: tuple[Weights, ...]) -> tuple[Tensor, int]:
        return _mixture(batch_first(info, in_dims, a)[0], *weights), 0


class _MixtureWithJvp(_Mixture):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t: Tensor, _):  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = saved
        one = torch.ones_like(a[..., 0, :1])
        return torch.stack([(_slope(a, one, (w,)) * t).sum((-2, -1)) for w in ctx.weights], -1)


def _mixture(a: Tensor, *weights: Weights) -> Tensor:
    return pick(_Mixture, _MixtureWithJvp).apply(a, weights)  # pyright: ignore[reportReturnType]


class _Slope(Function):
    r"""Compute the gradient of the integrals, summed with the factors `grad` (..., k): (..., 4, 4).

    Raising eigenvalue i moves the integrand by u c E q_i^2. For the largest, from which the gaps are
    measured, that is minus the sum of the others: the integral of its own moment does not converge.

    The derivative of that along B, $\beta$ in the eigenbasis, is of u^2 c E q_i^2 q_j^2: on the diagonal its
    sum with $\beta_{jj} - \beta_{11}$, and off it twice $\beta_{ij}$ times it, which for the first row
    would not converge. There it is the difference of the two slopes over their gap, as for every function of
    eigenvalues.
    """

    @staticmethod
    def forward(a: Tensor, grad: Tensor, weights: tuple[Weights, ...]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gaps, vectors, defined = _defined_gaps(a)
        slopes = _slopes(gaps, grad, weights)
        return spectral(vectors, torch.where(defined[..., None], slopes, torch.nan))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        a, grad, ctx.weights = inputs
        ctx.save_for_backward(a, grad)
        ctx.save_for_forward(a, grad)

    @staticmethod
    @backward_rule
    @last_derivative
    def backward(ctx, b: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        a, grad = ctx.saved_tensors
        one = torch.ones_like(grad[..., :1])
        each = [(_slope(a, one, (weight,)) * b).sum((-2, -1)) for weight in ctx.weights]
        return _bent(a, grad, b, ctx.weights), torch.stack(each, -1), None

    @staticmethod
    def vmap(info, in_dims, a: Tensor, grad: Tensor, weights: tuple[Weights, ...]) -> tuple[Tensor, int]:
        a, grad = batch_first(info, in_dims, a, grad)
        return _slope(a, grad, weights), 0


class _SlopeWithJvp(_Slope):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, ta: Tensor, tg: Tensor, _):  # pyright: ignore[reportIncompatibleMethodOverride]
        a, grad = saved
        return last_tangent(_bent(a, grad, ta, ctx.weights), a, grad, ta) + _slope(a, tg, ctx.weights)


def _slope(a: Tensor, grad: Tensor, weights: tuple[Weights, ...]) -> Tensor:
    return pick(_Slope, _SlopeWithJvp).apply(a, grad, weights)  # pyright: ignore[reportReturnType]


def _bent(a: Tensor, grad: Tensor, b: Tensor, weights: tuple[Weights, ...]) -> Tensor:
    """Return the derivative of the slope along B, a symmetric map of B."""
    gaps, vectors, defined = _defined_gaps(a)
    b = vectors.mT @ ((b + b.mT) / 2) @ vectors
    diagonal = b.diagonal(dim1=-2, dim2=-1)
    u, du = _nodes(gaps)
    fourth = _sums(gaps, u, _combined(u, grad, weights) * du * u * u)[2][..., 1:, 1:]
    inner = 2 * fourth * b[..., 1:, 1:]
    centered = diagonal[..., 1:] - diagonal[..., :1]
    on = (fourth * centered[..., None, :]).sum(-1)
    inner = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1)) + torch.diag_embed(on)
    slopes = _slopes(gaps, grad, weights)
    apart = gaps > SINGULAR * gaps[..., 2:]
    first = (slopes[..., :1] - slopes[..., 1:]) / torch.where(apart, gaps, torch.inf) * b[..., 0, 1:]
    top = torch.cat((-on.sum(-1, keepdim=True), first), -1)
    bent = torch.cat((top[..., None, :], torch.cat((first[..., None], inner), -1)), -2)
    bent = torch.where(defined[..., None, None], bent, torch.nan)
    return vectors @ bent @ vectors.mT


def _combined(u: Tensor, grad: Tensor, weights: tuple[Weights, ...]) -> Tensor:
    terms = [g[..., None] * w(u) for g, w in zip(grad.unbind(-1), weights, strict=True)]
    return torch.stack(terms).sum(0)


def _slopes(gaps: Tensor, grad: Tensor, weights: tuple[Weights, ...]) -> Tensor:
    u, du = _nodes(gaps)
    weight = _combined(u, grad, weights) * du * u
    others = torch.zeros_like(gaps)
    for at, factor in zip(u.split(BLOCK, -1), weight.split(BLOCK, -1), strict=True):
        c, second = derivatives(at[..., None] * gaps[..., None, :], INNER_NODES)
        others = others + ((factor * c)[..., None] * second).sum(-2)
    slopes = torch.cat((-others.sum(-1, keepdim=True), others), -1)
    # Two modes: the slope that parts the two largest is infinite there, and zero is put for it.
    shared = -others[..., 1:].sum(-1, keepdim=True) / 2
    twice = gaps[..., :1] <= SINGULAR * gaps[..., 2:]
    return torch.where(twice, torch.cat((shared, shared, others[..., 1:]), -1), slopes)


class _SecondMoment(Function):
    """Compute E q q^T under the density of Rotation-Laplace, (..., 4, 4)."""

    @staticmethod
    def forward(a: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gaps, vectors, defined = _defined_gaps(a)
        u, du = _nodes(gaps)
        total, second, _ = _sums(gaps, u, _density(u) * du)
        return spectral(vectors, torch.where(defined[..., None], second / total[..., None], torch.nan))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    @backward_rule
    @last_derivative
    def backward(ctx, b: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = ctx.saved_tensors
        return _second_moment_along(a, b, adjoint=True)

    @staticmethod
    def vmap(info, in_dims, a: Tensor) -> tuple[Tensor, int]:
        return _second_moment(*batch_first(info, in_dims, a)), 0


class _SecondMomentWithJvp(_SecondMoment):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a,) = saved
        return last_tangent(_second_moment_along(a, t, adjoint=False), a, t)


def _second_moment_along(a: Tensor, b: Tensor, adjoint: bool) -> Tensor:
    """Return the derivative of E q q^T along B, or its adjoint on B.

    It is as that of `_Slope`, of a quotient, and of one power of u less: here the first row converges.
    """
    gaps, vectors, defined = _defined_gaps(a)
    u, du = _nodes(gaps)
    total, second, _ = _sums(gaps, u, _density(u) * du)
    _, first, fourth = _sums(gaps, u, _density(u) * du * u)
    second, first = second / total[..., None], first / total[..., None]
    fourth = fourth / total[..., None, None]
    b = vectors.mT @ ((b + b.mT) / 2) @ vectors
    diagonal = b.diagonal(dim1=-2, dim2=-1)
    # E q_i^2 along eigenvalue j; not symmetric, and the largest is moved by minus the others.
    covariance = (fourth - second[..., :, None] * first[..., None, :])[..., 1:, 1:]
    covariance = covariance.mT if adjoint else covariance
    on = (covariance * (diagonal[..., 1:] - diagonal[..., :1])[..., None, :]).sum(-1)
    on = torch.cat((-on.sum(-1, keepdim=True), on), -1)
    off = 2 * fourth * b
    bent = off - torch.diag_embed(off.diagonal(dim1=-2, dim2=-1)) + torch.diag_embed(on)
    return vectors @ torch.where(defined[..., None, None], bent, torch.nan) @ vectors.mT


def _second_moment(a: Tensor) -> Tensor:
    return pick(_SecondMoment, _SecondMomentWithJvp).apply(a)  # pyright: ignore[reportReturnType]


class RotationLaplace(MatrixDistribution):
    r"""Distribution of rotations with density $\propto e^{-\sqrt Q} / \sqrt Q$ against the uniform one.

    Here $Q = \operatorname{tr}(S) - \operatorname{tr}(A^\top R)$, with $S$ the proper singular values of $A$.

    Its tails are heavier than those of the matrix Fisher distribution, and at the mode, the rotation nearest
    to $A$, where $Q = 0$, the density is infinite. It integrates unless $s_1 + s_3 = 0$, that is $A = 0$ or a
    multiple of a reflection: there everything is NaN. Small $A$ does not give the uniform distribution but
    $Q^{-1/2}$, whatever the scale.

    There is no fit: with the mode at one of the rotations their likelihood is infinite.

    `log_prob` and `entropy` are differentiable twice with respect to `matrix`, `mean` once; the normalizer
    and the entropy are accurate to 1e-7. Half precision gives float32. NaN gives NaN in its place with
    `validate_args=False`.

    Args:
        matrix: A, shape (..., 3, 3), finite.
        validate_args: whether to check parameters and values; torch's default if None.

    Raises:
        ValueError: if the last two dimensions of `matrix` are not (3, 3), or an entry is not finite and
            arguments are checked.
        TypeError: if `matrix` is not a floating-point tensor.

    Source:
        Yin et al., "A Laplace-inspired Distribution on SO(3) for Probabilistic Rotation Estimation", ICLR
        2023, definition 2.

    Example:
        >>> import torch, svdrot
        >>> generator = torch.Generator().manual_seed(0)
        >>> raw = torch.randn(8, 3, 3, generator=generator, requires_grad=True)
        >>> truth = svdrot.random_rotation(8, generator=generator)
        >>> belief = svdrot.distributions.RotationLaplace(raw)
        >>> belief.log_prob(truth).mean().neg().backward()  # as a loss
        >>> svdrot.is_rotation(belief.mode).all()
        tensor(True)
    """

    support: Any = _constraints.rotation  # pyright: ignore
    event: ClassVar[tuple[int, ...]] = (3, 3)

    def _form(self) -> Tensor:
        """Return the symmetric form of A, (..., 4, 4), in float64."""
        return quaternion_form(self.matrix.double())

    @property
    def mode(self) -> Tensor:
        """Return the rotation nearest to A, shape (*batch_shape, 3, 3)."""
        return special_orthogonalize(self.matrix)

    @property
    def mean(self) -> Tensor:
        """Return the expected matrix E R, shape (*batch_shape, 3, 3).

        It is a rotation only in the limit of large A, but the rotation nearest to it is the mode.
        """
        return matrix_of_form(_second_moment(self._form())).to(self.matrix.dtype)

    def log_normalizer(self) -> Tensor:
        """Return the log of the integral of exp(-sqrt Q) / sqrt Q over the uniform measure.

        Its shape is `batch_shape`.
        """
        return _mixture(self._form(), _density)[..., 0].log().to(self.matrix.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rotations, without a gradient, from torch's global generator.

        Args:
            sample_shape: shape of independent draws of the whole batch.

        Returns:
            Rotations, shape (*sample_shape, *batch_shape, 3, 3).
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        count = torch.Size(sample_shape).numel()
        with torch.no_grad():
            gaps, vectors, defined = _defined_gaps(one_batch(self._form()))
            # The quadrature, exact to 1e-7, is itself a mixture: of the distributions of its nodes.
            u, du = _nodes(gaps)
            p = _density(u) * du * _normalizers(u, gaps)
            below = p.cumsum(-1)
            chosen = torch.searchsorted(below, below[:, -1:] * torch.rand_like(p[:, :1].expand(-1, count)))
            drawn = u.gather(-1, chosen.clamp(max=NODES - 1))
            scaled = torch.where(defined[:, None], gaps, torch.nan) * drawn.mT[..., None]
            q = draw(bingham, one_batch(scaled, 1)).reshape(count, len(gaps), 4)
            q = (vectors * q[..., None, :]).sum(-1)
            return quaternion_to_matrix(q).to(self.matrix.dtype).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of rotations against the uniform measure.

        Nearer to the mode than the rounding of `value` it is the log density at that distance, with zero
        gradient.

        Args:
            value: rotations, shape (..., 3, 3); batch dimensions broadcast against `batch_shape`.

        Returns:
            Nats, shape (...).

        Raises:
            ValueError: if a shape is wrong, or `value` is no rotation and arguments are checked.
            TypeError: if `value` is not floating point.
        """
        self._check(value)
        q = matrix_to_quaternion(value.double())
        a, f = self._form(), self.matrix.double()
        top = (special_orthogonalize(f) * f).sum((-2, -1))
        distance = top - (a * q[..., :, None] * q[..., None, :]).sum((-2, -1))
        # Q is a square: the rounding of a half angle and of float64 in the difference, times the size of A.
        eps = torch.finfo(value.dtype).eps
        least = max(eps**2, 16 * torch.finfo(torch.float64).eps) * torch.linalg.matrix_norm(f.detach())
        distance = torch.where(distance < least, least, distance)
        log_c = _mixture(a, _density)[..., 0].log()
        return (-distance.sqrt() - distance.log() / 2 - log_c).to(self.matrix.dtype)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats against the uniform measure, shape `batch_shape`.

        It is ln c + E sqrt Q + E ln sqrt Q, below 0.
        """
        c, root, log = _mixture(self._form(), _density, _exponential, _logarithmic).unbind(-1)
        return (c.log() + (root + log / 2) / c).to(self.matrix.dtype)
