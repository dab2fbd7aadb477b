"""Heads whose output is a distribution of rotations, learned by its log density at the truth."""

import torch
from torch import Tensor, nn

from svdrot import distributions
from svdrot._checks import check_positive, check_shape
from svdrot.projection import special_orthogonalize
from svdrot.representations import rotation_9d_to_matrix

from .heads import precise

# With features of unit variance raw numbers then lie within 0.06 of the bias (one standard deviation).
NEAR = 0.1
# Of the size of a matrix and 1, by which the singular values of a `RotationLaplaceHead` are enlarged.
ENLARGED = 1e-3
LEAST = 1e-3  # radians, of the scale of an `IsotropicGaussianHead`


class _DistributionHead(nn.Module):
    """A linear layer whose bias, at the start, has a distribution of moderate concentration."""

    def __init__(self, in_features: int, bias: Tensor):
        super().__init__()
        self.linear: nn.Linear = nn.Linear(in_features, len(bias))
        with torch.no_grad():
            self.linear.weight.mul_(NEAR)
            self.linear.bias.copy_(bias)

    def _raw(self, features: Tensor) -> Tensor:
        check_shape("features", features, self.linear.in_features)
        return precise(self.linear, features)


def _identity(concentration: float) -> Tensor:
    check_positive("concentration", concentration)
    return concentration * torch.eye(3, device="cpu").flatten()


class MatrixFisherHead(_DistributionHead):
    r"""Regress matrix Fisher distributions from features: a linear layer to the nine numbers of F.

    The loss is `-head(features).log_prob(truth).mean()`. It is convex in the raw numbers, and its gradient
    there, $E R - R$, is bounded, whatever they are.

    Args:
        in_features: size of the last dimension of the input.
        concentration: singular values of F at the start, about the identity: each axis has a standard
            deviation of 1 / sqrt(2 `concentration`) radians, 29 degrees by default. Weights are a tenth of
            torch's, so that the mode is well defined.

    Shape:
        (..., in_features) -> a `svdrot.distributions.MatrixFisher` of batch shape (...), unchecked: features
        that are not finite give NaN in their place.

    Raises:
        ValueError: if `concentration` is not positive and finite.

    Source:
        Mohlin, Sullivan and Bianchi, "Probabilistic Orientation Estimation with Matrix Fisher Distributions",
        NeurIPS 2020.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.MatrixFisherHead(16)
        >>> belief = head(torch.randn(8, 16))
        >>> belief.log_prob(svdrot.random_rotation(8)).mean().neg().backward()
        >>> belief.mode.shape, belief.entropy().shape
        (torch.Size([8, 3, 3]), torch.Size([8]))
    """

    def __init__(self, in_features: int, *, concentration: float = 2.0):
        super().__init__(in_features, _identity(concentration))

    def forward(self, features: Tensor) -> distributions.MatrixFisher:
        """Return a distribution for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            A `MatrixFisher` of batch shape (...).

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        matrix = self._raw(features).unflatten(-1, (3, 3))
        return distributions.MatrixFisher(matrix, validate_args=False)


class BinghamHead(_DistributionHead):
    r"""Regress Bingham distributions of quaternions from features: a linear layer to the ten numbers of A.

    The loss is `-head(features).log_prob(truth).mean()`, for quaternions of either sign. The numbers are
    those of `svdrot.symmetric_10d_to_matrix`, a triangle row by row, with the other sign: there the mode
    belongs to the smallest eigenvalue, here to the largest.

    Args:
        in_features: size of the last dimension of the input.
        concentration: as of `MatrixFisherHead`: the same distribution at the start.

    Shape:
        (..., in_features) -> a `svdrot.distributions.Bingham` of batch shape (...), unchecked.

    Raises:
        ValueError: if `concentration` is not positive and finite.

    Source:
        Gilitschenski et al., "Deep Orientation Uncertainty Learning based on a Bingham Loss", ICLR 2020;
        Peretroukhin et al., RSS 2020, arXiv 2006.01031, for the ten numbers.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.BinghamHead(16)
        >>> truth = svdrot.matrix_to_quaternion(svdrot.random_rotation(8))
        >>> head(torch.randn(8, 16)).log_prob(truth).mean().neg().backward()
        >>> head(torch.zeros(16)).mode
        tensor([1., 0., 0., 0.], grad_fn=<...>)
    """

    def __init__(self, in_features: int, *, concentration: float = 2.0):
        check_positive("concentration", concentration)
        # That of 2 I is diag(6, -2, -2, -2), but for a multiple of the identity diag(8, 0, 0, 0).
        numbers = torch.zeros(10, device="cpu")
        numbers[0] = -4 * concentration
        super().__init__(in_features, numbers)

    def forward(self, features: Tensor) -> distributions.Bingham:
        """Return a distribution for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            A `Bingham` of batch shape (...).

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        raw = -self._raw(features)
        entry = torch.tensor([[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]], device=raw.device)
        return distributions.Bingham(raw[..., entry], validate_args=False)


