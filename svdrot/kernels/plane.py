"""CPU backend of 2x2 matrices: rotations by a compiled loop, all else as in `so2`."""

from torch import Tensor

from . import cpu
from .so2 import projection_gap as projection_gap
from .so2 import special_orthogonalize_differential as special_orthogonalize_differential


def special_orthogonalize(m: Tensor) -> Tensor:
    return cpu.in_plane(m, either=False)
