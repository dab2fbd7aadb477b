"""The projection as a layer."""

from torch import Tensor, nn

from svdrot.projection import special_orthogonalize


class SpecialOrthogonalize(nn.Module):
    """`svdrot.special_orthogonalize` as a layer: (..., n, n) -> the nearest rotations (..., n, n)."""

    def __init__(self, damping: float | None = None):
        super().__init__()
        self.damping = damping

    def forward(self, matrix: Tensor) -> Tensor:
        return special_orthogonalize(matrix, damping=self.damping)

    def extra_repr(self) -> str:
        return "" if self.damping is None else f"damping={self.damping}"
