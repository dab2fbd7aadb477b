r"""The Lie groups SE(3) and Sim(3): exponential, logarithm, adjoint, and derivatives of the exponential.

A twist of SE(3) is $(\omega, v)$, in this order: a rotation vector in radians and a translation part in the
units of the translation, the matrix $[[[\omega]_\times, v], [0, 0]]$. In a twist of Sim(3) the logarithm of
the scale follows, $(\omega, v, \lambda)$, the matrix $[[[\omega]_\times + \lambda I, v], [0, 0]]$. Tangents
are of the frame before a transform, $T \exp(\xi)$, unless they are said to be of the one after it, $\exp(\xi)
T$; the adjoint goes from the former to the latter.
"""

from torch import Tensor

from ._formulas.geometry import se3
from ._stand_ins import takes_arrays
from .transform import Transform, check_transform


@takes_arrays
def se3_exp(twist: Tensor) -> Transform:
    r"""Return the rigid transform $\exp \xi$ of a twist: a screw motion at this velocity for a unit of time.

    Args:
        twist: $\xi = (\omega, v)$, shape (..., 6): the rotation vector in radians, then the translation part.

    Returns:
        Transforms of batch shape (...), of scale 1: the rotation $\exp [\omega]_\times$, and the translation
        $J v$ with the left Jacobian of SO(3). Derivatives of every order are those of the exponential, zero
        included.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `twist` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        appendix D.

    Example:
        >>> import math, torch, svdrot
        >>> quarter = svdrot.se3_exp(torch.tensor([0.0, 0.0, math.pi / 2, math.pi / 2, 0.0, 1.0]))
        >>> quarter.translation
        tensor([1.0000, 1.0000, 1.0000])
    """
    return Transform(*se3.exponential(twist))


def se3_log(transform: Transform) -> Tensor:
    r"""Return the shortest twist of a rigid transform, $\xi$ with $\exp \xi = T$.

    Args:
        transform: T, of batch shape (...), in space, of scale 1.

    Returns:
        Twists $(\omega, v)$, shape (..., 6), $|\omega|$ in [0, pi]. At a half turn both signs of $\omega$ are
        right, and one is returned. The gradient is finite everywhere. A scale that is off 1 by more than 64
        units of rounding gives NaN in its row; see `sim3_log`.

    Raises:
        ValueError: if `transform` is not of three dimensions, or its parts do not broadcast.
        TypeError: if `transform` is not a `Transform`.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        appendix D.

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> torch.allclose(svdrot.se3_log(svdrot.se3_exp(twist)), twist, atol=1e-6)
        True
    """
    check_transform("transform", transform)
    return transform.log()


def se3_adjoint(transform: Transform) -> Tensor:
    r"""Return the adjoint: $T \exp(\xi) T^{-1} = \exp(\mathrm{Ad}_T\, \xi)$, for twists $\xi$ of SE(3).

    Args:
        transform: T, of batch shape (...), in space; its scale may be any.

    Returns:
        Matrices, shape (..., 6, 6), $[[R, 0], [[t]_\times R, s R]]$ in the order $(\omega, v)$. That of a
        product is the product of those of its factors.

    Raises:
        ValueError: if `transform` is not of three dimensions, or its parts do not broadcast.
        TypeError: if `transform` is not a `Transform`.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        appendix D.

    Example:
        >>> import torch, svdrot
        >>> pose, twist = svdrot.se3_exp(torch.ones(6)), torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> after = pose @ svdrot.se3_exp(twist) @ pose.inverse()
        >>> torch.allclose(after.matrix, svdrot.se3_exp(svdrot.se3_adjoint(pose) @ twist).matrix, atol=1e-5)
        True
    """
    check_transform("transform", transform)
    return se3.adjoint(transform.rotation, transform.translation, transform.scale)


