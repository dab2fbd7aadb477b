"""Quaternions and the vectors along the axis: rotation vectors and modified Rodrigues parameters.

These three meet in the quaternion, which keeps the sign of the axis at half turns, as a matrix cannot.
"""

from torch import Tensor

from svdrot._formulas import conversions


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    r"""Rotation $v \mapsto q v q^{-1}$ of a quaternion of any nonzero length.

    Args:
        quaternion: w x y z, shape (..., 4). `quaternion` and `-quaternion` are the same rotation.

    Returns:
        Rotations, shape (..., 3, 3). The zero quaternion gives the identity, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Horn, "Closed-form solution of absolute orientation using unit quaternions", J. Opt. Soc. Am. A 4
        (1987).
    """
    return conversions.quaternion_to_matrix(quaternion)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    r"""Unit quaternion of a rotation, with w >= 0.

    The entries of $4 q q^\top$ are linear in those of the rotation, and each column is a multiple of $q$; the
    one with the largest diagonal entry, which is at least 1, is normalized. No rotation divides by less.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4), w in [0, 1]. At a half turn (w = 0) the largest of x, y, z
        is positive. The gradient is finite everywhere, although the quaternion jumps to its negative at half
        turns.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Markley, "Unit Quaternion from Rotation Matrix", J. Guidance, Control, and Dynamics 31 (2008).
    """
    return conversions.matrix_to_quaternion(matrix)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    r"""Exponential map: the rotation about the direction of a vector by its length in radians.

    Args:
        axis_angle: rotation vectors in radians, shape (..., 3).

    Returns:
        Rotations, shape (..., 3, 3). Zero is regular: the identity, and the derivatives of the exponential. A
        length whose square overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    return conversions.axis_angle_to_matrix(axis_angle)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    r"""Logarithm: the vector $2 \operatorname{atan2}(|u|, w)\, u / |u|$ of the unit quaternion $(w, u)$.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        Rotation vectors in radians, shape (..., 3), of length in [0, pi]. The gradient is finite everywhere.
        At a half turn both signs of the vector are right; its largest entry is then positive.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    return conversions.matrix_to_axis_angle(matrix)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    r"""Unit quaternion $(\cos \theta/2,\ \sin \theta/2\; v / \theta)$ of a rotation vector, $\theta = |v|$.

    Args:
        axis_angle: rotation vectors in radians, shape (..., 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4). The map is smooth: w is negative for an angle between pi and
        3 pi. A length whose square overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    return conversions.axis_angle_to_quaternion(axis_angle)


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    r"""Rotation vector of a quaternion of any nonzero length: the logarithm of its rotation.

    Args:
        quaternion: w x y z, shape (..., 4). `quaternion` and `-quaternion` are the same rotation.

    Returns:
        Rotation vectors in radians, shape (..., 3), of length in [0, pi]; at a half turn (w = 0) along x y z.
        The gradient is finite everywhere. The zero quaternion gives zero, with zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Grassia, "Practical Parameterization of Rotations Using the Exponential Map", JGT 3 (1998).
    """
    return conversions.quaternion_to_axis_angle(quaternion)


def mrp_to_quaternion(mrp: Tensor) -> Tensor:
    r"""Unit quaternion of modified Rodrigues parameters $p$: $(1 - |p|^2,\ 2 p) / (1 + |p|^2)$.

    Args:
        mrp: $\tan(\theta / 4)$ times the axis, shape (..., 3).

    Returns:
        Unit quaternions w x y z, shape (..., 4). The map is smooth, and w negative outside the unit ball:
        $p$ and its shadow $-p / |p|^2$ are the same rotation.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `mrp` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    return conversions.mrp_to_quaternion(mrp)


def quaternion_to_mrp(quaternion: Tensor) -> Tensor:
    r"""Modified Rodrigues parameters $u / (1 + w)$ of the unit quaternion $(w, u)$ with $w \ge 0$.

    Args:
        quaternion: w x y z of any nonzero length, shape (..., 4).

    Returns:
        $\tan(\theta / 4)$ times the axis, shape (..., 3), of length in [0, 1]: of the two sets of parameters,
        each the shadow of the other, the one in the unit ball. Its length is 1 at a half turn, where both are
        right and this is along x y z. The gradient is finite everywhere; the zero quaternion gives zero, with
        zero gradient.

    Raises:
        ValueError: if the last dimension is not 4.
        TypeError: if `quaternion` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    return conversions.quaternion_to_mrp(quaternion)


def mrp_to_matrix(mrp: Tensor) -> Tensor:
    r"""Rotation of modified Rodrigues parameters.

    Args:
        mrp: $\tan(\theta / 4)$ times the axis, shape (..., 3), of any length.

    Returns:
        Rotations, shape (..., 3, 3). Smooth everywhere; parameters of infinite length would be the identity.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `mrp` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    return conversions.mrp_to_matrix(mrp)


def matrix_to_mrp(matrix: Tensor) -> Tensor:
    r"""Modified Rodrigues parameters of a rotation: `quaternion_to_mrp` of its quaternion.

    Args:
        matrix: rotations, shape (..., 3, 3).

    Returns:
        $\tan(\theta / 4)$ times the axis, shape (..., 3), of length in [0, 1]. The gradient is finite
        everywhere. At a half turn both signs are right; the largest entry is then positive.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).
    """
    return conversions.matrix_to_mrp(matrix)
