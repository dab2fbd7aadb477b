"""The motions that an alignment may be limited to: `motion`, and the `axis` that it is about."""

import torch
from torch import Tensor

from svdrot._checks import check_choice, check_shape
from svdrot._vectors import length

MOTIONS = ("free", "yaw", "planar")


def checked_axis(motion: str, axis: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the unit axis of a motion that has one, shape (..., 3), float64; None if it is free.

    Args:
        motion: one of `MOTIONS`.
        axis: as the public functions have it: of any length but 0, which gives NaN; z if there is none.
        like: points, (..., N, d).
    """
    check_choice("motion", motion, MOTIONS)
    if motion == "free":
        if axis is not None:
            raise ValueError('`axis` is that of a motion "yaw" or "planar"; got one for `motion` "free".')
        return None
    d = like.shape[-1]
    if d != 3:
        raise ValueError(f'`motion` must be "free" for points of {d} dimensions; got "{motion}".')
    if axis is None:
        return torch.tensor((0.0, 0.0, 1.0), dtype=torch.float64, device=like.device)
    check_shape("axis", axis, 3)
    axis = axis.double()
    return axis / length(axis)[..., None]
