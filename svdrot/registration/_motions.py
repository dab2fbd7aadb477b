"""The motions that an alignment may be limited to: `motion`, and the `axis` that it is about."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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


def one_axis(motion: str, axis: Tensor | None) -> NDArray[np.float64] | None:
    """Return the same for a single problem in space, (3,) in numpy; an axis of no direction is refused."""
    found = checked_axis(motion, axis, torch.empty(0, 3, device="cpu"))
    if found is None:
        return None
    if found.ndim != 1 or not found.isfinite().all():
        came = f"shape {tuple(found.shape)}" if found.ndim != 1 else f"{axis}"
        raise ValueError(f"`axis` must be one vector (3,) of a finite length but 0; got {came}.")
    return found.detach().cpu().numpy()


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


@dataclass(frozen=True)
class Allowed:
    """Keep poses (B, n, 4), n at least 3, in numpy, to motions about an axis from where they begin.

    Attributes:
        axis: a unit vector (3,), in the frame of the target.
        planar: whether heights along it stay.
        start: the pose (3, 4) that motions begin at.
        middle: a point (3,) of the source, near its middle, that stays where a pose brings it, as it may.
    """

    axis: NDArray[np.float64]
    planar: bool
    start: NDArray[np.float64]
    middle: NDArray[np.float64]

    @property
    def motion(self) -> str:
        return "planar" if self.planar else "yaw"

    def nearest(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the poses with the nearest rotations and middles that are allowed."""
        a, (r, t) = self.axis, (self.start[:3, :3], self.start[:3, 3])
        d = poses[:, :3, :3] @ r.T
        sine = np.einsum(
            "bk,k->b", np.stack([d[:, i - 1, i - 2] - d[:, i - 2, i - 1] for i in range(3)], 1), a
        )
        cosine = np.trace(d, axis1=1, axis2=2) - np.einsum("i,bij,j->b", a, d, a)
        angle = np.arctan2(sine, cosine)[:, None, None]
        k = np.cross(np.eye(3), a)  # the matrix of a x
        turns = (np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)) @ r
        middles = poses[:, :3, :3] @ self.middle + poses[:, :3, 3]
        if self.planar:
            middles = middles + ((r @ self.middle + t - middles) @ a)[:, None] * a
        found = poses.copy()
        found[:, :3, :3] = turns
        found[:, :3, 3] = middles - turns @ self.middle
        return found

    @property
    def basis(self) -> NDArray[np.float64]:
        """Return orthonormal columns (6, k) of what is allowed of (rotation vector, translation)."""
        e = np.linalg.svd(self.axis[None])[2]  # the axis, and two vectors across it
        slides = e[1:] if self.planar else e
        basis = np.zeros((6, 1 + len(slides)))
        basis[:3, 0], basis[3:, 1:] = self.axis, slides.T
        return basis

    def moved(
        self, source: NDArray[np.float64], target: NDArray[np.float64], length: float = 1.0
    ) -> "Allowed":
        """Return the same of clouds from which points (3,) were taken, divided by a length."""
        shift = self.start[:3, :3] @ source + self.start[:3, 3] - target
        start = np.concatenate((self.start[:3, :3], shift[:, None] / length), 1)
        return Allowed(self.axis, self.planar, start, (self.middle - source) / length)
