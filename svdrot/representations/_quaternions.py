"""Quaternions and the vectors along the axis: rotation vectors and modified Rodrigues parameters.

These three meet in the quaternion, which keeps the sign of the axis at half turns, as a matrix cannot.
"""

from torch import Tensor

from svdrot._formulas import conversions


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    r"""Convert quaternions of any nonzero length to their rotations $v \mapsto q v q^{-1}$.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_to_matrix(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        tensor([[ 0.2800, -0.9600,  0.0000],
                [ 0.9600,  0.2800,  0.0000],
                [ 0.0000,  0.0000,  1.0000]])
    """
    return conversions.quaternion_to_matrix(quaternion)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    r"""Convert rotations to unit quaternions with w >= 0.

    The entries of $4 q q^\top$ are linear in those of the rotation, and each column is a multiple of $q$; the
    one with the largest diagonal entry, which is at least 1, is normalized. No rotation divides by less.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. Any other finite matrix, such as a
    reflection (det < 0) or a multiple of a rotation, gives the unit quaternion of some rotation too, in
    general not the nearest one, which `svdrot.special_orthogonalize` makes.

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

    Example:
        >>> import torch, svdrot
        >>> turn = torch.tensor([[0.28, -0.96, 0.0], [0.96, 0.28, 0.0], [0.0, 0.0, 1.0]])
        >>> svdrot.matrix_to_quaternion(turn)
        tensor([0.8000, 0.0000, 0.0000, 0.6000])
    """
    return conversions.matrix_to_quaternion(matrix)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Convert rotation vectors to rotations: the exponential map.

    The rotation is about the direction of the vector, by its length in radians.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]))
        tensor([[ 0.5403, -0.8415,  0.0000],
                [ 0.8415,  0.5403,  0.0000],
                [ 0.0000,  0.0000,  1.0000]])
    """
    return conversions.axis_angle_to_matrix(axis_angle)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    r"""Convert rotations to rotation vectors: the logarithm.

    It is $2 \operatorname{atan2}(|u|, w)\, u / |u|$ of the unit quaternion $(w, u)$.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. Any other finite matrix, such as a
    reflection (det < 0) or a multiple of a rotation, gives the rotation vector of some rotation too, in
    general not the nearest one, which `svdrot.special_orthogonalize` makes.

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

    Example:
        >>> import torch, svdrot
        >>> turn = torch.tensor([[0.28, -0.96, 0.0], [0.96, 0.28, 0.0], [0.0, 0.0, 1.0]])
        >>> svdrot.matrix_to_axis_angle(turn)
        tensor([0.0000, 0.0000, 1.2870])
    """
    return conversions.matrix_to_axis_angle(matrix)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    r"""Convert rotation vectors to unit quaternions.

    It is $(\cos \theta/2,\ \sin \theta/2\; v / \theta)$ with $\theta = |v|$, regular at zero.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.axis_angle_to_quaternion(torch.tensor([0.0, 0.0, 1.0]))
        tensor([0.8776, 0.0000, 0.0000, 0.4794])
    """
    return conversions.axis_angle_to_quaternion(axis_angle)


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Convert quaternions of any nonzero length to rotation vectors: the logarithm of their rotations.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_to_axis_angle(torch.tensor([0.8, 0.0, 0.0, 0.6]))
        tensor([0.0000, 0.0000, 1.2870])
    """
    return conversions.quaternion_to_axis_angle(quaternion)


def mrp_to_quaternion(mrp: Tensor) -> Tensor:
    r"""Convert modified Rodrigues parameters $p$ to unit quaternions $(1 - |p|^2,\ 2 p) / (1 + |p|^2)$.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.mrp_to_quaternion(torch.tensor([0.0, 0.0, 0.5]))
        tensor([0.6000, 0.0000, 0.0000, 0.8000])
    """
    return conversions.mrp_to_quaternion(mrp)


def quaternion_to_mrp(quaternion: Tensor) -> Tensor:
    r"""Convert quaternions to modified Rodrigues parameters.

    It is $u / (1 + w)$ of the unit quaternion $(w, u)$ with $w \ge 0$.

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

    Example:
        >>> import torch, svdrot
        >>> svdrot.quaternion_to_mrp(torch.tensor([0.6, 0.0, 0.0, 0.8]))
        tensor([0.0000, 0.0000, 0.5000])
    """
    return conversions.quaternion_to_mrp(quaternion)


def mrp_to_matrix(mrp: Tensor) -> Tensor:
    r"""Convert modified Rodrigues parameters to rotations.

    Args:
        mrp: $\tan(\theta / 4)$ times the axis, shape (..., 3), of any length.

    Returns:
        Rotations, shape (..., 3, 3). Smooth everywhere; parameters of infinite length would be the identity.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `mrp` is not floating point.

    Source:
        Shuster, "A Survey of Attitude Representations", J. Astronautical Sciences 41 (1993).

    Example:
        >>> import torch, svdrot
        >>> svdrot.mrp_to_matrix(torch.tensor([0.0, 0.0, 0.5]))
        tensor([[-0.2800, -0.9600,  0.0000],
                [ 0.9600, -0.2800,  0.0000],
                [ 0.0000,  0.0000,  1.0000]])
    """
    return conversions.mrp_to_matrix(mrp)


def matrix_to_mrp(matrix: Tensor) -> Tensor:
    r"""Convert rotations to modified Rodrigues parameters: `quaternion_to_mrp` of their quaternions.

    Nothing checks that `matrix` is a rotation; `svdrot.is_rotation` does. Any other finite matrix, such as a
    reflection (det < 0) or a multiple of a rotation, gives the parameters of some rotation too, in general
    not the nearest one, which `svdrot.special_orthogonalize` makes.

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

    Example:
        >>> import torch, svdrot
        >>> turn = torch.tensor([[0.28, -0.96, 0.0], [0.96, 0.28, 0.0], [0.0, 0.0, 1.0]])
        >>> svdrot.matrix_to_mrp(turn)
        tensor([0.0000, 0.0000, 0.3333])
    """
    return conversions.matrix_to_mrp(matrix)
