"""Distances between rotations: per element, in radians where they are angles, without reduction."""

from torch import Tensor

from ._formulas import turns


def geodesic_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the angle of the rotation that takes `a` to `b`.

    With $Q = a^\top b$ this is $\operatorname{atan2}(\|(Q - Q^\top)^\vee\|, \operatorname{tr} Q - 1)$: unlike
    `acos((tr Q - 1) / 2)` it keeps full precision, and a finite gradient, at 0 and at pi.

    Args:
        a: rotations, shape (..., 3, 3).
        b: rotations, shape (..., 3, 3); batch dimensions broadcast against those of `a`.

    Returns:
        Angles in radians, shape (...), in [0, pi]. The gradient at exactly 0 and exactly pi is zero.

    Raises:
        ValueError: if the last two dimensions of `a` or `b` are not (3, 3).
        TypeError: if `a` or `b` is not floating point.

    Source:
        Huynh, "Metrics for 3D Rotations", J. Math. Imaging Vis. 35 (2009), metric phi_6.

    Example:
        >>> import math, torch, svdrot
        >>> a = torch.eye(3)
        >>> b = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [math.pi, 0.0, 0.0]]))
        >>> svdrot.geodesic_distance(a, b)
        tensor([0.5000, 3.1416])
    """
    return turns.geodesic_distance(a, b)


def chordal_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Return the Frobenius norm of the difference of two rotations.

    It is $\|a - b\|_F = 2 \sqrt 2 \sin(\theta / 2)$ at the geodesic distance $\theta$.

    Args:
        a: rotations, shape (..., 3, 3).
        b: rotations, shape (..., 3, 3); batch dimensions broadcast against those of `a`.

    Returns:
        Distances, shape (...), in [0, 2 sqrt(2)]. The gradient where `a` equals `b` is zero.

    Raises:
        ValueError: if the last two dimensions of `a` or `b` are not (3, 3).
        TypeError: if `a` or `b` is not floating point.

    Source:
        Huynh, "Metrics for 3D Rotations", J. Math. Imaging Vis. 35 (2009), metric phi_5.

    Example:
        >>> import math, torch, svdrot
        >>> a = torch.eye(3)
        >>> b = svdrot.axis_angle_to_matrix(torch.tensor([[0.0, 0.0, 0.5], [math.pi, 0.0, 0.0]]))
        >>> svdrot.chordal_distance(a, b)
        tensor([0.6998, 2.8284])
    """
    return turns.chordal_distance(a, b)
