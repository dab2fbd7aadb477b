r"""The Lie group SO(3): derivatives of its exponential, and rotations split into swing and twist.

The exponential and the logarithm are `svdrot.axis_angle_to_matrix` and `svdrot.matrix_to_axis_angle`, at a
rotation `svdrot.exp_map` and `svdrot.log_map`; `svdrot.hat` and `svdrot.vee` are between vectors and the Lie
algebra. The adjoint of a rotation is the rotation itself, and that of a vector its `hat`.
"""

from torch import Tensor

from ._formulas.geometry import so3


def so3_left_jacobian(axis_angle: Tensor) -> Tensor:
    r"""Return the left Jacobian $J$ of the exponential: $\exp(v + \delta) \approx \exp(J \delta) \exp(v)$.

    Args:
        axis_angle: rotation vectors v in radians, shape (..., 3).

    Returns:
        Matrices, shape (..., 3, 3), smooth everywhere: the identity at zero, and singular where the length of
        v is a whole number of turns. A length whose square overflows (1e19 in float32) gives NaN in its
        place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 145; Barfoot, "State Estimation for Robotics" (2017), section 7.1.5.

    Example:
        >>> import torch, svdrot
        >>> v, step = torch.tensor([0.3, -0.5, 1.0]), torch.tensor([1e-3, 0.0, 0.0])
        >>> turned = svdrot.axis_angle_to_matrix(svdrot.so3_left_jacobian(v) @ step)
        >>> expected = svdrot.axis_angle_to_matrix(v + step)
        >>> torch.allclose(turned @ svdrot.axis_angle_to_matrix(v), expected, atol=1e-6)
        True
    """
    return so3.left_jacobian(axis_angle)


def so3_right_jacobian(axis_angle: Tensor) -> Tensor:
    r"""Return the right Jacobian $J$ of the exponential: $\exp(v + \delta) \approx \exp(v) \exp(J \delta)$.

    It is the transpose of the left one.

    Args:
        axis_angle: rotation vectors v in radians, shape (..., 3).

    Returns:
        Matrices, shape (..., 3, 3), as `so3_left_jacobian` of the negative vectors.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 143.

    Example:
        >>> import torch, svdrot
        >>> v, step = torch.tensor([0.3, -0.5, 1.0]), torch.tensor([1e-3, 0.0, 0.0])
        >>> turned = svdrot.exp_map(svdrot.axis_angle_to_matrix(v), svdrot.so3_right_jacobian(v) @ step)
        >>> torch.allclose(turned, svdrot.axis_angle_to_matrix(v + step), atol=1e-6)
        True
    """
    return so3.right_jacobian(axis_angle)


def so3_left_jacobian_inverse(axis_angle: Tensor) -> Tensor:
    r"""Return the inverse of the left Jacobian: $\log(\exp(\delta) \exp(v)) \approx v + J^{-1} \delta$.

    Args:
        axis_angle: rotation vectors v in radians, shape (..., 3).

    Returns:
        Matrices, shape (..., 3, 3): the identity at zero, exact at a half turn, and growing as 1 / (distance
        from a whole turn) where the length of v comes near 2 pi, or a multiple of it, where there is no
        inverse. No floating-point number is such a multiple, so that it is finite; next to one rounding is
        magnified alike. A length whose square overflows (1e19 in float32) gives NaN in its place.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 146.

    Example:
        >>> import torch, svdrot
        >>> v = torch.tensor([0.3, -0.5, 1.0])
        >>> one = svdrot.so3_left_jacobian_inverse(v) @ svdrot.so3_left_jacobian(v)
        >>> torch.allclose(one, torch.eye(3), atol=1e-6)
        True
    """
    return so3.left_jacobian_inverse(axis_angle)


def so3_right_jacobian_inverse(axis_angle: Tensor) -> Tensor:
    r"""Return the inverse of the right Jacobian: $\log(\exp(v) \exp(\delta)) \approx v + J^{-1} \delta$.

    It is the transpose of that of the left one.

    Args:
        axis_angle: rotation vectors v in radians, shape (..., 3).

    Returns:
        Matrices, shape (..., 3, 3), as `so3_left_jacobian_inverse` of the negative vectors, with its
        singularities at whole turns.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `axis_angle` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 144.

    Example:
        >>> import torch, svdrot
        >>> v = torch.tensor([0.3, -0.5, 1.0])
        >>> one = svdrot.so3_right_jacobian_inverse(v) @ svdrot.so3_right_jacobian(v)
        >>> torch.allclose(one, torch.eye(3), atol=1e-6)
        True
    """
    return so3.right_jacobian_inverse(axis_angle)


def swing_twist(rotation: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    r"""Split rotations into a turn about an axis, and then the smallest one that tilts the axis: R = S T.

    The twist T is the rotation about the axis that is nearest to R; the swing S is the smallest rotation
    that takes the axis to where R takes it, and turns about something perpendicular to it.

    Args:
        rotation: R, shape (..., 3, 3).
        axis: of the twist, of any nonzero length, shape (..., 3); batch dimensions broadcast.

    Returns:
        Swing and twist, each of shape (..., 3, 3). Where R takes the axis to its opposite, every twist is as
        near: it is the identity, and the swing all of R, with finite gradient; next to it the derivative
        grows as 1 / (pi - angle of the swing). A zero axis gives the identity and all of R, too.

    Raises:
        ValueError: if the last dimensions are not (3, 3) and 3, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Dobrowolski, "Swing-twist decomposition in Clifford algebra", arXiv 1506.05481.

    Example:
        >>> import torch, svdrot
        >>> rotation = svdrot.euler_to_matrix(torch.tensor([0.2, 0.0, 0.7]), "XYZ")
        >>> swing, twist = svdrot.swing_twist(rotation, torch.tensor([0.0, 0.0, 1.0]))
        >>> svdrot.rotation_angle(swing), svdrot.rotation_angle(twist)
        (tensor(0.2000), tensor(0.7000))
    """
    return so3.swing_twist(rotation, axis)
