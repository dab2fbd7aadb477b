"""The projection as a layer."""

from torch import Tensor, nn

from svdrot.projection import special_orthogonalize


class SpecialOrthogonalize(nn.Module):
    """Project matrices to their nearest rotations: `svdrot.special_orthogonalize` as a layer.

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

    def extra_repr(self) -> str:
        """Return the damping, as `print` shows it."""
        return "" if self.damping is None else f"damping={self.damping}"
