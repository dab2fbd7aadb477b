"""From any representation to any other, by name."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from svdrot._checks import check_shape
from svdrot._formulas import conversions
from svdrot._stand_ins import takes_arrays
from svdrot.engine.maps import Map
from svdrot.engine.memory import unseen_by_dynamo

from ._table import TABLE, Row


@takes_arrays
def convert_rotation(value: Tensor, source: str, target: str) -> Tensor:
    """Convert a rotation from one representation to another.

    Quaternions, rotation vectors, modified Rodrigues parameters and Euler angles meet in the quaternion,
    which keeps the sign of the axis at half turns, as a matrix cannot; all others meet in the matrix. Every
    conversion is two halves, in float32 or better all the way: "axis_angle" to "mrp" is
    `quaternion_to_mrp(axis_angle_to_quaternion(x))`. See the named functions of the halves for their singular
    sets.

    Args:
        value: numbers of representation `source`, with any batch shape: (..., 3, 3) for "matrix", otherwise
            (..., 3), (..., 4), ... Angles are in radians.
        source: "matrix" (a rotation; of others see `matrix_to_quaternion` and its relatives), "quaternion"
            (w x y z), "axis_angle" (rotation vector), "mrp" (modified Rodrigues parameters), "2vec", "5d",
            "6d", "9d", "10d", or "euler_" and one of the 24 sequences, upper case for intrinsic and lower
            case for extrinsic, such as "euler_XYZ".
        target: the same names. From a representation to itself the numbers become those of its own inverse
            map: unit quaternions, orthonormal columns, rotation vectors of length at most pi.

    Returns:
        Numbers of representation `target`. A quaternion has w >= 0 when it comes from a matrix, and keeps the
        sign that is smooth in the numbers it comes from otherwise.

    Raises:
        ValueError: if `source` or `target` is not one of the names, or `value` has not the shape of `source`.
        TypeError: if `value` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> quaternion = torch.tensor([0.8, 0.0, 0.0, 0.6])
        >>> svdrot.convert_rotation(quaternion, "quaternion", "euler_zyx")
        tensor([1.2870, 0.0000, 0.0000])
        >>> svdrot.convert_rotation(quaternion, "quaternion", "6d")
        tensor([ 0.2800,  0.9600,  0.0000, -0.9600,  0.2800,  0.0000])
    """
    start, _ = _find("source", source), _find("target", target)
    check_shape("value", value, *start.shape)
    return getattr(_MAPS, _made(source, target))(value)


_MAPS = SimpleNamespace()  # see `svdrot.engine.operations._WRITTEN`
_ROWS: dict[str, tuple[Row, Row]] = {}  # that the maps were made of: rows of a user may be replaced


@unseen_by_dynamo
def _made(source: str, target: str) -> str:
    """Return the name of a conversion, which is made if need be. Dynamo need not look into that."""
    name = f"{source} to {target}"
    rows = TABLE[source], TABLE[target]
    if _ROWS.get(name) != rows or not hasattr(_MAPS, name):
        setattr(_MAPS, name, _conversion(source, target))
        _ROWS[name] = rows
    return name


def _conversion(source: str, target: str) -> Map:
    """Return one formula for the whole way, so that nothing is rounded to half precision in between."""
    start, end = _find("source", source), _find("target", target)

    def convert(value: Any) -> Any:
        hub = start.read(value)
        if start.hub != end.hub:
            between = f"{start.hub}_to_{end.hub}"
            hub = getattr(conversions, between)(hub)
        return end.write(hub)

    result = (3, 3) if target == "matrix" else (4,) if target == "quaternion" else end.shape
    return Map(convert, {"value": start.shape}, result, name=f"{__name__}.{source}_to_{target}")


def _find(argument: str, name: str) -> Row:
    """Return the row of a representation by its name, the value of `argument`."""
    if name not in TABLE:
        names = ", ".join(repr(known) for known in TABLE if not known.startswith("euler_"))
        raise ValueError(
            f'`{argument}` must be one of {names}, or "euler_" and one of the 24 sequences of axes, such as '
            f'"euler_XYZ"; got {name!r}.'
        )
    return TABLE[name]
