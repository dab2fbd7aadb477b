"""What open3d, small_gicp and KISS-Matcher make of two clouds: 4x4 matrices that take source to target.

The settings of open3d are those of its tutorials: normals of radius 2 voxels (30 neighbors), FPFH of radius
5 (100 neighbors), RANSAC at 1.5 voxels of 3 points, edge ratio 0.9, 100,000 iterations at confidence 0.999,
FGR at half a voxel. KISS-Matcher, which has no parameter but the voxel, is refined by small_gicp's planes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import shared

open3d, small_gicp, kiss_matcher = map(shared.run.peer, ("open3d", "small_gicp", "kiss_matcher"))
registration = open3d.pipelines.registration
Cloud = Any

Scales = Sequence[tuple[float, float, int]]
"""Voxel, distance of pairs, iterations: one after the other, as `svdrot.registration.icp` takes them."""

Local = Callable[[NDArray, NDArray, Scales, NDArray], NDArray]
"""Of source, target, scales and the matrix to start from."""

Global = Callable[[NDArray, NDArray, float, int], NDArray]
"""Of source, target, voxel and seed."""


def _cloud(points: NDArray, voxel: float) -> Cloud:
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points)).voxel_down_sample(voxel)
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(radius=2 * voxel, max_nn=30))
    return cloud


def _open3d(align: Callable[..., Any], estimation: Callable[[], Any]) -> Local:
    def call(source: NDArray, target: NDArray, scales: Scales, init: NDArray) -> NDArray:
        for voxel, distance, iterations in scales:
            clouds = [_cloud(points, voxel) for points in (source, target)]
            criteria = registration.ICPConvergenceCriteria(max_iteration=iterations)
            init = align(*clouds, distance, init, estimation(), criteria).transformation
        return init

    return call


def _small_gicp(method: str) -> Local:
    """Align by a method of small_gicp with one thread."""

    def call(source: NDArray, target: NDArray, scales: Scales, init: NDArray) -> NDArray:
        for voxel, distance, iterations in scales:
            init = small_gicp.align(
                target,
                source,
                init_T_target_source=init,
                registration_type=method,
                downsampling_resolution=voxel,
                max_correspondence_distance=distance,
                num_threads=1,
                max_iterations=iterations,
            ).T_target_source
        return init

    return call


LOCAL: dict[str, Local] = {
    "open3d point-to-point": _open3d(
        registration.registration_icp, registration.TransformationEstimationPointToPoint
    ),
    "open3d point-to-plane": _open3d(
        registration.registration_icp, registration.TransformationEstimationPointToPlane
    ),
    "open3d generalized": _open3d(
        registration.registration_generalized_icp, registration.TransformationEstimationForGeneralizedICP
    ),
    "small_gicp point-to-point": _small_gicp("ICP"),
    "small_gicp point-to-plane": _small_gicp("PLANE_ICP"),
    "small_gicp generalized": _small_gicp("GICP"),
}


def _by_features(find: Callable[..., NDArray]) -> Global:
    def call(source: NDArray, target: NDArray, voxel: float, seed: int) -> NDArray:
        open3d.utility.random.seed(seed)
        clouds = [_cloud(points, voxel) for points in (source, target)]
        radius = open3d.geometry.KDTreeSearchParamHybrid(radius=5 * voxel, max_nn=100)
        features = [registration.compute_fpfh_feature(cloud, radius) for cloud in clouds]
        return np.array(find(*clouds, *features, voxel))

    return call


def _ransac(source: Cloud, target: Cloud, of_source: Any, of_target: Any, voxel: float) -> NDArray:
    checks = [
        registration.CorrespondenceCheckerBasedOnEdgeLength(0.9),
        registration.CorrespondenceCheckerBasedOnDistance(1.5 * voxel),
    ]
    return registration.registration_ransac_based_on_feature_matching(
        source,
        target,
        of_source,
        of_target,
        True,  # matched both ways
        1.5 * voxel,
        registration.TransformationEstimationPointToPoint(False),
        3,
        checks,
        registration.RANSACConvergenceCriteria(100_000, 0.999),
    ).transformation


def _fgr(source: Cloud, target: Cloud, of_source: Any, of_target: Any, voxel: float) -> NDArray:
    option = registration.FastGlobalRegistrationOption(maximum_correspondence_distance=0.5 * voxel)
    return registration.registration_fgr_based_on_feature_matching(
        source, target, of_source, of_target, option
    ).transformation


def _kiss_matcher(source: NDArray, target: NDArray, voxel: float, seed: int) -> NDArray:
    found = kiss_matcher.KISSMatcher(kiss_matcher.KISSMatcherConfig(voxel)).estimate(
        source.astype(np.float32), target.astype(np.float32)
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.array(found.rotation), np.array(found.translation).ravel()
    return matrix


GLOBAL: dict[str, Global] = {
    "open3d RANSAC": _by_features(_ransac),
    "open3d FGR": _by_features(_fgr),
    "KISS-Matcher": _kiss_matcher,
}
