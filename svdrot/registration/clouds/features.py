"""Correspondences between clouds in any position: points whose surroundings look alike.

Fast point feature histograms (Rusu et al., ICRA 2009) are computed by open3d. They depend on the signs of the
normals, and signs as an eigenvector happens to have them change when the cloud is turned: here normals point
away from what surrounds them within some ten voxels, wherever the cloud lies. Share of right pairs, at random
rotations of the source, with such signs and with open3d's: 4 and 2 % for two indoor scans, 16 and 5 % for a
kitchen, 22 and 6 % for two turns of a LiDAR (`experiments.registration.robust_procrustes`).
"""

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import check_floating, check_positive, check_shape
from svdrot._optional import optional
from svdrot.registration.clouds.neighbors import Neighbors
from svdrot.registration.clouds.surfaces import estimate_normals, number_cells

NORMAL_RADIUS, NORMAL_NEIGHBORS = 2, 30  # in voxels; points at most
FEATURE_RADIUS, FEATURE_NEIGHBORS = 5, 100
SURROUNDINGS = 10  # voxels: deviation of the Gaussian weights of the surroundings
BLOCK = 1 << 22  # distances held at a time


def fpfh(points: Tensor, voxel: float) -> Tensor:
    """Compute fast point feature histograms of a cloud that has one point in each voxel.

    Args:
        points: shape (N, 3), all finite, as `voxel_downsample` gives them.
        voxel: edge length, in their units. Normals are of 2, features of 5 voxels around.

    Returns:
        Shape (N, 33), float64, at least 0; NaN for points without two others around that determine a normal,
        which count for no other's feature either.

    Raises:
        ValueError: if `points` has another shape or `voxel` is not a positive number.
        TypeError: if `points` is not a floating-point tensor.
        ImportError: if open3d cannot be loaded, with what it needs.

    Source:
        Rusu, Blodow and Beetz, "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009.

    Example:
        >>> import torch, svdrot
        >>> cloud = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0))
        >>> points, = svdrot.registration.voxel_downsample(cloud, 0.1)
        >>> features = svdrot.registration.fpfh(points, 0.1)  # doctest: +SKIP
        >>> features.shape == (len(points), 33)  # doctest: +SKIP
        True
    """
    check_shape("points", points, 3)
    check_positive("voxel", voxel)
    open3d = optional("open3d", "FPFH")
    x = points.detach().double().cpu() / voxel
    normals = estimate_normals(x, NORMAL_NEIGHBORS, NORMAL_RADIUS)
    defined = normals.isfinite().all(-1)
    x, normals = x[defined], normals[defined]
    features = torch.full((len(points), 33), torch.nan, dtype=torch.float64, device="cpu")
    if len(x):
        inward = ((x - surroundings(x)) * normals).sum(-1, keepdim=True) < 0
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(x.numpy()))
        cloud.normals = open3d.utility.Vector3dVector(torch.where(inward, -normals, normals).numpy())
        around = open3d.geometry.KDTreeSearchParamHybrid(FEATURE_RADIUS, FEATURE_NEIGHBORS)
        found = open3d.pipelines.registration.compute_fpfh_feature(cloud, around)
        features[defined] = torch.from_numpy(np.array(found.data.T))
    return features.to(points.device)


def surroundings(x: Tensor) -> Tensor:
    """Return the mean of the cloud around each point (N, 3), weighted by a Gaussian of distance in voxels."""
    cells, inverse = number_cells((x / (SURROUNDINGS / 4)).floor())
    count = torch.bincount(inverse, minlength=cells)
    coarse = x.new_zeros(cells, 3).index_add_(0, inverse, x) / count[:, None]
    means = []
    for part in x.split(max(1, BLOCK // len(coarse))):
        weights = (-0.5 * (torch.cdist(part, coarse) / SURROUNDINGS).square()).exp() * count
        means.append((weights @ coarse) / weights.sum(1, keepdim=True))
    return torch.cat(means)


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
