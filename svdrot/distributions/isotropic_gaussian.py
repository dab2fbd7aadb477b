"""The isotropic Gaussian distribution of rotations: where Brownian motion on SO(3) has come to."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from svdrot._checks import check_floating, check_shape, compute_dtype
from svdrot.metrics import geodesic_distance
from svdrot.projection import special_orthogonalize
from svdrot.representations import axis_angle_to_matrix

from . import _constraints
from ._normalizer import gauss_legendre

# Where the two series change over. At tau = 1 the first term left out of either is below 1e-22.
SWITCH = 1.0
HARMONICS = 6
IMAGES = 2


def log_heat_kernel(angle: Tensor, tau: Tensor) -> Tensor:
    r"""ln f, $f(\omega) = \sum_l (2l + 1) e^{-l(l + 1) \tau} \sin((l + 1/2) \omega) / \sin(\omega / 2)$, the
    density against the uniform measure after the time tau of the heat equation $\partial_\tau f = \Delta f$.

    For small tau its Poisson sum, over images at $\omega - 2 \pi k$, the terms of k and -k taken together:
    $\sqrt\pi \tau^{-3/2} e^{\tau / 4} \frac{\omega / 2}{\sin(\omega / 2)} e^{-\omega^2 / 4 \tau} (1 + \sum_{k
    > 0} (-1)^k 2 e^{-\pi^2 k^2 / \tau} [\cosh z_k - \frac{2 \pi^2 k^2}{\tau} \frac{\sinh z_k}{z_k}])$ with
    $z_k = \pi k \omega / \tau$. Source: Nikolayev and Savyolova, Textures and Microstructures 29 (1997);
    Leach et al., "Denoising Diffusion Probabilistic Models on SO(3) for Rotational Alignment" (2022), tau =
    epsilon^2.
    """
    small = tau < SWITCH
    t = torch.where(small, tau, SWITCH / 2)
    gaussian = 0.5 * math.log(math.pi) - 1.5 * t.log() + t / 4 - angle**2 / (4 * t)
    near = gaussian - torch.sinc(angle / (2 * math.pi)).log() + _images(angle, t).log()

    t = torch.where(small, 2 * SWITCH, tau)
    character, series = torch.ones_like(angle), torch.ones_like(angle * t)
    for l in range(1, HARMONICS + 1):
        character = character + 2 * torch.cos(l * angle)
        series = series + (2 * l + 1) * torch.exp(-l * (l + 1) * t) * character
    return torch.where(small, near, series.log())


def _images(angle: Tensor, t: Tensor) -> Tensor:
    """The sum over images, over its first term: 1 near zero, 2 at pi, for small t."""
    total = torch.ones_like(angle * t)
    for k in range(1, IMAGES + 1):
        z = math.pi * k * angle / t
        # exp(-z) sinh(z) / z
        small = z < 0.5
        x = torch.where(small, z, 0.5)
        x2 = x * x
        series = 1 + x2 / 6 * (1 + x2 / 20 * (1 + x2 / 42 * (1 + x2 / 72 * (1 + x2 / 110))))
        y = torch.where(small, 0.5, z)
        sinhc = torch.where(small, torch.exp(-x) * series, -torch.expm1(-2 * y) / (2 * y))
        scale = (-1) ** k * torch.exp(z - (math.pi * k) ** 2 / t)
        total = total + scale * (1 + torch.exp(-2 * z) - (2 * math.pi * k) ** 2 / t * sinhc)
    return total


class IsotropicGaussian(Distribution):
    r"""The isotropic Gaussian distribution IG(location, scale) on SO(3): the heat kernel at time
    $\tau$ = scale^2 / 2, a density of the angle $\omega$ from `location` alone.

    For small `scale` the rotation vector of $\text{location}^\top R$ is normal with standard deviation
    `scale`, in radians, about each axis; for large `scale` the distribution is uniform. The parameter
    $\epsilon$ of Leach et al. is `scale` $/ \sqrt 2$. Two independent draws compose: scales add in squares.

    Everything is differentiable in both parameters, samples included: with the rest of the draw held fixed,
    the quantile $\omega$ moves as $d\omega / d\tau = -\partial_\omega \ln f$, which the heat equation gives.
    Half precision gives float32. NaN gives NaN in its place with `validate_args=False`.

    Args:
        location: rotations, shape (..., 3, 3).
        scale: radians, positive, shape (...); batch dimensions broadcast.

    Raises:
        ValueError: if the last two dimensions of `location` are not (3, 3), or the shapes do not broadcast.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Nikolayev and Savyolova, "Normal Distribution on the Rotation Group SO(3)", Textures and
        Microstructures 29 (1997); Leach et al. (2022).
    """

    arg_constraints: ClassVar = {"location": _constraints.rotation, "scale": constraints.positive}  # pyright: ignore
    support = _constraints.rotation  # pyright: ignore
    has_rsample = True

    def __init__(self, location: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        check_shape("location", location, 3, 3)
        check_floating("scale", scale)
        try:
            batch_shape = torch.broadcast_shapes(location.shape[:-2], scale.shape)
        except RuntimeError:
            raise ValueError(
                f"`scale` must broadcast against the batch shape of `location`, "
                f"{tuple(location.shape[:-2])}; got {tuple(scale.shape)}."
            ) from None
        dtype = torch.promote_types(compute_dtype(location), compute_dtype(scale))
        if location.dtype.itemsize < 4:  # a rotation to its own rounding, not to that of float32
            near = _constraints.rotation.check(location)[..., None, None]
            location = torch.where(near, special_orthogonalize(location.float()), location.float())
        self.location = location.to(dtype).expand(*batch_shape, 3, 3)
        self.scale = scale.to(dtype).expand(batch_shape)
        super().__init__(batch_shape, torch.Size((3, 3)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None) -> "IsotropicGaussian":
        location, scale = self.location.expand(*batch_shape, 3, 3), self.scale.expand(batch_shape)
        new = IsotropicGaussian(location, scale, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _tau(self) -> Tensor:
        return self.scale.double() ** 2 / 2

    @property
    def mode(self) -> Tensor:
        return self.location

    @property
    def mean(self) -> Tensor:
        """The expected matrix E R = exp(-scale^2) location: not a rotation. Shape (*batch_shape, 3, 3)."""
        return torch.exp(-(self.scale**2))[..., None, None] * self.location

    def rsample(self, sample_shape=()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        tau = self._tau()
        with torch.no_grad():
            angle = _sample_angle(tau.expand(shape).reshape(-1)).reshape(shape)
            axis = torch.randn(*shape, 3, dtype=tau.dtype, device=tau.device)
            axis = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
        if tau.requires_grad:
            with torch.enable_grad():
                at = angle.detach().requires_grad_()
                (score,) = torch.autograd.grad(log_heat_kernel(at, tau.detach().expand(shape)).sum(), at)
            angle = angle - score * (tau - tau.detach())
        step = axis_angle_to_matrix(angle[..., None] * axis)
        r = (self.location.double()[..., :, :, None] * step[..., None, :, :]).sum(-2)
        return r.to(self.location.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of rotations (..., 3, 3) against the uniform measure. Shape (...)."""
        if self._validate_args:
            self._validate_sample(value)
        angle = geodesic_distance(self.location.double(), value.double())
        return log_heat_kernel(angle, self._tau()).to(self.location.dtype)

    def entropy(self) -> Tensor:
        """Differential entropy in nats against the uniform measure: at most 0, the limit of large scales."""
        tau = self._tau()[..., None]
        x, weight = gauss_legendre(128, tau.device)
        end = (13 * (2 * tau).sqrt()).clamp(max=math.pi)  # beyond it lies exp(-84) of the whole
        angle = end * x
        log_f = log_heat_kernel(angle, tau)
        # The measure of the angle is (2 / pi) sin^2(omega / 2).
        measure = 2 / math.pi * torch.sin(angle / 2) ** 2 * end * weight
        return -(measure * log_f.exp() * log_f).sum(-1).to(self.scale.dtype)


