"""The units of the verdict: both clouds about their medians, the larger of extent one."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svdrot._precision import result_dtype
from svdrot.projection import special_orthogonalize
from svdrot.registration.clouds._verdict.poses import Array
from svdrot.registration.clouds._verdict.surfaces import middle_of
from svdrot.transform import Transform

ENOUGH = 50_000  # points for medians: that of a million takes longer than all the rest


@dataclass(frozen=True)
class Units:
    """Hold both clouds about their medians, in units of the larger's extent, and the way back."""

    source: Array
    target: Array
    middles: tuple[Array, Array]
    length: float
    ratio: float  # of the extents, target over source
    scale: Tensor  # of the transform, with which the source was multiplied
    like: Tensor

    @classmethod
    def of(cls, source: Tensor, target: Tensor, transform: Transform) -> "Units":
        scale = transform.scale.detach()
        clouds, middles, extents = [], [], []
        for cloud, factor in ((source, float(scale)), (target, 1.0)):
            x = _array(cloud) * factor
            finite = np.isfinite(x).all(1)
            x = x if finite.all() else x[finite]
            some = x[:: max(1, len(x) // ENOUGH)]
            middle = middle_of(some) if len(x) else np.zeros(3)
            with np.errstate(over="ignore"):
                far = np.linalg.norm(some - middle, axis=1)
            clouds.append(x)
            middles.append(middle)
            extents.append(float(np.median(far)) if len(x) else 0.0)
        length = max(extents) if min(extents) > 0 and np.isfinite(max(extents)) else 0.0
        if length:
            clouds = [(x - m) / length for x, m in zip(clouds, middles, strict=True)]
        x, y = clouds
        ratio = extents[1] / extents[0] if length else 1.0
        return cls(x, y, (middles[0], middles[1]), length, ratio, scale, source.detach())

    def inward(self, transform: Transform) -> Array:
        """Return the pose (1, 4, 4) that a transform is in these units."""
        rotation, translation = (_array(x) for x in (transform.rotation, transform.translation))
        pose = np.eye(4)[None]
        rotation = special_orthogonalize(torch.from_numpy(rotation)).numpy()  # of a text with few decimals
        pose[0, :3, :3] = rotation
        shift = rotation @ self.middles[0] + translation - self.middles[1]
        pose[0, :3, 3] = shift / (self.length or 1)
        return pose

    def outward(self, poses: Array) -> Transform:
        """Return the transforms that poses (B, 4, 4) are in the units of the points."""
        rotation = poses[:, :3, :3]
        shift = self.length * poses[:, :3, 3] + self.middles[1] - rotation @ self.middles[0]
        r, t = (self.back(torch.from_numpy(x), result_dtype(self.like)) for x in (rotation, shift))
        return Transform(r, t, self.scale.to(r.device, r.dtype).expand(len(poses)))

    def back(self, value: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Bring a tensor to where the source is."""
        return value.to(self.like.device, dtype)


def _array(value: Tensor) -> Array:
    return value.detach().cpu().double().resolve_neg().numpy()
