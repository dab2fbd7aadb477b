"""Euler angles about all 24 sequences of axes, intrinsic and extrinsic."""

from itertools import product

import torch
from torch import Tensor

from svdrot._checks import check_shape, result_dtype, to_compute

from ._quaternions import quaternion_to_matrix

SEQUENCES = tuple(
    "".join(axes) for case in ("XYZ", "xyz") for axes in product(case, repeat=3) if axes[1] not in axes[::2]
)


def euler_to_matrix(angles: Tensor, sequence: str) -> Tensor:
    r"""Product of three rotations about coordinate axes.

    As in scipy, "XYZ" is intrinsic, $R_x(\alpha) R_y(\beta) R_z(\gamma)$, each turn about an axis of the
    turned body, and "xyz" is extrinsic, $R_z(\gamma) R_y(\beta) R_x(\alpha)$, each turn about a fixed axis.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, all upper or all lower case, neighbours different.

    Returns:
        Rotations, shape (..., 3, 3).

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("angles", angles, 3)
    i, j, k = _axes(sequence)
    alpha, beta, gamma = to_compute(angles, 1).unbind(-1)
    factors = _about(i, alpha), _about(j, beta), _about(k, gamma)
    a, b, c = factors if sequence.isupper() else reversed(factors)
    ab = (a[..., None] * b[..., None, :, :]).sum(-2)
    return (ab[..., None] * c[..., None, :, :]).sum(-2).to(result_dtype(angles))


def check_sequence(sequence: str) -> None:
    if sequence not in SEQUENCES:
        raise ValueError(
            '`sequence` must be three axes, neighbours different, such as "XYZ" (intrinsic) '
            f'or "zxz" (extrinsic); got {sequence!r}.'
        )


def _axes(sequence: str) -> tuple[int, ...]:
    check_sequence(sequence)
    return tuple(map("xyz".find, sequence.lower()))


def _about(axis: int, angle: Tensor) -> Tensor:
    """Rodrigues about a coordinate axis, every entry exact: e e' + cos (I - e e') + sin [e]x."""
    eye = torch.eye(3, dtype=angle.dtype, device=angle.device)
    e, f, g = (eye[(axis + n) % 3] for n in range(3))
    along = e[:, None] * e
    turn = g[:, None] * f - f[:, None] * g
    return along + angle.cos()[..., None, None] * (eye - along) + angle.sin()[..., None, None] * turn


def matrix_to_euler(matrix: Tensor, sequence: str) -> Tensor:
    r"""Angles whose `euler_to_matrix` is the rotation.

    Args:
        matrix: rotations, shape (..., 3, 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbours different.

    Returns:
        Angles in radians in the order of `sequence`, shape (..., 3). The outer two are in [-pi, pi]; the
        middle one is in [-pi/2, pi/2] for three different axes and in [0, pi] if the first is also the last.
        Within rounding of gimbal lock (a middle angle at an end of its range) only a sum or difference of the
        outer two is defined: the third is zero, and only the first has a gradient.

    Raises:
        ValueError: if the last two dimensions are not (3, 3), or `sequence` is not one of the 24.
        TypeError: if `matrix` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("matrix", matrix, 3, 3)
    c, b, a = _axes(sequence)
    # M = R_a(gamma) R_b(beta) R_c(alpha) is the extrinsic product, and the transpose of the intrinsic one
    # with every angle negated. With d the third axis and s = 1 if (a, b, d) is right-handed and the angles
    # are not negated,
    #   c = d: M e_c = s sin(beta) e_a + cos(beta) (cos(gamma) e_d - s sin(gamma) e_b),
    #   c = a: M e_c = cos(beta) e_a + sin(beta) (sin(gamma) e_b - s cos(gamma) e_d).
    # Then R_b(beta) leaves e_b alone, so that row b of R_a(-gamma) M is row b of R_c(alpha): taking alpha
    # from it, and not from M, keeps the product right to rounding however close gimbal lock is.
    d = 3 - a - b
    s = 1 if ((b - a) % 3 == 1) == sequence.islower() else -1
    m = to_compute(matrix, 2)
    m = m.mT if sequence.isupper() else m
    axis = m[..., c]
    x, y = (axis[..., d], -s * axis[..., b]) if c == d else (-s * axis[..., d], axis[..., b])
    # An entry is right to a few eps, hence so is the product when a shorter (x, y) counts as zero.
    locked = torch.hypot(x, y).detach() < 4 * torch.finfo(m.dtype).eps
    x, y = torch.where(locked, 1, x), torch.where(locked, 0, y)
    length = torch.hypot(x, y)
    cosine, sine, length = x / length, y / length, torch.where(locked, 0, length)
    row = cosine[..., None] * m[..., b, :] + s * sine[..., None] * m[..., d, :]
    if c == d:
        beta, alpha = torch.atan2(s * axis[..., a], length), torch.atan2(s * row[..., a], row[..., b])
    else:
        beta, alpha = torch.atan2(length, axis[..., a]), torch.atan2(-s * row[..., d], row[..., b])
    return torch.stack((alpha, beta, torch.atan2(sine, cosine)), -1).to(result_dtype(matrix))


def euler_to_quaternion(angles: Tensor, sequence: str) -> Tensor:
    r"""Product of three quaternions about coordinate axes: one of the two of `euler_to_matrix`.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbours different.

    Returns:
        Unit quaternions w x y z, shape (..., 4), smooth in the angles, w of any sign.

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("angles", angles, 3)
    axes = _axes(sequence)
    half = to_compute(angles, 1) / 2
    factors = [_quaternion_about(axis, angle) for axis, angle in zip(axes, half.unbind(-1), strict=True)]
    a, b, c = factors if sequence.isupper() else reversed(factors)
    return _product(_product(a, b), c).to(result_dtype(angles))


def _quaternion_about(axis: int, half: Tensor) -> Tensor:
    e = torch.eye(3, dtype=half.dtype, device=half.device)[axis]
    return torch.cat((half.cos()[..., None], half.sin()[..., None] * e), -1)


def _product(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton's product: the turn `q`, then the turn `p`."""
    (a, u), (b, v) = p.split((1, 3), -1), q.split((1, 3), -1)
    return torch.cat((a * b - (u * v).sum(-1, keepdim=True), a * v + b * u + torch.linalg.cross(u, v)), -1)


def quaternion_to_euler(quaternion: Tensor, sequence: str) -> Tensor:
    r"""Angles of the rotation of a quaternion of any nonzero length, with the ranges of `matrix_to_euler`.

    Args:
        quaternion: w x y z, shape (..., 4).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbours different.

    Returns:
        Angles in radians in the order of `sequence`, shape (..., 3).

    Raises:
        ValueError: if the last dimension is not 4, or `sequence` is not one of the 24.
        TypeError: if `quaternion` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_shape("quaternion", quaternion, 4)
    # A small entry of the matrix is right relative to itself, hence a small angle too.
    matrix = quaternion_to_matrix(to_compute(quaternion, 1))
    return matrix_to_euler(matrix, sequence).to(result_dtype(quaternion))
