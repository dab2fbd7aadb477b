"""Losses between poses: how far apart they put the points of a model. The metrics, differentiable throughout.

A pose is a `svdrot.registration.Transform`, or a pair of a rotation (..., 3, 3) and a translation (..., 3).
"""

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._displacements import counted, distances, mean
from svdrot._formulas.geometry.points import distance
from svdrot._precision import result_dtype, to_compute
from svdrot._stand_ins import takes_arrays
from svdrot.registration import nearest
from svdrot.transform import Transform, check_transform

Pose = Transform | tuple[Tensor, Tensor]


@takes_arrays
def add(estimate: Pose, truth: Pose, points: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean distance between where two poses put the points of a model (ADD).

    It is the metric `svdrot.evaluation.poses.add`, differentiable.

    Args:
        estimate: `Transform`, or pair of rotations (..., 3, 3) and translations (..., 3).
        truth: `Transform` or pair; batch dimensions broadcast.
        points: of the model, in its own frame, shape (..., N, 3).
        mask: boolean, shape (..., N): points that count. All if None.

    Returns:
        Shape (...), in the units of the points; NaN if no point counts. Where the two poses are equal every
        derivative is zero.

    Raises:
        ValueError: if a shape is wrong.
        TypeError: if `points` is not floating point, or a pose is one tensor: a rotation needs a translation.

    Source:
        Hinterstoisser et al., ACCV 2012; as a loss Xiang et al., "PoseCNN", RSS 2018.

    Example:
        >>> import torch, svdrot
        >>> points = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
        >>> truth = torch.eye(3), torch.zeros(3)
        >>> estimate = torch.eye(3), torch.tensor([0.0, 0.3, 0.4])
        >>> svdrot.losses.add(estimate, truth, points)
        tensor(0.5000)
    """
    a, b = _transform("estimate", estimate), _transform("truth", truth)
    return mean(distances(counted(points, mask, a, b), a, b), mask).to(_result(estimate, points))


def _transform(name: str, pose: Pose) -> Transform:
    """Return a pose as a checked `Transform`."""
    if isinstance(pose, Transform):
        check_transform(name, pose)
        return pose
    if not isinstance(pose, (tuple, list)) or len(pose) != 2:
        got = f"a tensor {tuple(pose.shape)}" if isinstance(pose, Tensor) else type(pose).__name__
        raise TypeError(f"`{name}` must be a Transform or a pair of rotation and translation; got {got}.")
    rotation, translation = pose
    check_shape("rotation", rotation, 3, 3)
    check_shape("translation", translation, 3)
    return Transform(rotation, translation, torch.ones_like(translation[..., 0]))


def _computed(pose: Transform) -> Transform:
    """Return a pose in a dtype to compute in, NaN in all that is not finite in a part."""
    rotation, translation = to_compute(pose.rotation, 2), to_compute(pose.translation, 1)
    return Transform(rotation, translation, to_compute(pose.scale[..., None], 1)[..., 0])


def _result(pose: Pose, points: Tensor) -> torch.dtype:
    """Return the dtype of a loss of a pose and points."""
    rotation = pose.rotation if isinstance(pose, Transform) else pose[0]
    return torch.promote_types(result_dtype(rotation), result_dtype(points))


@takes_arrays
def add_symmetric(estimate: Pose, truth: Pose, points: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean distance from each point of the true model to the nearest of the estimated one (ADD-S).

    It is the metric `svdrot.evaluation.poses.add_symmetric`, differentiable.

    For objects that look alike in poses one does not know; a known group is better served by
    `minimum_over_symmetries`, which does not take near misses for symmetries. No table of all pairs is made:
    memory grows with N.

    Args:
        estimate: `Transform`, or pair of rotations (..., 3, 3) and translations (..., 3).
        truth: `Transform` or pair; batch dimensions broadcast.
        points: of the model, in its own frame, shape (..., N, 3).
        mask: boolean, shape (..., N): points that count. All if None.

    Returns:
        Shape (...), in the units of the points; NaN if no point counts or one that does is not finite. The
        choice of neighbors is a constant to derivatives, of which all are zero where a distance is.

    Raises:
        ValueError: if a shape is wrong.
        TypeError: if `points` is not floating point, or a pose is one tensor: a rotation needs a translation.

    Source:
        Hinterstoisser et al., ACCV 2012; Xiang et al., "PoseCNN", RSS 2018.

    Example:
        >>> import torch, svdrot
        >>> points = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
        >>> truth = torch.eye(3), torch.zeros(3)
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0])), torch.zeros(3)
        >>> svdrot.losses.add_symmetric(half_turn, truth, points), svdrot.losses.add(half_turn, truth, points)
        (tensor(0.), tensor(2.))
    """
    a, b = _computed(_transform("estimate", estimate)), _computed(_transform("truth", truth))
    valid = counted(points, mask, a, b)
    query, target = torch.broadcast_tensors(b.apply(valid), a.apply(valid))
    ignored = query.new_zeros(()) if mask is None else torch.where(mask, 0.0, torch.nan).to(query)[..., None]
    shape = query.shape
    one_batch = shape[:-2].numel(), *shape[-2:]
    near = (target + ignored).detach().reshape(one_batch)
    index = _nearest_index(query.detach().reshape(one_batch), near).reshape(shape[:-1])
    found = index < shape[-2]
    partner = target.take_along_dim(torch.where(found, index, 0)[..., None], -2)
    apart = torch.where(found, distance(query, partner), torch.nan)
    return mean(apart, mask).to(_result(estimate, points))


# An operator of its own, for `torch.compile` and `vmap`, which cannot look into the search.
@torch.library.custom_op("svdrot::nearest_index", mutates_args=())
def _nearest_index(query: Tensor, points: Tensor) -> Tensor:
    """Return the index of the nearest point (B, M, 3) to each query (B, N, 3), (B, N); M if there is none."""
    return nearest(query, points)[1]


@_nearest_index.register_fake
def _(query, points):
    return query.new_empty(query.shape[:-1], dtype=torch.long)


@_nearest_index.register_vmap
def _(info, in_dims, query, points):
    x, y = (
        value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
        for value, dim in zip((query, points), in_dims, strict=True)
    )
    index = _nearest_index(x.flatten(0, 1), y.flatten(0, 1))
    return index.unflatten(0, x.shape[:2]), 0
