"""How far apart two poses put points, and means over those that count."""

import torch
from torch import Tensor

from svdrot._checks import check_shape, compute_dtype
from svdrot.registration.transform import Transform


def counted(points: Tensor, mask: Tensor | None) -> Tensor:
    """Points with 0 in place of what does not count: it may be NaN, and would be in every gradient."""
    check_shape("points", points, 3)
    return points if mask is None else torch.where(mask[..., None], points, 0)


def displacement(points: Tensor, estimate: Transform, truth: Transform) -> Tensor:
    """estimate.apply(points) - truth.apply(points), without the rounding of two large terms."""
    linear = _scaled(estimate) - _scaled(truth)
    dtype = torch.promote_types(compute_dtype(points), linear.dtype)
    x, linear = points.to(dtype), linear.to(dtype)
    moved = (estimate.translation - truth.translation)[..., None, :]
    for i in range(3):  # not `@`: TF32 on a GPU, bfloat16 under autocast
        moved = moved + x[..., i, None] * linear[..., None, :, i]
    return moved


def _scaled(transform: Transform) -> Tensor:
    return transform.scale[..., None, None] * transform.rotation


def mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(-1)
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1)
