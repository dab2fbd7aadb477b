"""Distances between rotations: per element, in radians where they are angles, without reduction."""

import torch
from torch import Tensor

from ._checks import check_shape, common_batch, result_dtype, to_compute


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
    a, b, result = promote(a, b)
    sine, cosine = relative_turn(a, b)
    return torch.atan2(length(sine), cosine).to(result)


def promote(a: Tensor, b: Tensor, names: tuple[str, str] = ("a", "b")) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both in the dtype to compute in, and the dtype of the result."""
    check_shape(names[0], a, 3, 3)
    check_shape(names[1], b, 3, 3)
    if a.shape != b.shape:
        common_batch(**{names[0]: a.shape[:-2], names[1]: b.shape[:-2]})
    common = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(common), b.to(common)
    return to_compute(a, 2), to_compute(b, 2), result_dtype(a)


def relative_turn(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """2 sin(theta) times the axis (..., 3), and 2 cos(theta) (...), of the rotation that takes `a` to `b`."""
    q = (a[..., :, :, None] * b[..., :, None, :]).sum(-3)  # not `@`: bfloat16 under autocast, TF32 on a GPU
    return axial_vector(q), q.diagonal(dim1=-2, dim2=-1).sum(-1) - 1


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
    a, b, result = promote(a, b)
    return length((a - b).flatten(-2)).to(result)
