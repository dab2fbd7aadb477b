"""Correspondences between clouds in any position: points whose surroundings look alike.

Fast point feature histograms (Rusu et al., ICRA 2009), equal to those of open3d for the same normals. They
depend on the signs of these, and signs as an eigenvector happens to have them change when the cloud is
turned: here normals point away from what surrounds them within some ten voxels, wherever the cloud lies.
Share of right pairs, at random rotations of the source, with such signs and with open3d's: 4 and 2 % for
two indoor scans, 16 and 5 % for a kitchen, 22 and 6 % for two turns of a LiDAR
(`experiments.registration.robust_procrustes`).
"""

import numpy as np
import torch
from torch import Tensor

from svdrot import _kernels
from svdrot._checks import check_floating, check_positive, check_shape
from svdrot._kernels.cpu import clouds
from svdrot._kernels.operations.features import around
from svdrot._stand_ins import takes_arrays
from svdrot.registration.clouds._levels import (
    FEATURE_POINTS,
    FEATURE_RADIUS,
    NORMAL_POINTS,
    NORMAL_RADIUS,
    OUTWARD,
    SURROUNDINGS,
    Level,
)
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import least_direction

PARTS = 2**22  # numbers at a time, of surroundings


@takes_arrays
def fpfh(points: Tensor, voxel: float) -> Tensor:
    """Compute fast point feature histograms of a cloud that has one point in each voxel.

    Args:
        points: shape (N, 3), all finite, as `voxel_downsample` gives them.
        voxel: edge length, in their units. Normals are of 2, features of 5 voxels around.

    Returns:
        Shape (N, 33), float64, at least 0; NaN for points without two others around that determine a normal,
        which count for no other's feature either. Computed where the points are: the same up to rounding, by
        which now and then a neighbor falls into the next bin.

    Raises:
        ValueError: if `points` has another shape or `voxel` is not a positive number.
        TypeError: if `points` is not a floating-point tensor.

    Source:
        Rusu, Blodow and Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009.

    Example:
        >>> import torch, svdrot
        >>> cloud = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
        >>> points, = svdrot.registration.voxel_downsample(cloud, 0.1)
        >>> features = svdrot.registration.fpfh(points, 0.1)
        >>> features.shape == (len(points), 33)
        True
    """
    check_shape("points", points, 3)
    check_positive("voxel", voxel)
    if _kernels.side(points) != "cpu":
        with torch.no_grad():
            return _on_device(points.detach().double(), voxel)
    features = torch.full((len(points), 33), torch.nan, dtype=torch.float64, device="cpu")
    x = points.detach().double().cpu().numpy()
    found = clouds.sort_into_cells(x, voxel) if len(x) else None
    if found is not None:
        cells, order = found
        level = Level.of(cells, clouds.coarser(cells, OUTWARD))
        features[order[level.kept]] = torch.from_numpy(level.features)
    return features


def _on_device(x: Tensor, voxel: float) -> Tensor:
    """Do the same where the points are, of every pair of them in place of cells."""
    ends = torch.stack((x.amin(0), x.amax(0))).cpu().numpy() if len(x) else np.zeros((2, 3))
    if not len(x) or clouds.grid_of(ends, voxel) is None:
        return x.new_full((len(x), 33), torch.nan)
    normals = _outward_normals(x, voxel)
    known = normals[:, 0].isfinite()
    # One without a normal is nobody's neighbor.
    points, normals = torch.where(known[:, None], x, torch.nan), torch.where(known[:, None], normals, 0)
    near = around(points[None], FEATURE_RADIUS * voxel, FEATURE_POINTS - 1)
    described = _kernels.select_features(x).describe(points[None], normals[None], *near)[0]
    return torch.where(known[:, None], described, torch.nan)


def _outward_normals(x: Tensor, voxel: float) -> Tensor:
    """Normals (N, 3) by what is around within two voxels, away from what is within many; NaN for none."""
    numbers, places, _ = (found[0] for found in around(x[None], NORMAL_RADIUS * voxel, NORMAL_POINTS - 1))
    live = torch.arange(places.shape[1], device=x.device) < numbers[:, None]
    share = 1 / (numbers + 1).to(x.dtype)
    d = torch.where(live[..., None], x[places] - x[:, None], 0)
    mean = d.sum(1) * share[:, None]
    columns = [(d * d[..., k : k + 1]).sum(1) * share[:, None] - mean * mean[:, k : k + 1] for k in range(3)]
    normals = torch.where(numbers[:, None] >= 2, least_direction(torch.stack(columns, -1)), torch.nan)
    cells = (x / voxel).floor().long().div(OUTWARD, rounding_mode="floor")
    _, inverse, weights = cells.unique(dim=0, return_inverse=True, return_counts=True)
    coarse = x.new_zeros(len(weights), 3).index_add_(0, inverse, x) / weights[:, None]
    toward = torch.empty_like(x)
    step = max(1, PARTS // len(coarse))
    for first in range(0, len(x), step):
        apart = coarse - x[first : first + step, None]
        falls = (1 - apart.square().sum(-1) / (SURROUNDINGS * voxel) ** 2).clamp(min=0)
        toward[first : first + step] = ((falls * falls * weights)[..., None] * apart).sum(1)
    return torch.where((toward * normals).sum(-1, keepdim=True) > 0, -normals, normals)


@takes_arrays
def match(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each feature of either cloud with the nearest one of the other; mutual pairs appear once.

    Args:
        source: shape (N, d), d >= 1, any floating dtype. A feature that is not finite has no pair.
        target: shape (M, d), likewise.

    Returns:
        Indices into source and into target, shape (K,) each, in ascending order of the source's; K is at most
        N + M, and 0 if a cloud is empty.

    Raises:
        ValueError: if the shapes are others.
        TypeError: if an argument is not a floating-point tensor.

    Example:
        >>> import torch, svdrot
        >>> source = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.8, 0.0]])
        >>> svdrot.registration.match(source, target)
        (tensor([0, 1, 1]), tensor([1, 0, 2]))
    """
    check_floating("source", source)
    check_floating("target", target)
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1] or source.shape[1] == 0:
        shapes = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ValueError(f"`source` and `target` must have shapes (N, d) and (M, d), d >= 1; got {shapes}.")
    n, m = len(source), len(target)
    if n == 0 or m == 0:
        empty = torch.zeros(0, dtype=torch.long, device=source.device)
        return empty, empty
    there = Neighbors(target).query(source)[1]
    back = Neighbors(source).query(target)[1]
    i = torch.cat((torch.arange(n, device=source.device), back))
    j = torch.cat((there, torch.arange(m, device=source.device)))
    found = (i < n) & (j < m)
    pairs = torch.unique(i[found] * m + j[found])  # a pair as one integer, so that mutual ones become one
    return pairs // m, pairs % m
