"""The motions that an alignment may be limited to: `motion`, and the `axis` that it is about."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Limits:
    """Hold the axes, unit vectors (B, 3), float64, that motions "yaw" or "planar" of a batch are about."""

    motion: str
    axis: Tensor

    @property
    def planar(self) -> bool:
        return self.motion == "planar"

    @property
    def closed(self) -> int:
        """Return how many of the six degrees of freedom there are not."""
        return 3 if self.planar else 2

    @property
    def projector(self) -> Tensor:
        """Return the projector to what remains of (rotation vector, translation), (B, 6, 6)."""
        along = self.axis[:, :, None] * self.axis[:, None, :]
        eye, zero = torch.eye(3, dtype=along.dtype, device=along.device), torch.zeros_like(along)
        moving = eye - along if self.planar else zero + eye
        return torch.cat((torch.cat((along, zero), -1), torch.cat((zero, moving), -1)), -2)

    def take(self, items: Tensor) -> "Limits":
        return Limits(self.motion, self.axis[items])
