"""Batches of clouds as ICP takes them: checked, padded, in one frame, at one scale, with normals."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from svdrot._checks import check_mask, check_shape, common_batch
from svdrot.registration._points import Points, as_tensor, pad, padded
from svdrot.registration.clouds import _steps
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import Planes, plane_covariances, planes, spacing, voxel_downsample


@dataclass(frozen=True)
class Clouds:
    """Hold clouds (..., N, 3) in float64 with 0 in place of what does not count; `weights` are 0 there.

    `planes` are those through neighbors, if normals were estimated.
    """

    points: Tensor
    valid: Tensor
    weights: Tensor
    normals: Tensor | None
    covariances: Tensor | None
    planes: Planes | None = None
    flat: bool = False  # of the plane, whose curves have normals in it

    @staticmethod
    def of(
        name: str,
        points: Points,
        mask: Points | None,
        weights: Points | None,
        normals: Points | None,
        covariances: Points | None,
        flat: bool = False,
    ) -> "Clouds":
        """Check the arguments of `icp` for one of the clouds, and pad lists."""
        mask_, normals_, covariances_ = (f"{name}_{part}" for part in ("mask", "normals", "covariances"))
        if not isinstance(points, Tensor):
            given = {mask_: mask, "weights": weights, normals_: normals, covariances_: covariances}
            lists, inside = padded({name: points}, given)
            points, mask = lists[name], lists.get(mask_, inside)
            weights, normals, covariances = map(lists.get, ("weights", normals_, covariances_))
        check_shape(name, points, 3)
        if points.ndim < 2:
            raise ValueError(f"`{name}` must have shape (..., N, 3); got {tuple(points.shape)}.")
        n = points.shape[-2]
        finite = points.isfinite().all(-1)
        inside = finite if mask is None else check_mask(mask_, mask, n)
        weights = points.new_ones(n) if weights is None else as_tensor("weights", weights, n)
        normals = None if normals is None else as_tensor(normals_, normals, n, 3)
        covariances = None if covariances is None else as_tensor(covariances_, covariances, n, 3, 3)
        batches = {name: points.shape[:-2], mask_: inside.shape[:-1], "weights": weights.shape[:-1]}
        if normals is not None:
            batches[normals_] = normals.shape[:-2]
        if covariances is not None:
            batches[covariances_] = covariances.shape[:-3]
        batch = common_batch(**batches)
        valid = finite & inside & (weights > 0)
        points, valid = points.expand(*batch, n, 3), valid.expand(*batch, n)
        return Clouds(points, valid, weights.expand(*batch, n), normals, covariances, None, flat)

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
            None,
            self.flat,
        )

    def centered(self) -> tuple["Clouds", Tensor]:
        """Move the clouds to their middles; return these, too, constants for autograd.

        They are medians of some of the points, which a few that lie at 1e30 do not move.
        """
        some = self.marked()[:, :: max(1, self.points.shape[1] // 1000)]
        center = some.nanmedian(1).values.nan_to_num() if some.shape[1] else some.new_zeros(len(some), 3)
        moved = torch.where(self.valid[..., None], self.points - center[:, None], 0)
        return replace(self, points=moved), center

    def at_scale(self, voxel: float | None) -> "Clouds":
        if voxel is None or not len(self.points):
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
        return Clouds(points, valid, weights, normals, covariances, None, self.flat)

    def ready(self, need: str | None, neighbors: int, voxel: float | None) -> "Clouds":
        """Return the clouds with what is needed, covariances packed, and no weight where it is not known."""
        normals, covariances, planes = self.normals, self.covariances, None
        if need is None:
            return replace(self, normals=None, covariances=None)
        if normals is None and (need == "normals" or covariances is None):
            planes = self.estimated(neighbors, voxel)
            normals = planes.normals
        if need == "normals":
            assert normals is not None
            known, unknown = normals, torch.zeros(3, device="cpu")
        else:
            if covariances is None:
                assert normals is not None
                covariances = plane_covariances(normals)
            known, unknown = _steps.pack(covariances), _steps.pack(torch.eye(3, device="cpu"))
        usable = self.valid & known.sum(-1).isfinite()
        known = torch.where(usable[..., None], known, unknown.to(known))
        return Clouds(
            self.points,
            self.valid,
            torch.where(usable, self.weights, 0),
            known if need == "normals" else None,
            known if need == "covariances" else None,
            planes,
            self.flat,
        )

    def estimated(self, neighbors: int, voxel: float | None) -> Planes:
        """Estimate planes by the nearest points, or at a scale with a voxel by what lies around.

        That is, within two voxels, or within twice the spacing of a sparser cloud. Twenty points far from a
        scanner belong to several surfaces: by point-to-plane steps in voxels of 25 cm one revolution ends 0.7
        degrees off the next, and by what lies within 50 cm 0.05.
        """
        rows = []
        for cloud, valid in zip(self.marked(), self.valid, strict=True):
            radius = None if voxel is None else 2 * max(voxel, spacing(cloud[valid]))
            rows.append(planes(Neighbors(cloud), neighbors, None, radius, self.flat))
        if rows:
            return Planes(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
        return Planes(self.points, self.valid, self.valid.new_zeros(0, dtype=torch.float64))

    def planes_of(self, item: int, neighbors: int) -> Planes:
        """Return the planes of a cloud's valid points; where normals were given, through neighbors."""
        valid = self.valid[item]
        if self.planes is None:
            return planes(Neighbors(self.points[item, valid].detach()), neighbors, flat=self.flat)
        normals, border, ripple = self.planes
        return Planes(normals[item, valid], border[item, valid], ripple[item])

    @property
    def known(self) -> Tensor | None:
        """Return what `ready` put there: packed covariances, normals, or nothing."""
        return self.covariances if self.normals is None else self.normals

    def marked(self) -> Tensor:
        """Return the points, NaN where they do not count, detached."""
        return torch.where(self.valid[..., None], self.points.detach(), torch.nan)

    def take(self, items: Tensor) -> "Clouds":
        return Clouds(
            *(
                None if value is None else value[items]
                for value in (self.points, self.valid, self.weights, self.normals, self.covariances)
            )  # pyright: ignore[reportArgumentType]
        )
