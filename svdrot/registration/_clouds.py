"""Batches of clouds as ICP takes them: checked, padded, in one frame, at one scale, with normals."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot.registration import _steps
from svdrot.registration.procrustes import Points, pad
from svdrot.registration.surfaces import estimate_normals, plane_covariances, spacing, voxel_downsample


@dataclass(frozen=True)
class Clouds:
    """Clouds (..., N, 3) in float64 with 0 in place of what does not count; `weights` are 0 there."""

    points: Tensor
    valid: Tensor
    weights: Tensor
    normals: Tensor | None
    covariances: Tensor | None

    @staticmethod
    def of(
        name: str,
        points: Points,
        mask: Points | None,
        weights: Points | None,
        normals: Points | None,
        covariances: Points | None,
    ) -> "Clouds":
        if not isinstance(points, Tensor):
            lengths = [len(cloud) for cloud in points]
            for other in (mask, weights, normals, covariances):
                if isinstance(other, Tensor) or (other is not None and [*map(len, other)] != lengths):
                    raise ValueError(f"What belongs to `{name}` must be lists of tensors as long as its own.")
            points, inside = pad(points)
            mask = inside if mask is None else pad([*mask])[0]
            weights, normals, covariances = (
                None if other is None else pad([*other])[0] for other in (weights, normals, covariances)
            )
        check_shape(name, points, 3)
        if points.ndim < 2:
            raise ValueError(f"`{name}` must have shape (..., N, 3); got {tuple(points.shape)}.")
        n = points.shape[-2]
        valid = points.isfinite().all(-1)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape[-1:] != (n,):
                raise ValueError(f"`{name}_mask` must be a boolean tensor of shape (..., {n}).")
            valid = valid & mask
        weight = torch.ones_like(points[..., 0])
        if weights is not None:
            check_shape("weights", _tensor("weights", weights), n)
            weight = weight * _tensor("weights", weights)
            valid = valid & (weight > 0)
        for label, value, trailing in (("normals", normals, (3,)), ("covariances", covariances, (3, 3))):
            if value is not None:
                check_shape(f"{name}_{label}", _tensor(label, value), n, *trailing)
        return Clouds(
            points,
            valid,
            weight,
            None if normals is None else _tensor("normals", normals),
            None if covariances is None else _tensor("covariances", covariances),
        )

    def flattened(self, batch: torch.Size) -> "Clouds":
        n, size = self.points.shape[-2], math.prod(batch)

        def flat(value: Tensor, dims: int) -> Tensor:
            trailing = value.shape[value.ndim - dims :]
            return value.expand((*batch, n, *trailing)).reshape(size, n, *trailing)

        valid = flat(self.valid, 0)
        return Clouds(
            torch.where(valid[..., None], flat(self.points, 1).double(), 0),
            valid,
            torch.where(valid, flat(self.weights, 0).double(), 0),
            None if self.normals is None else flat(self.normals, 1).double(),
            None if self.covariances is None else flat(self.covariances, 2).double(),
        )

    def centred(self) -> tuple["Clouds", Tensor]:
        """About the mean of the points, and that mean, which is a constant for autograd."""
        points = self.points.detach()
        centre = points.sum(1) / self.valid.sum(1).clamp(min=1)[:, None]
        moved = torch.where(self.valid[..., None], self.points - centre[:, None], 0)
        return replace(self, points=moved), centre

    def at_scale(self, voxel: float | None) -> "Clouds":
        if voxel is None:
            return self
        extras = [self.weights, *(x for x in (self.normals, self.covariances) if x is not None)]
        rows = [
            voxel_downsample(points[valid], voxel, *(extra[i][valid] for extra in extras))
            for i, (points, valid) in enumerate(zip(self.points, self.valid, strict=True))
        ]
        points, valid = pad([row[0] for row in rows])
        weights, *others = (pad([row[j] for row in rows])[0] for j in range(1, len(extras) + 1))
        normals = covariances = None
        if self.normals is not None:
            normals = others.pop(0)
            normals = normals / normals.norm(dim=-1, keepdim=True)
        if self.covariances is not None:
            covariances = others.pop(0)
        return Clouds(points, valid, weights, normals, covariances)

    def ready(self, need: str | None, neighbours: int, voxel: float | None) -> "Clouds":
        """With what is needed, covariances packed, and no weight where it is not known."""
        normals, covariances = self.normals, self.covariances
        if need is None:
            return replace(self, normals=None, covariances=None)
        if normals is None and (need == "normals" or covariances is None):
            normals = self.estimated(neighbours, voxel)
        if need == "normals":
            assert normals is not None
            known, unknown = normals, torch.zeros(3)
        else:
            if covariances is None:
                assert normals is not None
                covariances = plane_covariances(normals)
            known, unknown = _steps.pack(covariances), _steps.pack(torch.eye(3))
        usable = self.valid & known.sum(-1).isfinite()
        known = torch.where(usable[..., None], known, unknown.to(known))
        return Clouds(
            self.points,
            self.valid,
            torch.where(usable, self.weights, 0),
            known if need == "normals" else None,
            known if need == "covariances" else None,
        )

    def estimated(self, neighbours: int, voxel: float | None) -> Tensor:
        """Normals; in voxels of what lies within two of them, or within twice the spacing of a sparser cloud.

        Twenty points far from a scanner belong to several surfaces: by point-to-plane steps in voxels of 25
        cm one revolution ends 0.7 degrees off the next, and by what lies within 50 cm 0.05.
        """
        if voxel is None:
            return estimate_normals(self.marked(), neighbours)
        normals = torch.full_like(self.points, torch.nan)
        for i, (cloud, valid) in enumerate(zip(self.marked(), self.valid, strict=True)):
            normals[i] = estimate_normals(cloud, neighbours, 2 * max(voxel, spacing(cloud[valid])))
        return normals

    @property
    def known(self) -> Tensor | None:
        """What it was made ready with."""
        return self.covariances if self.normals is None else self.normals

    def marked(self) -> Tensor:
        """The points, NaN where they do not count, detached."""
        return torch.where(self.valid[..., None], self.points.detach(), torch.nan)

    def take(self, items: Tensor) -> "Clouds":
        return Clouds(
            *(
                None if value is None else value[items]
                for value in (self.points, self.valid, self.weights, self.normals, self.covariances)
            )  # pyright: ignore[reportArgumentType]
        )


def _tensor(name: str, value: Points) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor, as the points are; got {type(value).__name__}.")
    return value
