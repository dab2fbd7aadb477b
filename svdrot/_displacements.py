"""How far apart two poses put points, and means over those that count."""

import torch
from torch import Tensor

from svdrot._checks import check_items, check_mask, check_shape, common_batch
from svdrot._formulas.geometry import points as formulas
from svdrot._precision import compute_dtype
from svdrot.transform import Transform, check_transform


def counted(points: Tensor, mask: Tensor | None, estimate: Transform, truth: Transform) -> Tensor:
    """Points with 0 in place of what does not count: it may be NaN, and would be in every gradient.

    Checked, together with the poses that are to move them.
    """
    check_shape("points", points, 3)
    if points.ndim < 2:
        raise ValueError(f"`points` must have shape (..., N, 3); got {tuple(points.shape)}.")
    batches = {"points": points.shape[:-2]}
    if mask is not None:
        batches["mask"] = check_mask("mask", mask, points.shape[-2]).shape[:-1]
    check_transform("estimate", estimate)
    check_transform("truth", truth)
    poses = {"estimate": estimate.translation.shape[:-1], "truth": truth.translation.shape[:-1]}
    common_batch(**batches, **poses)
    return points if mask is None else torch.where(mask[..., None], points, 0)


def live(name: str, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Checked values (..., N) and which of them count, of one shape."""
    check_items(name, values)
    if mask is None:
        return values, torch.ones_like(values, dtype=torch.bool)
    n = values.shape[-1]
    check_mask("mask", mask, n)
    batch = common_batch(**{name: values.shape[:-1], "mask": mask.shape[:-1]})
    return values.expand(*batch, n), mask.expand(*batch, n)


def distances(points: Tensor, estimate: Transform, truth: Transform) -> Tensor:
    """How far apart two poses put points (..., N, 3), (..., N), without the rounding of two large terms."""
    return formulas.moved_apart(*_spread(estimate), *_spread(truth), points)


def squared_distances(points: Tensor, estimate: Transform, truth: Transform) -> Tensor:
    return formulas.squared_moved_apart(*_spread(estimate), *_spread(truth), points)


def _spread(transform: Transform) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of a pose, for each of its points; the scale in a dtype to compute in, and so the result."""
    scale = transform.scale.to(compute_dtype(transform.scale))
    return transform.rotation[..., None, :, :], transform.translation[..., None, :], scale[..., None]


def mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(-1)
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1)