def se3_left_jacobian(twist: Tensor) -> Tensor:
    r"""Return the left Jacobian $J$ of $\exp$: $\exp(\xi + \delta) \approx \exp(J \delta) \exp(\xi)$.

    Args:
        twist: $\xi = (\omega, v)$, shape (..., 6), radians first.

    Returns:
        Matrices, shape (..., 6, 6), smooth everywhere: the identity at zero, and singular where
        $|\omega|$ is a whole number of turns. In the order $(\omega, v)$ they are $[[J, 0], [D, J]]$ of the
        left Jacobian J of SO(3) at $\omega$ and its derivative D along v.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `twist` is not floating point.

    Source:
        Barfoot, "State Estimation for Robotics" (2017), section 7.1.5, with rotation first.

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> step = torch.tensor([1e-3, 0.0, 0.0, 0.0, 1e-3, 0.0])
        >>> moved = svdrot.se3_exp(svdrot.se3_left_jacobian(twist) @ step) @ svdrot.se3_exp(twist)
        >>> torch.allclose(moved.matrix, svdrot.se3_exp(twist + step).matrix, atol=1e-5)
        True
    """
    return se3.left_jacobian(twist)


def se3_right_jacobian(twist: Tensor) -> Tensor:
    r"""Return the right Jacobian $J$ of $\exp$: $\exp(\xi + \delta) \approx \exp(\xi) \exp(J \delta)$.

    Args:
        twist: $\xi = (\omega, v)$, shape (..., 6), radians first.

    Returns:
        Matrices, shape (..., 6, 6), as `se3_left_jacobian` of the negative twists.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `twist` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        appendix D.

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> step = torch.tensor([1e-3, 0.0, 0.0, 0.0, 1e-3, 0.0])
        >>> moved = svdrot.se3_exp(twist) @ svdrot.se3_exp(svdrot.se3_right_jacobian(twist) @ step)
        >>> torch.allclose(moved.matrix, svdrot.se3_exp(twist + step).matrix, atol=1e-5)
        True
    """
    return se3.right_jacobian(twist)


def se3_left_jacobian_inverse(twist: Tensor) -> Tensor:
    r"""Return the inverse of the left Jacobian: $\log(\exp(\delta) \exp(\xi)) \approx \xi + J^{-1} \delta$.

    Args:
        twist: $\xi = (\omega, v)$, shape (..., 6), radians first.

    Returns:
        Matrices, shape (..., 6, 6): the identity at zero, exact at a half turn, and growing as the square of
        1 / (distance from a whole turn) where $|\omega|$ comes near 2 pi, or a multiple of it, where there is
        no inverse.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `twist` is not floating point.

    Source:
        Barfoot, "State Estimation for Robotics" (2017), section 7.1.5, with rotation first.

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> one = svdrot.se3_left_jacobian_inverse(twist) @ svdrot.se3_left_jacobian(twist)
        >>> torch.allclose(one, torch.eye(6), atol=1e-6)
        True
    """
    return se3.left_jacobian_inverse(twist)


def se3_right_jacobian_inverse(twist: Tensor) -> Tensor:
    r"""Return the inverse of the right Jacobian: $\log(\exp(\xi) \exp(\delta)) \approx \xi + J^{-1} \delta$.

    Args:
        twist: $\xi = (\omega, v)$, shape (..., 6), radians first.

    Returns:
        Matrices, shape (..., 6, 6), as `se3_left_jacobian_inverse` of the negative twists, with its
        singularities at whole turns.

    Raises:
        ValueError: if the last dimension is not 6.
        TypeError: if `twist` is not floating point.

    Source:
        Barfoot, "State Estimation for Robotics" (2017), section 7.1.5, with rotation first.

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0])
        >>> one = svdrot.se3_right_jacobian_inverse(twist) @ svdrot.se3_right_jacobian(twist)
        >>> torch.allclose(one, torch.eye(6), atol=1e-6)
        True
    """
    return se3.right_jacobian_inverse(twist)