class RotationLaplaceHead(_DistributionHead):
    r"""Regress Rotation-Laplace distributions from features: a linear layer to nine numbers.

    The loss is `-head(features).log_prob(truth).mean()`; outliers pull less than with `MatrixFisherHead`. The
    matrix of the distribution is the raw one, M, and a little of its nearest rotation, $A = M + 10^{-3} (1 +
    |M|)\, R(M)$, of the same mode: so it always has a density, also where M is zero or a reflection.

    Args:
        in_features: size of the last dimension of the input.
        concentration: singular values of M at the start, about the identity.

    Shape:
        (..., in_features) -> a `svdrot.distributions.RotationLaplace` of batch shape (...), unchecked.

    Raises:
        ValueError: if `concentration` is not positive and finite.

    Source:
        Yin et al., "A Laplace-inspired Distribution on SO(3) for Probabilistic Rotation Estimation", ICLR
        2023.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.RotationLaplaceHead(16)
        >>> head(torch.randn(8, 16)).log_prob(svdrot.random_rotation(8)).mean().neg().backward()
    """

    def __init__(self, in_features: int, *, concentration: float = 2.0):
        super().__init__(in_features, _identity(concentration))

    def forward(self, features: Tensor) -> distributions.RotationLaplace:
        """Return a distribution for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            A `RotationLaplace` of batch shape (...).

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        raw = self._raw(features).unflatten(-1, (3, 3))
        matrix = raw if raw.dtype.itemsize > 2 else raw.float()
        largest = matrix.detach().abs().amax((-2, -1), keepdim=True)
        matrix = matrix + ENLARGED * (1 + largest) * special_orthogonalize(matrix)
        return distributions.RotationLaplace(matrix, validate_args=False)


class IsotropicGaussianHead(_DistributionHead):
    r"""Regress isotropic Gaussians from features: a rotation, nearest to nine numbers, and a scale.

    The loss is `-head(features).log_prob(truth).mean()`, or whatever is of samples, which have gradients:
    `head(features).rsample()`.

    Args:
        in_features: size of the last dimension of the input.
        scale: at the start, about the identity, radians. It is the softplus of a raw number, and 1e-3.

    Shape:
        (..., in_features) -> a `svdrot.distributions.IsotropicGaussian` of batch shape (...), unchecked.

    Raises:
        ValueError: if `scale` is not finite and above 1e-3.

    Source:
        Leach et al., "Denoising Diffusion Probabilistic Models on SO(3) for Rotational Alignment", ICLR 2022
        workshop GTRL, for the distribution.

    Example:
        >>> import torch, svdrot
        >>> head = svdrot.nn.IsotropicGaussianHead(16)
        >>> belief = head(torch.randn(8, 16))
        >>> belief.log_prob(svdrot.random_rotation(8)).mean().neg().backward()
        >>> bool((belief.scale > 0.3).all()), belief.rsample((5,)).shape
        (True, torch.Size([5, 8, 3, 3]))
    """

    def __init__(self, in_features: int, *, scale: float = 0.5):
        check_positive("scale", scale)
        if scale <= LEAST:
            raise ValueError(f"`scale` must be above {LEAST}; got {scale}.")
        # The inverse of softplus, ln(exp(x) - 1).
        raw = torch.tensor([scale - LEAST], dtype=torch.float64, device="cpu")
        raw = raw + torch.log(-torch.expm1(-raw))
        super().__init__(in_features, torch.cat((_identity(1.0), raw.float())))

    def forward(self, features: Tensor) -> distributions.IsotropicGaussian:
        """Return a distribution for each vector of features.

        Args:
            features: shape (..., in_features), floating point.

        Returns:
            An `IsotropicGaussian` of batch shape (...).

        Raises:
            ValueError: if the last dimension is not `in_features`.
            TypeError: if `features` is not floating point.
        """
        raw = self._raw(features)
        scale = LEAST + nn.functional.softplus(raw[..., 9])
        return distributions.IsotropicGaussian(
            rotation_9d_to_matrix(raw[..., :9]), scale, validate_args=False
        )
