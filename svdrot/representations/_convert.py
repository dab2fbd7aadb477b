"""From any representation to any other, by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from svdrot._checks import check_shape, result_dtype, to_compute

from ._directions import normalize, rescale_or_first_axis
from ._euler import SEQUENCES, euler_to_quaternion, quaternion_to_euler
from ._frames import (
    matrix_to_rotation_2vec,
    matrix_to_rotation_5d,
    matrix_to_rotation_6d,
    rotation_2vec_to_matrix,
    rotation_5d_to_matrix,
    rotation_6d_to_matrix,
)
from ._linear import (
    matrix_to_rotation_9d,
    matrix_to_symmetric_10d,
    rotation_9d_to_matrix,
    symmetric_10d_to_matrix,
)
from ._quaternions import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    mrp_to_quaternion,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
    quaternion_to_mrp,
)


class _Representation(NamedTuple):
    shape: tuple[int, ...]  # of one element
    hub: Literal["matrix", "quaternion"]  # what `read` gives and `write` takes
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def _unchanged(value: Tensor) -> Tensor:
    return value


def _unit(quaternion: Tensor) -> Tensor:
    return normalize(rescale_or_first_axis(quaternion))


def _euler(sequence: str) -> _Representation:
    read = partial(euler_to_quaternion, sequence=sequence)
    return _Representation((3,), "quaternion", read, partial(quaternion_to_euler, sequence=sequence))


REPRESENTATIONS = {
    "matrix": _Representation((3, 3), "matrix", _unchanged, _unchanged),
    "quaternion": _Representation((4,), "quaternion", _unit, _unchanged),
    "axis_angle": _Representation((3,), "quaternion", axis_angle_to_quaternion, quaternion_to_axis_angle),
    "mrp": _Representation((3,), "quaternion", mrp_to_quaternion, quaternion_to_mrp),
    "2vec": _Representation((6,), "matrix", rotation_2vec_to_matrix, matrix_to_rotation_2vec),
    "5d": _Representation((5,), "matrix", rotation_5d_to_matrix, matrix_to_rotation_5d),
    "6d": _Representation((6,), "matrix", rotation_6d_to_matrix, matrix_to_rotation_6d),
    "9d": _Representation((9,), "matrix", rotation_9d_to_matrix, matrix_to_rotation_9d),
    "10d": _Representation((10,), "matrix", symmetric_10d_to_matrix, matrix_to_symmetric_10d),
    **{f"euler_{sequence}": _euler(sequence) for sequence in SEQUENCES},
}


def convert_rotation(value: Tensor, source: str, target: str) -> Tensor:
    r"""The numbers of the same rotation in another representation.

    Quaternions, rotation vectors, modified Rodrigues parameters and Euler angles meet in the quaternion,
    which keeps the sign of the axis at half turns, as a matrix cannot; all others meet in the matrix. The
    singular spots are told by the named functions that are the two halves: "axis_angle" to "mrp" is
    `quaternion_to_mrp(axis_angle_to_quaternion(x))`, in float32 or better all the way.

    Args:
        value: numbers of representation `source`, with any batch shape: (..., 3, 3) for "matrix", otherwise
            (..., 3), (..., 4), ... Angles are in radians.
        source: "matrix" (a rotation), "quaternion" (w x y z), "axis_angle" (rotation vector), "mrp" (modified
            Rodrigues parameters), "2vec", "5d", "6d", "9d", "10d", or "euler_" and one of the 24 sequences,
            upper case for intrinsic and lower case for extrinsic, such as "euler_XYZ".
        target: the same names. From a representation to itself the numbers become those of its own inverse
            map: unit quaternions, orthonormal columns, rotation vectors of length at most pi.

    Returns:
        Numbers of representation `target`. A quaternion has w >= 0 when it comes from a matrix, and keeps the
        sign that is smooth in the numbers it comes from otherwise.

    Raises:
        ValueError: if `source` or `target` is not one of the names, or `value` has not the shape of `source`.
        TypeError: if `value` is not floating point.
    """
    start, end = _find("source", source), _find("target", target)
    check_shape("value", value, *start.shape)
    # In compute precision all the way: half precision would round the hub.
    hub = start.read(to_compute(value, len(start.shape)))
    if start.hub != end.hub:
        hub = quaternion_to_matrix(hub) if start.hub == "quaternion" else matrix_to_quaternion(hub)
    return end.write(hub).to(result_dtype(value))


def _find(argument: str, name: str) -> _Representation:
    if name not in REPRESENTATIONS:
        names = ", ".join(repr(known) for known in REPRESENTATIONS if not known.startswith("euler_"))
        raise ValueError(
            f'`{argument}` must be one of {names}, or "euler_" and one of the 24 sequences of axes, such as '
            f'"euler_XYZ"; got {name!r}.'
        )
    return REPRESENTATIONS[name]
