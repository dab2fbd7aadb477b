"""Euler angles about all 24 sequences of axes, intrinsic and extrinsic."""

from torch import Tensor

from svdrot._formulas import euler
from svdrot._formulas.euler import SEQUENCES


def euler_to_matrix(angles: Tensor, sequence: str) -> Tensor:
    r"""Product of three rotations about coordinate axes.

    As in scipy, "XYZ" is intrinsic, $R_x(\alpha) R_y(\beta) R_z(\gamma)$, each turn about an axis of the
    turned body, and "xyz" is extrinsic, $R_z(\gamma) R_y(\beta) R_x(\alpha)$, each turn about a fixed axis.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, all upper or all lower case, neighbors different.

    Returns:
        Rotations, shape (..., 3, 3).

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_sequence(sequence)
    return euler.euler_to_matrix[sequence](angles)


def check_sequence(sequence: str) -> None:
    if sequence not in SEQUENCES:
        raise ValueError(
            '`sequence` must be three axes, neighbors different, such as "XYZ" (intrinsic) '
            f'or "zxz" (extrinsic); got {sequence!r}.'
        )


def matrix_to_euler(matrix: Tensor, sequence: str) -> Tensor:
    r"""Angles whose `euler_to_matrix` is the rotation.

    Args:
        matrix: rotations, shape (..., 3, 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.

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
    check_sequence(sequence)
    return euler.matrix_to_euler[sequence](matrix)


def euler_to_quaternion(angles: Tensor, sequence: str) -> Tensor:
    r"""Product of three quaternions about coordinate axes: one of the two of `euler_to_matrix`.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.

    Returns:
        Unit quaternions w x y z, shape (..., 4), smooth in the angles, w of any sign.

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_sequence(sequence)
    return euler.euler_to_quaternion[sequence](angles)


def quaternion_to_euler(quaternion: Tensor, sequence: str) -> Tensor:
    r"""Angles of the rotation of a quaternion of any nonzero length, with the ranges of `matrix_to_euler`.

    Args:
        quaternion: w x y z, shape (..., 4).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.

    Returns:
        Angles in radians in the order of `sequence`, shape (..., 3).

    Raises:
        ValueError: if the last dimension is not 4, or `sequence` is not one of the 24.
        TypeError: if `quaternion` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    check_sequence(sequence)
    return euler.quaternion_to_euler[sequence](quaternion)
