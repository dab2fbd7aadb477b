"""From any representation to any other, by name."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from svdrot._checks import check_shape
from svdrot._formulas import conversions, euler, frames, linear
from svdrot._formulas.vectors import normalized, rescaled_or_first_axis
from svdrot.engine.maps import Map
from svdrot.engine.memory import unseen_by_dynamo


class _Representation(NamedTuple):
    shape: tuple[int, ...]  # of one element
    hub: Literal["matrix", "quaternion"]  # what `read` gives and `write` takes
    read: Callable[[Any], Any]  # formulas
    write: Callable[[Any], Any]


def _unchanged(value: Any) -> Any:
    return value


def _unit(quaternion: Any) -> Any:
    return normalized(rescaled_or_first_axis(quaternion))


def _euler(sequence: str) -> _Representation:
    return _Representation(
        (3,), "quaternion", euler.euler_to_quaternion[sequence], euler.quaternion_to_euler[sequence]
    )


def _by_quaternion(name: str) -> _Representation:
    read, write = getattr(conversions, f"{name}_to_quaternion"), getattr(conversions, f"quaternion_to_{name}")
    return _Representation((3,), "quaternion", read, write)


REPRESENTATIONS = {
    "matrix": _Representation((3, 3), "matrix", _unchanged, _unchanged),
    "quaternion": _Representation((4,), "quaternion", _unit, _unchanged),
    "axis_angle": _by_quaternion("axis_angle"),
    "mrp": _by_quaternion("mrp"),
    "2vec": _Representation((6,), "matrix", frames.rotation_2vec_to_matrix, frames.matrix_to_rotation_6d),
    "5d": _Representation((5,), "matrix", frames.rotation_5d_to_matrix, frames.matrix_to_rotation_5d),
    "6d": _Representation((6,), "matrix", frames.rotation_6d_to_matrix, frames.matrix_to_rotation_6d),
    "9d": _Representation((9,), "matrix", linear.rotation_9d_to_matrix, linear.matrix_to_rotation_9d),
    "10d": _Representation((10,), "matrix", linear.symmetric_10d_to_matrix, linear.matrix_to_symmetric_10d),
    **{f"euler_{sequence}": _euler(sequence) for sequence in euler.SEQUENCES},
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
    start, _ = _find("source", source), _find("target", target)
    check_shape("value", value, *start.shape)
    return getattr(_MAPS, _made(source, target))(value)


_MAPS = SimpleNamespace()  # see `svdrot.engine.operations._WRITTEN`


@unseen_by_dynamo
def _made(source: str, target: str) -> str:
    """The name of a conversion, which is made if need be. Dynamo need not look into that."""
    name = f"{source} to {target}"
    if not hasattr(_MAPS, name):
        setattr(_MAPS, name, _conversion(source, target))
    return name


def _conversion(source: str, target: str) -> Map:
    """One formula for the whole way, so that nothing is rounded to half precision in between."""
    start, end = _find("source", source), _find("target", target)

    def convert(value: Any) -> Any:
        hub = start.read(value)
        if start.hub != end.hub:
            between = f"{start.hub}_to_{end.hub}"
            hub = getattr(conversions, between)(hub)
        return end.write(hub)

    result = (3, 3) if target == "matrix" else (4,) if target == "quaternion" else end.shape
    return Map(convert, {"value": start.shape}, result, name=f"{__name__}.{source}_to_{target}")


def _find(argument: str, name: str) -> _Representation:
    if name not in REPRESENTATIONS:
        names = ", ".join(repr(known) for known in REPRESENTATIONS if not known.startswith("euler_"))
        raise ValueError(
            f'`{argument}` must be one of {names}, or "euler_" and one of the 24 sequences of axes, such as '
            f'"euler_XYZ"; got {name!r}.'
        )
    return REPRESENTATIONS[name]
