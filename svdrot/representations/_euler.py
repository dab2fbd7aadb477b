"""Euler angles about all 24 sequences of axes, intrinsic and extrinsic."""

from torch import Tensor

from svdrot._formulas import euler
from svdrot._formulas.euler import SEQUENCES


def euler_to_matrix(angles: Tensor, sequence: str) -> Tensor:
    r"""Convert Euler angles to the product of three rotations about coordinate axes.

    As in scipy, "XYZ" is intrinsic, $R_x(\alpha) R_y(\beta) R_z(\gamma)$, each turn about an axis of the
    turned body, and "xyz" is extrinsic, $R_z(\gamma) R_y(\beta) R_x(\alpha)$, each turn about a fixed axis.

    Args:
        angles: (alpha, beta, gamma) in radians, in the order of `sequence`, shape (..., 3).
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.

    Returns:
        Rotations, shape (..., 3, 3). Smooth everywhere, gimbal lock included.

    Raises:
        ValueError: if the last dimension is not 3, or `sequence` is not one of the 24.
        TypeError: if `angles` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).

    Example:
        >>> import math, torch, svdrot
        >>> angles = torch.tensor([0.0, 0.0, math.atan2(0.96, 0.28)])
        >>> svdrot.euler_to_matrix(angles, "XYZ")
        tensor([[ 0.2800, -0.9600,  0.0000],
                [ 0.9600,  0.2800,  0.0000],
                [ 0.0000,  0.0000,  1.0000]])
    """
    check_sequence(sequence)
    return euler.euler_to_matrix[sequence](angles)


def check_sequence(sequence: str) -> None:
    """Check that `sequence` is one of the 24."""
    if sequence not in SEQUENCES:
        raise ValueError(
            '`sequence` must be three axes, neighbors different, such as "XYZ" (intrinsic) '
            f'or "zxz" (extrinsic); got {sequence!r}.'
        )


def matrix_to_euler(matrix: Tensor, sequence: str) -> Tensor:
    """Convert rotations to the angles whose `euler_to_matrix` they are.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. A positive factor changes nothing.
    Any other finite matrix, such as a reflection (det < 0), gives the angles of some rotation too, in general
    not the nearest one, which `svdrot.special_orthogonalize` makes.

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

    Example:
        >>> import torch, svdrot
        >>> angles = torch.tensor([0.1, 0.2, 0.3])
        >>> svdrot.matrix_to_euler(svdrot.euler_to_matrix(angles, "XYZ"), "XYZ")
        tensor([0.1000, 0.2000, 0.3000])
    """
    check_sequence(sequence)
    return euler.matrix_to_euler[sequence](matrix)


def euler_to_quaternion(angles: Tensor, sequence: str) -> Tensor:
    """Convert Euler angles to the product of three quaternions about coordinate axes.

    It is one of the two quaternions of `euler_to_matrix`.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.euler_to_quaternion(torch.tensor([0.0, 0.0, 1.0]), "XYZ")
        tensor([0.8776, 0.0000, 0.0000, 0.4794])
    """
    check_sequence(sequence)
    return euler.euler_to_quaternion[sequence](angles)


def quaternion_to_euler(quaternion: Tensor, sequence: str) -> Tensor:
    """Convert quaternions of any nonzero length to Euler angles of their rotations.

    Args:
        quaternion: w x y z, shape (..., 4). `quaternion` and `-quaternion` are the same rotation.
        sequence: three axes, upper case for intrinsic or lower case for extrinsic, neighbors different.

    Returns:
        Angles in radians in the order of `sequence`, shape (..., 3), in the ranges of `matrix_to_euler` and
        with its values at gimbal lock.

    Raises:
        ValueError: if the last dimension is not 4, or `sequence` is not one of the 24.
        TypeError: if `quaternion` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_to_euler(torch.tensor([0.8, 0.0, 0.0, 0.6]), "XYZ")
        tensor([0.0000, 0.0000, 1.2870])
    """
    check_sequence(sequence)
    return euler.quaternion_to_euler[sequence](quaternion)