def _sample_angle(tau: Tensor) -> Tensor:
    """Angles (N,) from the times (N,), by rejection: for small tau from the length of a normal vector, whose
    density the angle's exceeds by the factor sinc(omega / 2) times `_images`, at most 4 / pi; for large from
    the uniform rotations, by f at most f(0)."""
    small = tau < SWITCH
    angle = torch.full_like(tau, torch.nan)
    pending = (tau > 0).nonzero()[:, 0]
    while len(pending):
        t, near = tau[pending], small[pending]
        normal = torch.randn(len(pending), 4, dtype=tau.dtype, device=tau.device)
        length = torch.linalg.vector_norm(normal[:, 1:], dim=-1)
        proposal = torch.where(near, (2 * t).sqrt() * length, 2 * torch.atan2(length, normal[:, 0].abs()))
        inside = proposal <= math.pi
        x = proposal.clamp(max=math.pi)
        t_near = torch.where(near, t, SWITCH / 2)
        by_images = torch.sinc(x / (2 * math.pi)) * _images(x, t_near) * math.pi / 4
        by_peak = torch.exp(log_heat_kernel(x, t) - log_heat_kernel(torch.zeros_like(x), t))
        taken = inside & (torch.rand_like(x) < torch.where(near, by_images, by_peak))
        angle[pending[taken]] = proposal[taken]
        pending = pending[~taken]
    return angle
