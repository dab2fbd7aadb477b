"""What the doors have in common: the places of the scalar in a quaternion."""

from torch import Tensor

from svdrot._checks import check_shape


def scalar_first(name: str, xyzw: Tensor) -> Tensor:
    """Return quaternions w x y z from x y z w, the argument `name`."""
    check_shape(name, xyzw, 4)
    return xyzw.roll(1, -1)


def scalar_last(wxyz: Tensor) -> Tensor:
    """Return quaternions x y z w from w x y z."""
    return wxyz.roll(-1, -1)
