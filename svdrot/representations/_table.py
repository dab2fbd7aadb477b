"""Every representation is a row here; conversions, their names and the heads of networks follow from it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from svdrot import _names
from svdrot._formulas import conversions, euler, frames, linear
from svdrot._formulas.geometry import quaternions
from svdrot.engine.maps import Map

HEAD_SEQUENCE = "XYZ"  # of the Euler angles that a head regresses


class Row(NamedTuple):
    """Describe a representation: a row of `TABLE`.

    Attributes:
        shape: of the numbers of one rotation.
        hub: where it meets the others, "matrix" or "quaternion": what `read` gives and `write` takes.
        read: formula from the numbers to the hub.
        write: formula from the hub to the numbers.
        to_matrix: formula from the numbers to the matrix; None for the matrix itself.
        kind: its name in functions, one of `svdrot._names.KINDS`.
        words: what its numbers are, for docstrings.
        head: its name as the head of a network; None if it is none.

    Example:
        >>> import svdrot
        >>> row = svdrot.representations.TABLE["6d"]
        >>> row.shape, row.hub, row.kind
        ((6,), 'matrix', 'rotation_6d')
    """

    shape: tuple[int, ...]
    hub: Literal["matrix", "quaternion"]
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    to_matrix: Map | None
    kind: str
    words: str
    head: str | None


def _by_quaternion(name: str, words: str) -> Row:
    """Return the row of three numbers, written from and to the quaternion in `conversions`."""
    read, write, to_matrix = (
        getattr(conversions, f"{a}_to_{b}")
        for a, b in ((name, "quaternion"), ("quaternion", name), (name, "matrix"))
    )
    return Row((3,), "quaternion", read, write, to_matrix, name, words, name)


def _by_matrix(features: int, read: Map, write: Map, kind: str, words: str, head: str) -> Row:
    """Return the row of numbers that are written from and to the matrix."""
    return Row((features,), "matrix", read, write, read, kind, words, head)


def _of_euler(sequence: str) -> Row:
    """Return the row of Euler angles about the axes of a sequence."""
    read, write = euler.euler_to_quaternion[sequence], euler.quaternion_to_euler[sequence]
    head = "euler" if sequence == HEAD_SEQUENCE else None
    words = "Euler angles in radians (..., 3) about the axes of `sequence`"
    return Row((3,), "quaternion", read, write, euler.euler_to_matrix[sequence], "euler", words, head)


def _unchanged(value: Any) -> Any:
    return value


TABLE: dict[str, Row] = {
    "matrix": Row(
        (3, 3),
        "matrix",
        _unchanged,
        _unchanged,
        None,
        "matrix",
        "rotations (..., 3, 3)",
        None,
    ),
    "9d": _by_matrix(
        9,
        linear.rotation_9d_to_matrix,
        linear.matrix_to_rotation_9d,
        "rotation_9d",
        "nine entries of a matrix, row by row (..., 9)",
        "svd",
    ),
    "6d": _by_matrix(
        6,
        frames.rotation_6d_to_matrix,
        frames.matrix_to_rotation_6d,
        "rotation_6d",
        "two columns of any length (..., 6)",
        "6d",
    ),
    "quaternion": Row(
        (4,),
        "quaternion",
        quaternions.normalize,
        _unchanged,
        conversions.quaternion_to_matrix,
        "quaternion",
        "quaternions w x y z (..., 4)",
        "quaternion",
    ),
    "axis_angle": _by_quaternion("axis_angle", "rotation vectors in radians (..., 3)"),
    **{f"euler_{sequence}": _of_euler(sequence) for sequence in euler.SEQUENCES},
    "10d": _by_matrix(
        10,
        linear.symmetric_10d_to_matrix,
        linear.matrix_to_symmetric_10d,
        "symmetric_10d",
        "upper triangles of symmetric 4x4 matrices (..., 10)",
        "10d",
    ),
    "5d": _by_matrix(
        5,
        frames.rotation_5d_to_matrix,
        frames.matrix_to_rotation_5d,
        "rotation_5d",
        "two columns, projected (..., 5)",
        "5d",
    ),
    "2vec": _by_matrix(
        6,
        frames.rotation_2vec_to_matrix,
        frames.matrix_to_rotation_6d,
        "rotation_2vec",
        "two directions (..., 6)",
        "2vec",
    ),
    "mrp": _by_quaternion("mrp", "modified Rodrigues parameters (..., 3)"),
}

if {row.kind for row in TABLE.values()} != {*_names.KINDS}:
    raise AssertionError("svdrot._names.KINDS must be the kinds of the table of representations")
