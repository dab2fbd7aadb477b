"""Correspondences between clouds in any position: points whose surroundings look alike.

Fast point feature histograms (Rusu et al., ICRA 2009), equal to those of open3d for the same normals. They
depend on the signs of these, and signs as an eigenvector happens to have them change when the cloud is
turned: here normals point away from what surrounds them within some ten voxels, wherever the cloud lies.
Share of right pairs, at random rotations of the source, with such signs and with open3d's: 4 and 2 % for
two indoor scans, 16 and 5 % for a kitchen, 22 and 6 % for two turns of a LiDAR
(`experiments.registration.robust_procrustes`).
"""

import torch
from torch import Tensor

from svdrot._checks import check_floating, check_positive, check_shape
from svdrot._kernels.cpu import clouds
from svdrot.registration.clouds._levels import OUTWARD, Level
from svdrot.registration.clouds.neighbors import Neighbors


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
    features = torch.full((len(points), 33), torch.nan, dtype=torch.float64, device="cpu")
    x = points.detach().double().cpu().numpy()
    found = clouds.sort_into_cells(x, voxel) if len(x) else None
    if found is not None:
        cells, order = found
        level = Level.of(cells, clouds.coarser(cells, OUTWARD))
        features[order[level.kept]] = torch.from_numpy(level.features)
    return features.to(points.device)


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
