"""The class `Slerp` of scipy over tensors: rotations at times between those of knots."""

import torch
from torch import Tensor

from svdrot.compat.scipy.rotation import Numbers, Rotation, as_tensor
from svdrot.quaternions import quaternion_slerp


class Slerp:
    """Interpolate rotations at constant angular velocity between knots, as scipy's class of this name does.

    Differentiable in rotations, their times and the times asked for. Times outside give NaN in their place,
    where scipy raises, and so does everything if the times of the knots do not ascend.

    Args:
        times: of the knots, ascending, shape (N,), N >= 2.
        rotations: knots, shape (N,).
    """

    def __init__(self, times: Numbers, rotations: Rotation) -> None:
        if not isinstance(rotations, Rotation):
            raise TypeError(f"`rotations` must be a Rotation; got {type(rotations).__name__}.")
        if rotations.single or len(rotations.shape) != 1 or len(rotations) < 2:
            raise ValueError(f"`rotations` must have shape (N,) with N >= 2; got {rotations.shape}.")
        self._knots = rotations.as_quat(scalar_first=True)
        self.times = as_tensor("times", times).to(self._knots)
        if self.times.shape != rotations.shape:
            raise ValueError(f"`times` must have shape {rotations.shape}; got {tuple(self.times.shape)}.")

    def __call__(self, times: Numbers) -> Rotation:
        """Return the rotations at times, a number or of shape (T,)."""
        at = as_tensor("times", times).to(self._knots)
        if at.ndim > 1:
            raise ValueError(f"`times` must be a number or have shape (T,); got {tuple(at.shape)}.")
        knots, steps = self.times.detach(), self.times.diff()
        i = torch.searchsorted(knots, at.detach().reshape(-1), right=True).reshape(at.shape) - 1
        i = i.clamp(0, len(knots) - 2)
        inside = (at >= knots[0]) & (at <= knots[-1]) & (steps > 0).all()
        share = torch.where(inside, at - self.times[i], 0) / torch.where(steps > 0, steps, 1)[i]
        found: Tensor = quaternion_slerp(self._knots[i], self._knots[i + 1], share)
        found = torch.where(inside[..., None], found, torch.nan)
        return Rotation(found, normalize=False, scalar_first=True)
