"""Doubts about an alignment: do two clouds that lie on each other show the same surface?"""

import torch
from torch import Tensor

from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import estimate_normals, voxel_downsample
from svdrot.rotations import random_rotation
from svdrot.transform import Transform

LEAST_OVERLAP, LEAST_AGREEMENT, LEAST_GAIN = 0.3, 0.45, 2.0  # see `judge`
TANGENT = 0.25  # voxels
TURNS = 16


def judge(
    source: Tensor, target: Tensor, transform: Transform, voxel: float
) -> tuple[float, float, list[str]]:
    """Judge an alignment: how much of it fits, how well, and what speaks against it.

    Surfaces that cross are near each other, too, but do not agree: of what lies near, a point agrees if it is
    within a quarter of a voxel of the tangent plane. Of three pairs of scans, and of parts of six meshes with
    and without noise, 57 to 100 % agree at the true pose, and 3 to 48 times as many as at random turns.

    Args:
        source: shape (N, 3), float64.
        target: shape (M, 3), float64, in the same units.
        transform: what is judged, from the source to the target.
        voxel: length at which the clouds are compared, about twice the distance of neighbors.

    Returns:
        Share of the source within a voxel of the target; root mean square of the distances of that share;
        and doubts, each a clause in English, none if the alignment is reliable.
    """
    clouds = [voxel_downsample(cloud, voxel)[0] for cloud in (transform.apply(source), target)]
    surfaces = [_Surface(cloud, voxel) for cloud in clouds]
    near, agreeing, rmse = surfaces[1].overlap(clouds[0])
    covered, _, _ = surfaces[0].overlap(clouds[1])
    center = clouds[0].mean(0)
    turns = random_rotation(TURNS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = max(surfaces[1].overlap((clouds[0] - center) @ turn.mT + center)[1] for turn in turns)
    doubts = []
    if max(near, covered) < LEAST_OVERLAP:
        doubts.append(f"only {max(near, covered):.1%} of a cloud lie within {voxel:.4g} of the other")
    if agreeing < LEAST_AGREEMENT * near:
        doubts.append(f"of what lies near, {agreeing / near:.0%} agree, as where surfaces cross by chance")
    if agreeing < LEAST_GAIN * turned:
        doubts.append(
            f"turned at random, {turned:.1%} of the source agree with the target, now {agreeing:.1%}"
        )
    return near, rmse, doubts


class _Surface:
    """Hold a cloud with one point per voxel, and its tangent planes."""

    def __init__(self, points: Tensor, voxel: float):
        self.points, self.voxel = points, voxel
        self.tree, self.normals = Neighbors(points), estimate_normals(points, 12)

    def overlap(self, points: Tensor) -> tuple[float, float, float]:
        """Return the shares of points that are near and that agree, and the rmse of the near."""
        distances, indices = self.tree.query(points, max_distance=self.voxel)
        near = distances.isfinite()
        at = indices[near]
        height = ((points[near] - self.points[at]) * self.normals[at]).sum(1).abs()
        agreeing = (height <= TANGENT * self.voxel).sum().item()
        rmse = distances[near].square().mean().sqrt().item()
        return len(at) / len(points), agreeing / len(points), rmse
