"""Distances between rotations: per element, in radians where they are angles, without reduction."""

import torch
from torch import Tensor

from ._checks import check_shape, result_dtype, to_compute


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
    a, b, result = _promote(a, b)
    q = (a[..., :, :, None] * b[..., :, None, :]).sum(-3)  # not `@`: bfloat16 under autocast, TF32 on a GPU
    k = q - q.mT
    sine = _length(torch.stack((k[..., 2, 1], k[..., 0, 2], k[..., 1, 0]), -1))
    cosine = q.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2(sine, cosine).to(result)


def _promote(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    check_shape("a", a, 3, 3)
    check_shape("b", b, 3, 3)
    common = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(common), b.to(common)
    return to_compute(a, 2), to_compute(b, 2), result_dtype(a)


def _length(v: Tensor) -> Tensor:
    """Euclidean norm over the last dimension with zero derivatives of every order at zero.

    `torch.linalg.vector_norm` has a NaN second derivative there (torch 2.13).
    """
    squared = (v * v).sum(-1)
    zero = squared == 0
    return torch.where(zero, 0, torch.where(zero, 1, squared).sqrt())


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
    a, b, result = _promote(a, b)
    return _length((a - b).flatten(-2)).to(result)
