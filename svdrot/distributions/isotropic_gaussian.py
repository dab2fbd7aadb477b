"""The isotropic Gaussian distribution of rotations: where Brownian motion on SO(3) has come to."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from svdrot._checks import check_floating, check_shape, common_batch
from svdrot._formulas.densities import (
    isotropic_gaussian_score,
    log_heat_kernel,
    log_isotropic_gaussian,
)
from svdrot._precision import compute_dtype
from svdrot._vectors import product
from svdrot.projection import special_orthogonalize
from svdrot.representations import axis_angle_to_matrix

from . import _constraints
from ._fits import isotropic, weighted
from ._normalizer import gauss_legendre
from ._sampling import draw, heat_angle

SCALES = (1e-100, 1e150)  # beyond which the density leaves float64, and is uniform up to rounding


class IsotropicGaussian(Distribution):
    r"""Isotropic Gaussian distribution of rotations, IG(location, scale): Brownian motion on SO(3).

    It is the heat kernel at time $\tau$ = scale^2 / 2, a density of the angle $\omega$ from `location` alone.

    For small `scale` the rotation vector of $\text{location}^\top R$ is normal with standard deviation
    `scale`, in radians, about each axis; for large `scale` the distribution is uniform. The parameter
    $\epsilon$ of Leach et al. is `scale` $/ \sqrt 2$. Two independent draws compose: scales add in squares.

    Everything is differentiable in both parameters, samples included: with the rest of the draw held fixed,
    the quantile $\omega$ moves as $d\omega / d\tau = -\partial_\omega \ln f$, which the heat equation gives.
    Half precision gives float32. NaN gives NaN in its place with `validate_args=False`.

    Args:
        location: rotations, shape (..., 3, 3).
        scale: radians, positive, a tensor of shape (...); batch dimensions broadcast. Below 1e-100 it counts
            as that.
        validate_args: whether to check parameters and values; torch's default if None.

    Raises:
        ValueError: if the last two dimensions of `location` are not (3, 3), the shapes do not broadcast, or
            arguments are checked and `location` is no rotation or `scale` is not positive.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Nikolayev and Savyolova, "Normal Distribution on the Rotation Group SO(3)", Textures and
        Microstructures 29 (1997); Leach et al. (2022).

    Example:
        >>> import torch, svdrot
        >>> _ = torch.manual_seed(0)
        >>> noise = svdrot.distributions.IsotropicGaussian(torch.eye(3), torch.tensor(0.1))
        >>> rotation = noise.rsample((1000,))
        >>> round(float(svdrot.geodesic_distance(rotation, noise.mode).mean()), 2)  # 0.1 sqrt(8 / pi)
        0.16
        >>> noise.log_prob(rotation).shape
        torch.Size([1000])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "location": _constraints.rotation,
        "scale": constraints.positive,
    }  # pyright: ignore
    support: Any = _constraints.rotation  # pyright: ignore
    has_rsample: ClassVar[bool] = True

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
        self.location: Tensor = location.to(dtype).expand(*batch_shape, 3, 3)
        self.scale: Tensor = scale.to(dtype).expand(batch_shape)
        super().__init__(batch_shape, torch.Size((3, 3)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "IsotropicGaussian":
        """Return the distribution with its batch shape expanded, as every distribution of torch does.

        Args:
            batch_shape: the new batch shape.

        Returns:
            An `IsotropicGaussian` whose parameters are views of these.
        """
        location, scale = self.location.expand(*batch_shape, 3, 3), self.scale.expand(batch_shape)
        new = IsotropicGaussian(location, scale, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _tau(self) -> Tensor:
        """Return the time of the heat kernel in float64."""
        return self.scale.double().clamp(*SCALES) ** 2 / 2

    @property
    def mode(self) -> Tensor:
        """Return `location`, shape (*batch_shape, 3, 3)."""
        return self.location

    @property
    def mean(self) -> Tensor:
        """Return the expected matrix E R = exp(-scale^2) location, shape (*batch_shape, 3, 3).

        It is not a rotation.
        """
        return torch.exp(-(self.scale**2))[..., None, None] * self.location

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw rotations from torch's global generator, differentiable in both parameters.

        Args:
            sample_shape: shape of independent draws of the whole batch.

        Returns:
            Rotations, shape (*sample_shape, *batch_shape, 3, 3).
        """
        shape = self._extended_shape(torch.Size(sample_shape))[:-2]
        tau = self._tau()
        with torch.no_grad():
            angle = draw(heat_angle, tau.expand(shape).reshape(-1)).reshape(shape)
            axis = torch.randn(*shape, 3, dtype=tau.dtype, device=tau.device)
            axis = axis / torch.linalg.vector_norm(axis, dim=-1, keepdim=True)
            score = torch.func.grad(lambda at: log_heat_kernel(at, tau).sum())(angle)
        angle = angle - score * (tau - tau.detach())
        step = axis_angle_to_matrix(angle[..., None] * axis)
        r = product(self.location.double(), step)
        return r.to(self.location.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of rotations against the uniform measure.

        Args:
            value: rotations, shape (..., 3, 3); batch dimensions broadcast against `batch_shape`.

        Returns:
            Nats, shape (...).

        Raises:
            ValueError: if a shape is wrong, or `value` is no rotation and arguments are checked.
            TypeError: if `value` is not floating point.
        """
        self._check(value)
        return log_isotropic_gaussian(self.location, value, self._tau()).to(self.location.dtype)

    def score(self, value: Tensor) -> Tensor:
        r"""Return the score: the gradient of the log density, along turns of the value in its own frame.

        For $R \exp [\delta]_\times$ it is that in $\delta$ at 0: the derivative of the log density by the
        angle from `location`, times the axis of $\text{location}^\top R$. For small `scale` it is minus the
        rotation vector over scale^2. Denoisers learn it: Leach et al., equation 8.

        Args:
            value: rotations, shape (..., 3, 3); batch dimensions broadcast against `batch_shape`.

        Returns:
            In 1 / radians, shape (..., 3), right to some units of rounding of its largest size, pi / scale^2
            for small scales, and 0 at `location` and half a turn from it, where the axis has two signs.
            Differentiable in everything.

        Raises:
            ValueError: if a shape is wrong, or `value` is no rotation and arguments are checked.
            TypeError: if `value` is not floating point.

        Source:
            Leach, Schmon, Degiacomi and Willcocks, "Denoising Diffusion Probabilistic Models on SO(3) for
            Rotational Alignment", ICLR 2022 workshop GTRL.

        Example:
            >>> import torch, svdrot
            >>> noise = svdrot.distributions.IsotropicGaussian(torch.eye(3), torch.tensor(0.1))
            >>> turned = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.2]))
            >>> round(float(noise.score(turned)[2]), 1)  # some -0.2 / 0.1^2
            -20.0
        """
        self._check(value)
        return isotropic_gaussian_score(self.location, value, self._tau()).to(self.location.dtype)

    @classmethod
    def fit(
        cls,
        rotations: Tensor,
        weights: Tensor | None = None,
        *,
        least: float = 1e-6,
        largest: float = 10.0,
    ) -> "IsotropicGaussian":
        """Find the distribution of greatest likelihood for weighted rotations.

        It is found from their chordal mean, by steps of the location and the scale in turns: the maximum next
        to it. Not differentiable.

        Args:
            rotations: shape (..., N, 3, 3).
            weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.
            least: the scale of rotations that are all the same, as of one, whose likelihood grows without end
                as the scale shrinks; radians.
            largest: the scale of rotations that are spread evenly, as of none; radians.

        Returns:
            An `IsotropicGaussian` of batch shape (...). No rotation, or a total weight of 0, gives the
            identity and the scale `largest`. NaN, infinity or a negative weight in what counts gives NaN for
            its item only.

        Raises:
            ValueError: if shapes do not fit, or not 0 < `least` < `largest`.
            TypeError: if an argument is not floating point.

        Example:
            >>> import torch, svdrot
            >>> _ = torch.manual_seed(0)
            >>> truth = svdrot.distributions.IsotropicGaussian(torch.eye(3), torch.tensor(0.3))
            >>> fit = svdrot.distributions.IsotropicGaussian.fit(truth.sample((10000,)))
            >>> round(float(fit.scale), 1), float(svdrot.rotation_angle(fit.location)) < 0.02
            (0.3, True)
        """
        if not 0 < least < largest < math.inf:
            raise ValueError(f"`least` and `largest` must be 0 < least < largest; got {least}, {largest}.")
        r, w, broken = weighted("rotations", rotations, weights, 3, 3)
        location, scale = isotropic(r, w, least, largest)
        spoiled = torch.where(broken, torch.nan, 0.0)
        dtype = compute_dtype(rotations)
        location = (location + spoiled[..., None, None]).to(dtype)
        return cls(location, (scale + spoiled).to(dtype), validate_args=False)

    def _check(self, value: Tensor) -> None:
        check_shape("value", value, 3, 3)
        common_batch(location=self.batch_shape, value=value.shape[:-2])
        if self._validate_args:
            self._validate_sample(value)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats against the uniform measure, shape `batch_shape`.

        It is at most 0, the limit of large scales.
        """
        tau = self._tau()[..., None]
        x, weight = gauss_legendre(128, tau.device)
        end = (13 * (2 * tau).sqrt()).clamp(max=math.pi)  # beyond it lies exp(-84) of the whole
        angle = end * x
        log_f = log_heat_kernel(angle, tau)
        # The measure of the angle is (2 / pi) sin^2(omega / 2).
        measure = 2 / math.pi * torch.sin(angle / 2) ** 2 * end * weight
        return -(measure * log_f.exp() * log_f).sum(-1).to(self.scale.dtype)