@takes_arrays
def sim3_exp(twist: Tensor) -> Transform:
    r"""Return the similarity $\exp \xi$ of a twist with the logarithm of a scale.

    Args:
        twist: $\xi = (\omega, v, \lambda)$, shape (..., 7): the rotation vector in radians, the translation
            part, and the logarithm of the scale.

    Returns:
        Transforms of batch shape (...): the scale $e^\lambda$, the rotation $\exp [\omega]_\times$, and the
        translation $\int_0^1 e^{s ([\omega]_\times + \lambda I)} ds\; v$, for $\lambda = 0$ as `se3_exp`.
        Derivatives are those of the exponential, zero included. A scale that overflows gives NaN or infinity.

    Raises:
        ValueError: if the last dimension is not 7.
        TypeError: if `twist` is not floating point.

    Source:
        Strasdat, "Local Accuracy and Global Consistency for Efficient Visual SLAM", PhD thesis, Imperial
        College London (2012).

    Example:
        >>> import math, torch, svdrot
        >>> double = svdrot.sim3_exp(torch.tensor([0.0, 0.0, 0.0, math.log(2), 0.0, 0.0, math.log(2)]))
        >>> double.apply(torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([[3., 2., 0.]])
    """
    return Transform(*se3.similar_exponential(twist))


def sim3_log(transform: Transform) -> Tensor:
    r"""Return the shortest twist of a similarity, $\xi$ with $\exp \xi = T$.

    Args:
        transform: T, of batch shape (...), in space, of positive scale.

    Returns:
        Twists $(\omega, v, \lambda)$, shape (..., 7), $|\omega|$ in [0, pi]: the rotation vector, the
        translation part and the logarithm of the scale. At a half turn both signs of $\omega$ are right, and
        one is returned. The gradient is finite everywhere. A scale of 0 or less gives NaN or infinity.

    Raises:
        ValueError: if `transform` is not of three dimensions, or its parts do not broadcast.
        TypeError: if `transform` is not a `Transform`.

    Source:
        Strasdat, "Local Accuracy and Global Consistency for Efficient Visual SLAM", PhD thesis, Imperial
        College London (2012).

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0, 0.7])
        >>> torch.allclose(svdrot.sim3_log(svdrot.sim3_exp(twist)), twist, atol=1e-6)
        True
    """
    check_transform("transform", transform)
    return se3.similar_logarithm(transform.rotation, transform.translation, transform.scale)


def sim3_adjoint(transform: Transform) -> Tensor:
    r"""Return the adjoint: $T \exp(\xi) T^{-1} = \exp(\mathrm{Ad}_T\, \xi)$, for twists $\xi$ of Sim(3).

    Args:
        transform: T, of batch shape (...), in space, of any positive scale.

    Returns:
        Matrices, shape (..., 7, 7), in the order $(\omega, v, \lambda)$: that of `se3_adjoint`, and
        $-t$ from $\lambda$ to v.

    Raises:
        ValueError: if `transform` is not of three dimensions, or its parts do not broadcast.
        TypeError: if `transform` is not a `Transform`.

    Source:
        Strasdat, "Local Accuracy and Global Consistency for Efficient Visual SLAM", PhD thesis, Imperial
        College London (2012).

    Example:
        >>> import torch, svdrot
        >>> twist = torch.tensor([0.3, -0.5, 1.0, 2.0, 0.0, 1.0, 0.2])
        >>> pose = svdrot.sim3_exp(torch.ones(7) / 2)
        >>> after = pose @ svdrot.sim3_exp(twist) @ pose.inverse()
        >>> torch.allclose(after.matrix, svdrot.sim3_exp(svdrot.sim3_adjoint(pose) @ twist).matrix, atol=1e-5)
        True
    """
    check_transform("transform", transform)
    return se3.similar_adjoint(transform.rotation, transform.translation, transform.scale)
