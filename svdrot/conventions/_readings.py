"""The ways an array can be read as rotations: what is tried for each shape, and how it is written back."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from svdrot.representations import (
    SEQUENCES,
    axis_angle_to_matrix,
    euler_to_matrix,
    matrix_to_axis_angle,
    matrix_to_euler,
    matrix_to_mrp,
    matrix_to_quaternion,
    matrix_to_rotation_6d,
    mrp_to_matrix,
    quaternion_to_matrix,
    rotation_6d_to_matrix,
)

ORTHONORMAL = 0.1  # how far R^T R may be off I in a row that counts as a matrix; noise and few decimals pass

USUAL = ("XYZ", "ZYX", "ZXZ", "ZYZ")  # of sequences that say the same, the one that is told


@dataclass(frozen=True)
class Reading:
    """Hold one way to read an array.

    Attributes:
        words: what the numbers are then.
        shape: of those of one rotation.
        read: from the numbers to matrices (..., 3, 3).
        write: from matrices to the numbers.
        reading: the code of `read`, of an expression `{}`.
        writing: the code of `write`.
        cost: how far-fetched it is, to choose among readings that say the same.
        euler: whether it is of Euler angles.
    """

    words: str
    shape: tuple[int, ...]
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]
    reading: str
    writing: str
    cost: int = 0
    euler: bool = False


def _matrices(
    words: str, shape: tuple[int, ...], take: str, taken: Callable[[Tensor], Tensor]
) -> list[Reading]:
    """Return matrices in some layout, as they are and negated, for those of determinant -1."""
    give, given = "{}", _unchanged
    if shape == (9,):
        give, given = "({}).flatten(-2)", lambda m: m.flatten(-2)
    negated = f"{words} of determinant -1, negated"
    return [
        Reading(words, shape, taken, given, take, give),
        Reading(
            negated, shape, lambda x: -taken(x), lambda m: given(-m), f"(-{take})", give.format("-{}"), cost=1
        ),
    ]


def _unchanged(value: Tensor) -> Tensor:
    return value


def _by_degrees(make: Callable[[bool], Reading]) -> list[Reading]:
    return [make(False), make(True)]


def _vectors(degrees: bool) -> Reading:
    unit = "degrees" if degrees else "radians"
    return Reading(
        f"rotation vectors in {unit}",
        (3,),
        lambda v: axis_angle_to_matrix(v.deg2rad() if degrees else v),
        lambda m: matrix_to_axis_angle(m).rad2deg() if degrees else matrix_to_axis_angle(m),
        f"svdrot.axis_angle_to_matrix({{}}{'.deg2rad()' if degrees else ''})",
        f"svdrot.matrix_to_axis_angle({{}}){'.rad2deg()' if degrees else ''}",
    )


def _euler(sequence: str, stored: tuple[int, ...], degrees: bool) -> Reading:
    """Return Euler angles, the k-th of the sequence at `stored[k]`."""
    turn = "intrinsic" if sequence.isupper() else "extrinsic"
    unit = "degrees" if degrees else "radians"
    plain = stored == (0, 1, 2)
    place = "" if plain else ", stored as those about x, y, z"
    back = [stored.index(k) for k in range(3)]
    before = ("" if plain else f"[..., {list(stored)}]") + (".deg2rad()" if degrees else "")
    after = (".rad2deg()" if degrees else "") + ("" if plain else f"[..., {back}]")

    def read(value: Tensor) -> Tensor:
        value = value[..., stored]
        return euler_to_matrix(value.deg2rad() if degrees else value, sequence)

    def write(m: Tensor) -> Tensor:
        found = matrix_to_euler(m, sequence)[..., back]
        return found.rad2deg() if degrees else found

    return Reading(
        f"Euler angles {sequence} ({turn}) in {unit}{place}",
        (3,),
        read,
        write,
        f'svdrot.euler_to_matrix({{}}{before}, "{sequence}")',
        f'svdrot.matrix_to_euler({{}}, "{sequence}"){after}',
        cost=(0 if plain else 1) + (sequence.upper() not in USUAL),
        euler=True,
    )


def _by_axis() -> list[tuple[str, tuple[int, ...]]]:
    """Return orders of axes that are no sequence of those with angles about x, y, z in this order."""
    orders = ["".join(order) for order in permutations("XYZ")]
    places = {order: tuple("XYZ".index(axis) for axis in order) for order in orders}
    return [(order, place) for order, place in places.items() if order not in ("XYZ", "ZYX")]


def _all() -> list[Reading]:
    found = [
        *_matrices("matrices", (3, 3), "{}", _unchanged),
        *_matrices("rotations of poses (4, 4)", (4, 4), "{}[..., :3, :3]", lambda x: x[..., :3, :3]),
        *_matrices("rotations of poses (3, 4)", (3, 4), "{}[..., :3]", lambda x: x[..., :3]),
        *_matrices(
            "matrices row by row", (9,), "{}.unflatten(-1, (3, 3))", lambda x: x.unflatten(-1, (3, 3))
        ),
        *_matrices(
            "rotations of poses (3, 4) row by row",
            (12,),
            "{}.unflatten(-1, (3, 4))[..., :3]",
            lambda x: x.unflatten(-1, (3, 4))[..., :3],
        ),
        *_matrices(
            "rotations of poses (4, 4) row by row",
            (16,),
            "{}.unflatten(-1, (4, 4))[..., :3, :3]",
            lambda x: x.unflatten(-1, (4, 4))[..., :3, :3],
        ),
    ]
    found.append(
        Reading(
            "6D, the first two columns",
            (6,),
            rotation_6d_to_matrix,
            matrix_to_rotation_6d,
            "svdrot.rotation_6d_to_matrix({})",
            "svdrot.matrix_to_rotation_6d({})",
        )
    )
    found.append(
        Reading(
            "quaternions w x y z",
            (4,),
            quaternion_to_matrix,
            matrix_to_quaternion,
            "svdrot.quaternion_to_matrix({})",
            "svdrot.matrix_to_quaternion({})",
        )
    )
    found.append(
        Reading(
            "quaternions x y z w",
            (4,),
            lambda q: quaternion_to_matrix(q.roll(1, -1)),
            lambda m: matrix_to_quaternion(m).roll(-1, -1),
            "svdrot.quaternion_to_matrix({}.roll(1, -1))",
            "svdrot.matrix_to_quaternion({}).roll(-1, -1)",
        )
    )
    found += _by_degrees(_vectors)
    for sequence in SEQUENCES:
        found += [_euler(sequence, (0, 1, 2), degrees) for degrees in (False, True)]
    for order, place in _by_axis():
        found += [_euler(order, place, degrees) for degrees in (False, True)]
    found.append(
        Reading(
            "half rotation vectors in radians",
            (3,),
            lambda v: axis_angle_to_matrix(2 * v),
            lambda m: matrix_to_axis_angle(m) / 2,
            "svdrot.axis_angle_to_matrix(2 * {})",
            "svdrot.matrix_to_axis_angle({}) / 2",
            cost=2,
        )
    )
    found.append(
        Reading(
            "modified Rodrigues parameters",
            (3,),
            mrp_to_matrix,
            matrix_to_mrp,
            "svdrot.mrp_to_matrix({})",
            "svdrot.matrix_to_mrp({})",
            cost=2,
        )
    )
    return found


READINGS = _all()
SHAPES = sorted({reading.shape for reading in READINGS}, key=lambda shape: (-len(shape), shape))


def sound(matrix: Tensor) -> Tensor:
    """Return which matrices (..., 3, 3) are rotations to a rough tolerance, shape (...)."""
    gram = (matrix[..., :, :, None] * matrix[..., :, None, :]).sum(-3)
    off = (gram - torch.eye(3, dtype=matrix.dtype)).abs().amax((-2, -1))
    x, y, z = matrix.unbind(-1)
    return (off <= ORTHONORMAL) & ((torch.linalg.cross(x, y) * z).sum(-1) > 0)
