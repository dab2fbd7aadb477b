"""What roma does with rotations: distances, products, images, arcs, samples. Quaternions are x y z w."""

from collections.abc import Sequence

import torch
from torch import Tensor

from svdrot._checks import check_square
from svdrot._vectors import product
from svdrot.compat._shared import scalar_first, scalar_last
from svdrot.interpolation import slerp
from svdrot.metrics import geodesic_distance
from svdrot.projection import special_orthogonalize
from svdrot.quaternions import (
    quaternion_apply,
    quaternion_conjugate,
    quaternion_inverse,
    quaternion_multiply,
    quaternion_normalize,
    quaternion_power,
    quaternion_slerp,
)
from svdrot.representations import (
    axis_angle_to_quaternion,
    matrix_to_axis_angle,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
)
from svdrot.rotations import random_rotation

Size = int | Sequence[int]


def is_orthonormal_matrix(R: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return whether all matrices of a batch are orthonormal.

    Args:
        R: shape (..., d, d).
        epsilon: that the Frobenius norm of R R^T - I must be below.

    Returns:
        One boolean, shape (), for the whole batch; `svdrot.is_rotation` tells of each.
    """
    check_square("R", R)
    gram = product(R, R.mT)
    off = gram - torch.eye(R.shape[-1], dtype=gram.dtype, device=gram.device)
    return (torch.linalg.matrix_norm(off) < epsilon).all()


def is_rotation_matrix(R: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return whether all matrices of a batch are rotations.

    Args:
        R: shape (..., d, d).
        epsilon: as of `is_orthonormal_matrix`.

    Returns:
        One boolean, shape (), for the whole batch; where roma gives Python's False this is a tensor, too.
    """
    return is_orthonormal_matrix(R, epsilon) & (torch.linalg.det(R) > 0).all()


def random_unitquat(
    size: Size = (),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw unit quaternions of uniform rotations.

    Args:
        size: batch shape.
        dtype: floating point.
        device: where to draw.
        generator: source of the random numbers, other ones than roma draws with it.

    Returns:
        Unit quaternions x y z w, shape (*size, 4), uniform on the sphere, of both signs.
    """
    drawn = torch.randn(*_shape(size), 4, dtype=dtype, device=device, generator=generator)
    return quaternion_normalize(drawn)


def random_rotmat(
    size: Size = (),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw uniform rotations, as `svdrot.random_rotation` does.

    Args:
        size, dtype, device, generator: see `random_unitquat`.

    Returns:
        Rotations, shape (*size, 3, 3).
    """
    return random_rotation(_shape(size), dtype=dtype, device=device, generator=generator)


def random_rotvec(
    size: Size = (),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw rotation vectors of uniform rotations.

    Args:
        size, dtype, device, generator: see `random_unitquat`.

    Returns:
        Radians, shape (*size, 3), of length in [0, pi].
    """
    return matrix_to_axis_angle(random_rotmat(size, dtype, device, generator))


def identity_quat(
    size: Size = (), dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Return quaternions of the identity, all in one place of memory.

    Args:
        size: batch shape.
        dtype: floating point.
        device: of the result.

    Returns:
        0 0 0 1, shape (*size, 4).
    """
    one = torch.zeros(4, dtype=dtype, device=device)
    one[-1] = 1
    return one.expand(*_shape(size), 4)


def _shape(size: Size) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def rotmat_cosine_angle(R: Tensor) -> Tensor:
    """Return the cosines of the angles of rotations, (tr R - 1) / 2.

    Args:
        R: shape (..., 3, 3).

    Returns:
        Shape (...); beyond [-1, 1] by rounding. `svdrot.rotation_angle` has the angle to full precision.
    """
    return (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2


def rotmat_geodesic_distance(R1: Tensor, R2: Tensor, clamping: float = 1.0) -> Tensor:
    """Return the angles between rotations, as `svdrot.geodesic_distance` does.

    Args:
        R1: shape (..., 3, 3).
        R2: shape (..., 3, 3).
        clamping: not read; gradients are finite without it, and angles near pi are exact.

    Returns:
        Radians, shape (...), in [0, pi]. The gradient at 0 and at pi is 0.
    """
    return geodesic_distance(R1, R2)


def rotmat_geodesic_distance_naive(R1: Tensor, R2: Tensor) -> Tensor:
    """Return the same as `rotmat_geodesic_distance`.

    Args:
        R1: shape (..., 3, 3).
        R2: shape (..., 3, 3).

    Returns:
        Radians, shape (...), in [0, pi].
    """
    return geodesic_distance(R1, R2)


def unitquat_geodesic_distance(q1: Tensor, q2: Tensor) -> Tensor:
    """Return the angles between the rotations of quaternions.

    Args:
        q1: x y z w, shape (..., 4), of any nonzero length.
        q2: x y z w, shape (..., 4), of any nonzero length.

    Returns:
        Radians, shape (...), in [0, pi]. The gradient at 0 and at pi is 0.
    """
    first, second = scalar_first("q1", q1), scalar_first("q2", q2)
    return geodesic_distance(quaternion_to_matrix(first), quaternion_to_matrix(second))


def rotvec_geodesic_distance(vec1: Tensor, vec2: Tensor) -> Tensor:
    """Return the angles between the rotations of rotation vectors.

    Args:
        vec1: radians, shape (..., 3).
        vec2: radians, shape (..., 3).

    Returns:
        Radians, shape (...), in [0, pi]. The gradient at 0 and at pi is 0.
    """
    first, second = axis_angle_to_quaternion(vec1), axis_angle_to_quaternion(vec2)
    return geodesic_distance(quaternion_to_matrix(first), quaternion_to_matrix(second))


def quat_conjugation(quat: Tensor) -> Tensor:
    """Return the conjugates of quaternions.

    Args:
        quat: x y z w, shape (..., 4).

    Returns:
        Quaternions x y z w, shape (..., 4).
    """
    return scalar_last(quaternion_conjugate(scalar_first("quat", quat)))


def quat_inverse(quat: Tensor) -> Tensor:
    """Return the inverses of quaternions.

    Args:
        quat: x y z w, shape (..., 4), of any nonzero length.

    Returns:
        Quaternions x y z w, shape (..., 4), of length 1 / |q|; zero for zero.
    """
    return scalar_last(quaternion_inverse(scalar_first("quat", quat)))


def quat_normalize(quat: Tensor) -> Tensor:
    """Return quaternions over their lengths.

    Args:
        quat: x y z w, shape (..., 4).

    Returns:
        Unit quaternions x y z w, shape (..., 4); the identity for zero.
    """
    return scalar_last(quaternion_normalize(scalar_first("quat", quat)))


def quat_product(p: Tensor, q: Tensor) -> Tensor:
    """Return Hamilton's product p q: of rotations, `q` first.

    Args:
        p: x y z w, shape (..., 4).
        q: x y z w, shape (..., 4).

    Returns:
        Quaternions x y z w, shape (..., 4).
    """
    return scalar_last(quaternion_multiply(scalar_first("p", p), scalar_first("q", q)))


def quat_composition(sequence: Sequence[Tensor], normalize: bool = False) -> Tensor:
    """Return the product of quaternions, of which the last acts first.

    Args:
        sequence: two or more, x y z w, shape (..., 4).
        normalize: whether the result has length 1.

    Returns:
        Quaternions x y z w, shape (..., 4).
    """
    found = _first(sequence)
    for quaternion in sequence[1:]:
        found = quat_product(found, quaternion)
    return quat_normalize(found) if normalize else found


def _first(sequence: Sequence[Tensor]) -> Tensor:
    if len(sequence) < 2:
        raise ValueError(f"`sequence` must have two elements or more; got {len(sequence)}.")
    return sequence[0]


def quat_action(q: Tensor, v: Tensor, is_normalized: bool = False) -> Tensor:
    """Return the images of vectors under the rotations of quaternions.

    Args:
        q: x y z w, shape (..., 4), of any nonzero length.
        v: shape (..., 3).
        is_normalized: not read.

    Returns:
        Vectors, shape (..., 3).
    """
    return quaternion_apply(scalar_first("q", q), v)


def rotvec_inverse(rotvec: Tensor) -> Tensor:
    """Return the opposite rotation vectors.

    Args:
        rotvec: radians, shape (..., 3).

    Returns:
        Radians, shape (..., 3).
    """
    return -rotvec


def rotvec_composition(sequence: Sequence[Tensor], normalize: bool = False) -> Tensor:
    """Return the rotation vector of a product of rotations, of which the last acts first.

    Args:
        sequence: two or more, radians, shape (..., 3).
        normalize: not read.

    Returns:
        Radians, shape (..., 3), of length in [0, pi].
    """
    found = axis_angle_to_quaternion(_first(sequence))
    for vector in sequence[1:]:
        found = quaternion_multiply(found, axis_angle_to_quaternion(vector))
    return quaternion_to_axis_angle(found)


def rotmat_inverse(R: Tensor) -> Tensor:
    """Return transposes, as views.

    Args:
        R: shape (..., d, d).

    Returns:
        Shape (..., d, d).
    """
    return R.mT


def rotmat_composition(sequence: Sequence[Tensor], normalize: bool = False) -> Tensor:
    """Return the product of matrices, of which the last acts first.

    Args:
        sequence: two or more, shape (..., d, d).
        normalize: whether to return the rotation nearest to it.

    Returns:
        Matrices, shape (..., d, d).
    """
    found = _first(sequence)
    for matrix in sequence[1:]:
        found = product(found, matrix)
    return special_orthogonalize(found) if normalize else found


def unitquat_slerp(q0: Tensor, q1: Tensor, steps: Tensor, shortest_arc: bool = True) -> Tensor:
    """Return quaternions on the arc from one to another.

    Args:
        q0: x y z w, shape (*A, 4), of any nonzero length.
        q1: x y z w, shape (*A, 4), of any nonzero length.
        steps: shares of the way, shape B: 0 gives `q0`, 1 gives `q1`.
        shortest_arc: whether to go to `q1` or `-q1`, whichever is nearer.

    Returns:
        Unit quaternions x y z w, shape (*B, *A, 4).
    """
    start, end = scalar_first("q0", q0), scalar_first("q1", q1)
    share = _outer(steps, q0.ndim - 1)
    if shortest_arc:
        return scalar_last(quaternion_slerp(start, end, share))
    start = quaternion_normalize(start)
    whole = quaternion_multiply(quaternion_conjugate(start), quaternion_normalize(end))
    return scalar_last(quaternion_multiply(start, quaternion_power(whole, share)))


def _outer(steps: Tensor, dims: int) -> Tensor:
    """Give `steps` as many dimensions of 1 at the end as a batch has."""
    return steps.reshape(*steps.shape, *(1,) * dims)


def unitquat_slerp_fast(q0: Tensor, q1: Tensor, steps: Tensor, shortest_arc: bool = True) -> Tensor:
    """Return the same as `unitquat_slerp`.

    Args:
        q0, q1, steps, shortest_arc: see `unitquat_slerp`.

    Returns:
        Unit quaternions x y z w, shape (*B, *A, 4).
    """
    return unitquat_slerp(q0, q1, steps, shortest_arc)


def rotvec_slerp(rotvec0: Tensor, rotvec1: Tensor, steps: Tensor) -> Tensor:
    """Return rotation vectors on the shortest arc from one rotation to another.

    Args:
        rotvec0: radians, shape (*A, 3).
        rotvec1: radians, shape (*A, 3).
        steps: shares of the way, shape B.

    Returns:
        Radians, shape (*B, *A, 3), of length in [0, pi].
    """
    start, end = axis_angle_to_quaternion(rotvec0), axis_angle_to_quaternion(rotvec1)
    return quaternion_to_axis_angle(quaternion_slerp(start, end, _outer(steps, rotvec0.ndim - 1)))


def rotmat_slerp(R0: Tensor, R1: Tensor, steps: Tensor) -> Tensor:
    """Return rotations on the shortest arc from one to another, as `svdrot.slerp` does.

    Args:
        R0: shape (*A, 3, 3).
        R1: shape (*A, 3, 3).
        steps: shares of the way, shape B.

    Returns:
        Rotations, shape (*B, *A, 3, 3).
    """
    return slerp(R0, R1, _outer(steps, R0.ndim - 2))
