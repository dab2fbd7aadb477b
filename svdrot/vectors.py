"""Vectors, directions and angles: skew matrices, rotations between directions, cameras, the circle."""

from typing import Literal

import torch
from torch import Tensor

from ._checks import check_choice, check_floating, check_items, common_batch
from ._formulas.geometry import angles, directions, skew
from ._precision import compute_dtype, result_dtype
from ._stand_ins import takes_arrays


def hat(vector: Tensor) -> Tensor:
    r"""Return the skew matrix $[v]_\times$ whose product with a vector is the cross product with it.

    Args:
        vector: v, shape (..., 3).

    Returns:
        Skew matrices, shape (..., 3, 3), linear in `vector`.

    Raises:
        ValueError: if the last dimension is not 3.
        TypeError: if `vector` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        example 3.

    Example:
        >>> import torch, svdrot
        >>> svdrot.hat(torch.tensor([1.0, 2.0, 3.0]))
        tensor([[ 0., -3.,  2.],
                [ 3.,  0., -1.],
                [-2.,  1.,  0.]])
    """
    return skew.hat(vector)


def vee(matrix: Tensor) -> Tensor:
    r"""Return the vector of a skew matrix: the inverse of `hat`.

    Of any other matrix it is that of the nearest skew one, $(M - M^\top) / 2$; of a rotation by the angle
    $\theta$ it is the axis times $\sin \theta$.

    Args:
        matrix: shape (..., 3, 3).

    Returns:
        Vectors, shape (..., 3), linear in `matrix`.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        example 3.

    Example:
        >>> import torch, svdrot
        >>> svdrot.vee(svdrot.hat(torch.tensor([1.0, 2.0, 3.0])))
        tensor([1., 2., 3.])
    """
    return skew.vee(matrix)


def rotation_angle(matrix: Tensor) -> Tensor:
    r"""Return the angle of a rotation: its geodesic distance from the identity.

    It is $\operatorname{atan2}(\|(R - R^\top)^\vee\|, \operatorname{tr} R - 1)$, which keeps full precision
    at 0 and at pi, where `acos((tr R - 1) / 2)` has half of it.

    Args:
        matrix: rotations, shape (..., 3, 3). Nothing checks that; `svdrot.is_rotation` does.

    Returns:
        Angles in radians, shape (...), in [0, pi]. The gradient at exactly 0 and exactly pi is zero.

    Raises:
        ValueError: if the last two dimensions are not (3, 3).
        TypeError: if `matrix` is not floating point.

    Source:
        Huynh, "Metrics for 3D Rotations", J. Math. Imaging Vis. 35 (2009), metric phi_6.

    Example:
        >>> import torch, svdrot
        >>> turns = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 1e-6, 0.0], [3.0, 0.0, 0.0]]))
        >>> svdrot.rotation_angle(turns)
        tensor([1.0000e-06, 3.0000e+00])
    """
    return skew.rotation_angle(matrix)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the angle between two directions, $\operatorname{atan2}(|a \times b|, a \cdot b)$.

    Args:
        a: vectors of any nonzero length, shape (..., 3).
        b: vectors of any nonzero length, shape (..., 3); batch dimensions broadcast.

    Returns:
        Angles in radians, shape (...), in [0, pi], right to rounding at both ends, where `acos` has half of
        the digits. The gradient at exactly 0 and exactly pi is zero. A zero vector has no direction, and is
        at angle 0 to any other, with zero gradient.

    Raises:
        ValueError: if the last dimensions are not 3, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Kahan, "How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?" (2006),
        section 12.

    Example:
        >>> import torch, svdrot
        >>> a = torch.tensor([1.0, 0.0, 0.0])
        >>> svdrot.angle_between(a, torch.tensor([[1.0, 1e-6, 0.0], [0.0, 0.0, 7.0], [-2.0, 0.0, 0.0]]))
        tensor([1.0000e-06, 1.5708e+00, 3.1416e+00])
    """
    return directions.angle_between(a, b)


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the smallest rotation that takes the direction of one vector to that of another.

    Its axis is $a \times b$. It is smooth wherever the directions are not opposite, also where they are the
    same.

    Args:
        a: vectors of any nonzero length, shape (..., 3).
        b: vectors of any nonzero length, shape (..., 3); batch dimensions broadcast.

    Returns:
        Rotations R, shape (..., 3, 3), with R a parallel to b to rounding, everywhere. For opposite vectors
        (within 8 eps) every half turn about an axis perpendicular to `a` is as small, and one is taken that
        depends on `a` alone; next to them the derivative grows as 1 / (pi - angle), to the precision of the
        axis. The gradient there is finite, and such that R a stays parallel to b. A zero vector has no
        direction: the identity, with zero gradient.

    Raises:
        ValueError: if the last dimensions are not 3, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Möller and Hughes, "Efficiently Building a Matrix to Rotate One Vector to Another", J. Graphics
        Tools 4 (1999), for angles up to a right one; beyond, see the formula.

    Example:
        >>> import torch, svdrot
        >>> a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 5.0, 0.0])
        >>> svdrot.rotation_between(a, b)
        tensor([[ 0., -1.,  0.],
                [ 1.,  0.,  0.],
                [ 0.,  0.,  1.]])
        >>> svdrot.rotation_between(a, -a)
        tensor([[-1.,  0.,  0.],
                [ 0., -1.,  0.],
                [ 0.,  0.,  1.]])
    """
    return directions.rotation_between(a, b)


