"""Distances between rotations: per element, in radians where they are angles, without reduction."""

import torch
from torch import Tensor

from .formulas import turns


def geodesic_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Angle of the rotation that takes `a` to `b`.

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
    """
    return turns.geodesic_distance(a, b)


def axial_vector(q: Tensor) -> Tensor:
    """Of the skew matrix q - qᵀ, whose product with a vector is a cross product: (..., 3, 3) -> (..., 3)."""
    k = q - q.mT
    return torch.stack((k[..., 2, 1], k[..., 0, 2], k[..., 1, 0]), -1)


def length(v: Tensor) -> Tensor:
    """Euclidean norm over the last dimension with zero derivatives of every order at zero.

    `torch.linalg.vector_norm` has a NaN second derivative there (torch 2.13). The largest entry is taken out,
    as a constant, which changes no derivative: the second one of the root of a square is its power -3/2, and
    leaves float32 for a length of 1e-13.
    """
    largest = v.detach().abs().amax(-1, keepdim=True)
    zero = largest == 0
    unit = v / torch.where(zero, 1, largest)
    squared = torch.where(zero[..., 0], 1, (unit * unit).sum(-1))
    return largest[..., 0] * squared.sqrt()


def root(x: Tensor) -> Tensor:
    """Square root of what is not negative, with zero derivatives at zero."""
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x).sqrt())


def chordal_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Frobenius norm $\|a - b\|_F$, which is $2 \sqrt 2 \sin(\theta / 2)$ at the geodesic distance $\theta$.

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
    """
    return turns.chordal_distance(a, b)
