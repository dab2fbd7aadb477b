"""Which poses of a trajectory to compare: frames, a distance or an angle apart; and how far it has come."""

import torch
from torch import Tensor

from svdrot._checks import check_whole
from svdrot.metrics import geodesic_distance
from svdrot.transform import Transform, check_transform

_CHUNK = 2**18  # angles at a time: 9 x 8 bytes each, twice


def frame_pairs(count: int, delta: int, *, overlapping: bool = False) -> Tensor:
    """Pairs of poses `delta` frames apart.

    Args:
        count: of poses.
        delta: frames, at least 1.
        overlapping: from every pose, and not only from where the last pair ended.

    Returns:
        Indices, shape (P, 2), ascending; none if `count` is at most `delta`.
    """
    count, delta = check_whole("count", count, 0), check_whole("delta", delta)
    start = torch.arange(0, max(count - delta, 0), 1 if overlapping else delta)
    return torch.stack((start, start + delta), 1)


def path_pairs(
    trajectory: Transform, delta: float, *, overlapping: bool = False, tolerance: float = 0.1
) -> Tensor:
    """Pairs of poses `delta` apart along the path.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: in the units of the positions, positive.
        overlapping: from every pose the one whose distance is nearest to `delta`; not only from where the
            last pair ended, the first that is at least `delta` away. Of those the first stretch only leads to
            the first pose, as in the program `evo`.
        tolerance: how far distances of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the path is too short.
    """
    check_one(trajectory)
    _check_delta(delta)
    live = finite(trajectory).nonzero()[:, 0]
    path = path_lengths(trajectory)[live]
    if overlapping:
        return live[_nearest_along(path, delta, tolerance * delta)]
    ends = []
    end = _first_from(path, delta)
    while end < len(path):
        ends.append(end)
        end = max(_first_from(path, path[end].item() + delta), end + 1)  # `delta` may be below rounding
    ends = torch.tensor(ends, dtype=torch.int64)
    return live[torch.stack((ends[:-1], ends[1:]), 1)]


def _first_from(path: Tensor, length: float) -> int:
    return int(torch.searchsorted(path, length))


def _nearest_along(path: Tensor, delta: float, tolerance: float) -> Tensor:
    """Pairs i < j with path[j] - path[i] as near to delta as there is, and within the tolerance."""
    i = torch.arange(max(len(path) - 1, 0), device=path.device)
    wanted = path[i] + delta
    after = torch.searchsorted(path, wanted)
    found = []
    for j in (after - 1, after):
        j = j.clamp(0, len(path) - 1)
        j = torch.maximum(torch.searchsorted(path, path[j]), i + 1)  # the first of poses at rest
        found.append(j)
    before, after = found
    nearer = (path[after] - wanted).abs() < (path[before] - wanted).abs()
    j = torch.where(nearer, after, before)
    kept = (path[j] - wanted).abs() <= tolerance
    return torch.stack((i, j), 1)[kept]


def angle_pairs(
    trajectory: Transform, delta: float, *, overlapping: bool = False, tolerance: float = 0.1
) -> Tensor:
    """Pairs of poses turned by `delta` against each other.

    Args:
        trajectory: poses (N,). Those that are not finite are in no pair.
        delta: radians, positive; overlapping, at most pi.
        overlapping: every two poses whose relative rotation is by `delta`, which takes all N² / 2 of them;
            and not, from where the last pair ended, the first to which the angles from pose to pose add up to
            at least `delta`.
        tolerance: how far angles of overlapping pairs may be from `delta`, as a part of it.

    Returns:
        Indices, shape (P, 2), ascending; none if the body turns too little.
    """
    check_one(trajectory)
    _check_delta(delta)
    live = finite(trajectory).nonzero()[:, 0]
    rotation = trajectory.rotation[live].detach()
    if overlapping:
        return live[_turned_by(rotation, delta, tolerance * delta)]
    turned = geodesic_distance(rotation[:-1], rotation[1:]).double().cumsum(0)
    turned = torch.cat((turned.new_zeros(min(len(live), 1)), turned))
    pairs, start = [], 0
    while start < len(turned):
        end = max(_first_from(turned, turned[start].item() + delta), start + 1)
        if end < len(turned):
            pairs.append((start, end))
        start = end
    return live[torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)]


def _turned_by(rotation: Tensor, delta: float, tolerance: float) -> Tensor:
    rows = max(_CHUNK // max(len(rotation), 1), 1)
    found = [torch.empty(0, 2, dtype=torch.int64, device=rotation.device)]
    for first in range(0, len(rotation), rows):
        angles = geodesic_distance(rotation[first : first + rows, None], rotation[None, first:])
        pairs = ((angles - delta).abs() <= tolerance).nonzero() + first
        found.append(pairs[pairs[:, 1] > pairs[:, 0]])
    return torch.cat(found)


def path_lengths(trajectory: Transform) -> Tensor:
    """How far the body has come at each pose, along straight lines from pose to pose.

    Args:
        trajectory: poses (N,).

    Returns:
        Shape (N,), float64, ascending from 0. At a pose that is not finite, that of the last finite one.
    """
    check_one(trajectory)
    live = finite(trajectory)
    position = trajectory.translation.detach().double()
    path = position.new_zeros(len(position))
    steps = torch.linalg.vector_norm(position[live].diff(dim=0), dim=-1)
    path[live.nonzero()[1:, 0]] = steps
    return path.cumsum(0)


def finite(trajectory: Transform) -> Tensor:
    rotation, translation = trajectory.rotation.detach(), trajectory.translation.detach()
    return rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1)


def check_one(trajectory: Transform, name: str = "trajectory") -> None:
    check_transform(name, trajectory)
    if trajectory.translation.ndim != 2:
        raise ValueError(
            f"`{name}` must be one trajectory, translations (N, 3); got translations "
            f"{tuple(trajectory.translation.shape)}."
        )


def check_pairs(pairs: Tensor) -> None:
    """`pairs` are integers (P, 2)."""
    if not isinstance(pairs, Tensor):
        raise TypeError(f"`pairs` must be a tensor; got {type(pairs).__name__}.")
    integer = not (pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not integer:
        raise ValueError(f"`pairs` must be integers of shape (P, 2); got {pairs.dtype} {tuple(pairs.shape)}.")


def _check_delta(delta: float) -> None:
    if not delta > 0:
        raise ValueError(f"`delta` must be positive; got {delta}.")