def look_at(
    eye: Tensor, target: Tensor, up: Tensor, convention: Literal["opencv", "opengl"] = "opencv"
) -> Tensor:
    r"""Return the rotation from the world to a camera that looks at a point.

    A point x of the world is at R (x - eye) in the frame of the camera: R is the rotation of OpenCV's
    extrinsic parameters and of OpenGL's view matrix, its rows are the axes of the camera in the world. The
    orientation of the camera in the world is its transpose.

    Args:
        eye: where the camera is, shape (..., 3).
        target: what it looks at, shape (..., 3).
        up: which way is up, of any length, shape (..., 3): in the image, up is the part of it that is
            perpendicular to the view. Batch dimensions broadcast.
        convention: the axes of the camera: "opencv", x to the right, y down, z forward, or "opengl", x to the
            right, y up, z backward.

    Returns:
        Rotations R, shape (..., 3, 3). Where `up` is along the view, or zero, some direction is up that
        depends on the view alone; gradients stay finite. Where `target` is `eye` it is the identity, with
        zero gradient.

    Raises:
        ValueError: if the last dimensions are not 3, the others do not broadcast, or `convention` is neither.
        TypeError: if an argument is not floating point.

    Source:
        Marschner and Shirley, "Fundamentals of Computer Graphics", section on the camera transformation.

    Example:
        >>> import torch, svdrot
        >>> eye, target = torch.tensor([0.0, 0.0, 5.0]), torch.zeros(3)
        >>> svdrot.look_at(eye, target, torch.tensor([0.0, 1.0, 0.0]), "opengl")
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    if convention not in directions.LOOK_AT:
        check_choice("convention", convention, directions.LOOK_AT)
    return directions.LOOK_AT[convention](eye, target, up)


def wrap_angle(angle: Tensor) -> Tensor:
    """Return the angle within half a turn of zero that differs from an angle by whole turns.

    Args:
        angle: radians, any shape.

    Returns:
        Angles in radians, in [-pi, pi], of the shape of `angle`; those that are in it already are left as
        they are, both ends too. Right to rounding however far off the argument is. The derivative is 1
        everywhere.

    Raises:
        TypeError: if `angle` is not floating point.

    Example:
        >>> import torch, svdrot
        >>> svdrot.wrap_angle(torch.tensor([0.5, 3.5, -10.0]))
        tensor([ 0.5000, -2.7832,  2.5664])
    """
    return angles.wrap(angle)


@takes_arrays
def circular_mean(angle: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Return the mean of angles on the circle, the direction of $\sum w_i (\cos t_i, \sin t_i)$.

    Args:
        angle: radians, shape (..., N).
        weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.

    Returns:
        Angles in radians, shape (...), in [-pi, pi], summed in float64. Whole turns added to an angle
        change nothing. No angles or a total weight of 0 give 0 with zero gradient; of angles that cancel, as
        opposite ones do, no direction is the mean, and what rounding leaves of their sum says which one is
        returned. A negative weight gives NaN for its item, and so does NaN or infinity, but in an angle of
        weight 0.

    Raises:
        ValueError: if `angle` has no dimension, or `weights` does not fit.
        TypeError: if an argument is not floating point.

    Source:
        Mardia and Jupp, "Directional Statistics" (2000), section 2.2.

    Example:
        >>> import math, torch, svdrot
        >>> svdrot.circular_mean(torch.tensor([math.pi - 0.1, 0.3 - math.pi]))
        tensor(-3.0416)
    """
    check_items("angle", angle)
    if weights is None:
        weights = torch.ones((), dtype=torch.float64, device=angle.device)
    else:
        check_floating("weights", weights)
        if weights.shape[-1:] != angle.shape[-1:]:
            raise ValueError(
                f"`weights` must have shape (..., {angle.shape[-1]}); got {tuple(weights.shape)}."
            )
        common_batch(angle=angle.shape[:-1], weights=weights.shape[:-1])
    parts = angles.on_circle(angle.double(), weights.double())
    sums = parts.sum(-2).to(compute_dtype(angle))  # onnxruntime has no arc tangent in float64
    return angles.direction(sums).to(result_dtype(angle))
