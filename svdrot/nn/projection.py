"""The projection as a layer, and as a parametrization of a layer's weight."""

import torch
from torch import Tensor, nn

from svdrot._checks import check_square
from svdrot._kernels.operations import nearby
from svdrot._precision import compute_dtype
from svdrot.projection import special_orthogonalize


class SpecialOrthogonalize(nn.Module):
    """Project matrices to their nearest rotations: `svdrot.special_orthogonalize` as a layer.

    As a parametrization, of `torch.nn.utils.parametrize`, it keeps a weight a rotation while its free entries
    are trained. A weight that is a rotation when it is registered stays as it is, and any other becomes its
    nearest rotation. Later assignments must be rotations: see `right_inverse`.

    Args:
        damping: of the gradient, at least 0; see `svdrot.special_orthogonalize`.

    Shape:
        (..., n, n) -> rotations (..., n, n).

    Example:
        >>> import torch, svdrot
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Linear(16, 9), torch.nn.Unflatten(-1, (3, 3)), svdrot.nn.SpecialOrthogonalize()
        ... )
        >>> svdrot.is_rotation(network(torch.randn(8, 16))).all()
        tensor(True)

        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> layer = torch.nn.Linear(3, 3, bias=False)
        >>> layer = register_parametrization(layer, "weight", svdrot.nn.SpecialOrthogonalize())
        >>> svdrot.is_rotation(layer.weight)
        tensor(True)
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]))
        >>> layer.weight = turn
        >>> torch.allclose(layer.weight, turn, atol=1e-6)
        True
    """

    def __init__(self, damping: float | None = None):
        super().__init__()
        self.damping = damping

    def forward(self, matrix: Tensor) -> Tensor:
        """Return the rotation nearest to each matrix.

        Args:
            matrix: shape (..., n, n), floating point.

        Returns:
            Rotations, shape (..., n, n).

        Raises:
            ValueError: if the last two dimensions are not equal, or `damping` is not a finite number >= 0.
            TypeError: if `matrix` is not a floating-point tensor.
        """
        return special_orthogonalize(matrix, damping=self.damping)

    def right_inverse(self, value: Tensor) -> Tensor:
        r"""Return a matrix whose projection is `value`: a copy of it, if it is a rotation.

        Of all such matrices it is the one about which the projection is best conditioned. With it
        `layer.weight = value` works where the weight is parametrized by this layer, and a weight that is a
        rotation keeps its value when the parametrization is registered.

        What is no rotation is refused, for the weight would not become what was assigned. On registration
        torch takes that refusal for "no inverse", as it is also a NotImplementedError: the weight stays as
        the free matrix, and is seen as its nearest rotation. `torch.nn.utils.parametrizations.orthogonal`
        takes any weight on registration, too, but orthogonalizes by QR what is assigned.

        Args:
            value: rotations, shape (..., n, n): every entry of $R^\top R - I$ within 10 n eps of 0, as
                torch's `orthogonal` asks, and $\det R > 0$.

        Returns:
            A copy of `value`: a step of an optimizer must not write to what was assigned.

        Raises:
            ValueError: if the last two dimensions are not equal, or a matrix is no rotation.
            TypeError: if `value` is not a floating-point tensor.

        Example:
            >>> import torch, svdrot
            >>> rotation = svdrot.random_rotation(generator=torch.Generator().manual_seed(0))
            >>> layer = svdrot.nn.SpecialOrthogonalize()
            >>> torch.allclose(layer(layer.right_inverse(rotation)), rotation, atol=1e-6)
            True
        """
        check_square("value", value)
        if not value.is_meta:  # which has no numbers to look at
            check_rotations("value", value)
        return value.detach().clone()

    def extra_repr(self) -> str:
        """Return the damping, as `print` shows it."""
        return "" if self.damping is None else f"damping={self.damping}"


class NoRotationError(ValueError, NotImplementedError):
    """Refuse what the projection cannot give. torch catches NotImplementedError, on registration alone."""


def check_rotations(name: str, value: Tensor) -> None:
    tolerance = 10 * value.shape[-1] * torch.finfo(value.dtype).eps
    r = value.detach().to(compute_dtype(value))
    defect, (sign, size) = nearby.orthonormality(r), torch.linalg.slogdet(r)
    wrong = ~((defect <= tolerance) & (sign > 0))
    if wrong.any():
        first = tuple(wrong.nonzero()[0].tolist())
        place = f" at {first}" if first else ""
        raise NoRotationError(
            f"`{name}` must hold rotations, with R^T R = I to {tolerance:.1e} and det R > 0; got"
            f" |R^T R - I| = {defect[first]:.1e} and det R = {(sign * size.exp())[first]:.3g}{place}. Assign"
            f" `svdrot.special_orthogonalize({name})` for the nearest rotation."
        )
