"""Errors of poses and of registrations: per element, radians and the units of the points, and their recall.

Poses are `Transform`s of any batch shape (...), target = scale * rotation @ source + translation, and batch
dimensions of all arguments broadcast. Something that is not finite among what counts gives NaN for its own
element, and a recall takes a NaN for a miss: a method that returns no pose has failed.
"""

import torch
from torch import Tensor

from svdrot import _deprecated
from svdrot._checks import check_items, check_mask, check_shape, common_batch
from svdrot._displacements import counted, distances, live, mean, squared_distances
from svdrot._precision import compute_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import product, root
from svdrot.evaluation._pose_pairs import check_pairs
from svdrot.metrics import geodesic_distance
from svdrot.registration.clouds.neighbors import nearest
from svdrot.representations import matrix_to_quaternion
from svdrot.transform import Transform, check_transform


def rotation_error(estimate: Transform, truth: Transform) -> Tensor:
    """Return the angle between the rotations of two poses (RRE); see `svdrot.geodesic_distance`.

    Args:
        estimate: poses (...).
        truth: poses (...); batch dimensions broadcast.

    Returns:
        Shape (...), radians in [0, pi]; NaN where a rotation is not finite.

    Raises:
        ValueError: if batch dimensions do not broadcast, or the poses are not of points in space.
        TypeError: if an argument is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.1]))
        >>> estimate = svdrot.Transform(turn, torch.zeros(3), torch.tensor(1.0))
        >>> truth = svdrot.Transform.identity()
        >>> svdrot.evaluation.poses.rotation_error(estimate, truth)
        tensor(0.1000)
    """
    _check_poses(estimate, truth)
    return geodesic_distance(estimate.rotation, truth.rotation)


def _check_poses(estimate: Transform, truth: Transform, **others: torch.Size) -> torch.Size:
    """Check two poses; return what their batch dimensions, and others, broadcast to."""
    check_transform("estimate", estimate)
    check_transform("truth", truth)
    poses = {"estimate": estimate.translation.shape[:-1], "truth": truth.translation.shape[:-1]}
    return common_batch(**poses, **others)


def translation_error(estimate: Transform, truth: Transform) -> Tensor:
    """Return the distance between the translations of two poses (RTE).

    It is the error at the origin of the source. Far from the points an angle that hardly moves them makes it
    large; `point_rmse` does not depend on where the origin is.

    Args:
        estimate: poses (...).
        truth: poses (...); batch dimensions broadcast.

    Returns:
        Shape (...), in the units of the translations; NaN where one is not finite.

    Raises:
        ValueError: if batch dimensions do not broadcast, or the poses are not of points in space.
        TypeError: if an argument is not a `Transform`.

    Example:
        >>> import torch, svdrot
        >>> estimate = svdrot.Transform(torch.eye(3), torch.tensor([3.0, 4.0, 0.0]), torch.tensor(1.0))
        >>> svdrot.evaluation.poses.translation_error(estimate, svdrot.Transform.identity())
        tensor(5.)
    """
    _check_poses(estimate, truth)
    return torch.linalg.vector_norm(estimate.translation - truth.translation, dim=-1)


@takes_arrays
def symmetric_rotation_error(estimate: Tensor, truth: Tensor, symmetries: Tensor) -> Tensor:
    r"""Return the angle to the nearest of the rotations that look alike, $\min_S \angle(\hat R, R S)$.

    Args:
        estimate: rotations, shape (..., 3, 3).
        truth: rotations, shape (..., 3, 3).
        symmetries: rotations that take the object to itself, in its own frame, shape (..., K, 3, 3). They
            should be a group, and so hold the identity; an axis of revolution is given by many of its turns.

    Returns:
        Angles, shape (...), radians in [0, pi]; NaN where a rotation is not finite.

    Raises:
        ValueError: if shapes do not fit, or there is no symmetry, not even the identity.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Hodaň et al., "BOP: Benchmark for 6D Object Pose Estimation", ECCV 2018.

    Example:
        >>> import torch, svdrot
        >>> flipped = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))  # half a turn about z
        >>> box = torch.stack((torch.eye(3), flipped))  # looks the same after it
        >>> svdrot.evaluation.poses.symmetric_rotation_error(flipped, torch.eye(3), box)
        tensor(0.)
    """
    check_shape("estimate", estimate, 3, 3)
    check_shape("truth", truth, 3, 3)
    check_shape("symmetries", symmetries, 3, 3)
    if symmetries.ndim < 3 or symmetries.shape[-3] == 0:
        raise ValueError(
            f"`symmetries` must have shape (..., K, 3, 3) with K >= 1; got {tuple(symmetries.shape)}."
        )
    batches = {"estimate": estimate.shape[:-2], "truth": truth.shape[:-2]}
    common_batch(**batches, symmetries=symmetries.shape[:-3])
    alike = product(truth[..., None, :, :], symmetries)
    return geodesic_distance(estimate[..., None, :, :], alike).amin(-1)


@_deprecated.points_first
@takes_arrays
def add(estimate: Transform, truth: Transform, points: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the average distance between where two poses put the points of a model (ADD).

    Args:
        estimate: poses (...).
        truth: poses (...).
        points: of the model, shape (..., N, 3).
        mask: boolean, shape (..., N): points that count.

    Returns:
        Shape (...), in the units of the points; NaN if no point counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a `Transform` or a tensor of the right kind.

    Source:
        Hinterstoisser et al., "Model Based Training, Detection and Pose Estimation of Texture-Less 3D Objects
        in Heavily Cluttered Scenes", ACCV 2012.

    Example:
        >>> import torch, svdrot
        >>> model = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
        >>> estimate = svdrot.Transform(torch.eye(3), torch.tensor([0.0, 0.0, 0.5]), torch.tensor(1.0))
        >>> svdrot.evaluation.poses.add(estimate, svdrot.Transform.identity(), model)
        tensor(0.5000)
    """
    return mean(distances(counted(points, mask, estimate, truth), estimate, truth), mask)


@_deprecated.points_first
@takes_arrays
def point_rmse(
    estimate: Transform, truth: Transform, points: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """Return the root mean square distance between where two poses put points.

    Args:
        estimate: poses (...).
        truth: poses (...).
        points: shape (..., N, 3).
        mask: boolean, shape (..., N): points that count.

    Returns:
        Shape (...), in the units of the points; NaN if no point counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a `Transform` or a tensor of the right kind.

    Example:
        >>> import torch, svdrot
        >>> points = torch.tensor([[1.0, 0.0, 0.0], [7.0, 0.0, 0.0]])
        >>> half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
        >>> estimate = svdrot.Transform(half_turn, torch.zeros(3), torch.tensor(1.0))
        >>> svdrot.evaluation.poses.point_rmse(estimate, svdrot.Transform.identity(), points)
        tensor(10.)
    """
    return root(mean(squared_distances(counted(points, mask, estimate, truth), estimate, truth), mask))


@_deprecated.points_first
@takes_arrays
def add_symmetric(
    estimate: Transform, truth: Transform, points: Tensor, *, mask: Tensor | None = None
) -> Tensor:
    """Return the average distance of true points of a model to the nearest estimated ones (ADD-S, or ADI).

    For objects that look alike in different poses, whichever those are. It is never above ADD, and small for
    many wrong poses of a compact object. Differentiable: the neighbors are constants.

    Args:
        estimate: poses (...).
        truth: poses (...).
        points: of the model, shape (..., N, 3).
        mask: boolean, shape (..., N): points that count.

    Returns:
        Shape (...), in the units of the points; NaN if no point counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a `Transform` or a tensor of the right kind.

    Source:
        Hinterstoisser et al., ACCV 2012; Xiang et al., "PoseCNN", RSS 2018.

    Example:
        >>> import torch, svdrot
        >>> stick = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> swapped = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))  # its ends
        >>> estimate = svdrot.Transform(swapped, torch.zeros(3), torch.tensor(1.0))
        >>> svdrot.evaluation.poses.add_symmetric(estimate, svdrot.Transform.identity(), stick)
        tensor(0.)
    """
    points = counted(points, mask, estimate, truth)
    return mean(_distance_to_nearest(truth.apply(points), estimate.apply(points), mask), mask)


@takes_arrays
def chamfer_distance(
    source: Tensor,
    target: Tensor,
    source_surface: Tensor | None = None,
    target_surface: Tensor | None = None,
) -> Tensor:
    """Return the mean square distance of the source to the target's surface, plus that the other way round.

    Given only the clouds, the Chamfer distance between them. With the clouds in noise and in part, and the
    whole clean surfaces, the modified one of RPM-Net, which a right pose makes small where clouds overlap in
    part. Source and its surface are to be moved by the estimate before. Differentiable: the neighbors are
    constants.

    Args:
        source: shape (..., N, 3).
        target: shape (..., M, 3).
        source_surface: shape (..., A, 3); `source` if None.
        target_surface: shape (..., B, 3); `target` if None.

    Returns:
        Shape (...), in the square of the units of the points; NaN if a cloud is empty.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a floating-point tensor.

    Source:
        Yew and Lee, "RPM-Net: Robust Point Matching using Learned Features", CVPR 2020.

    Example:
        >>> import torch, svdrot
        >>> source = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
        >>> target = torch.tensor([[1.0, 0.0, 0.0], [4.0, 0.0, 2.0]])
        >>> svdrot.evaluation.poses.chamfer_distance(source, target)  # (1 + 4) / 2 from either side
        tensor(5.)
    """
    surfaces = {"source_surface": source_surface, "target_surface": target_surface}
    clouds = {"source": source, "target": target}
    clouds |= {name: surface for name, surface in surfaces.items() if surface is not None}
    for name, cloud in clouds.items():
        check_shape(name, cloud, 3)
        if cloud.ndim < 2:
            raise ValueError(f"`{name}` must have shape (..., N, 3); got {tuple(cloud.shape)}.")
    common_batch(**{name: cloud.shape[:-2] for name, cloud in clouds.items()})
    there = _distance_to_nearest(source, target if target_surface is None else target_surface)
    back = _distance_to_nearest(target, source if source_surface is None else source_surface)
    return there.square().mean(-1) + back.square().mean(-1)


def _distance_to_nearest(queries: Tensor, points: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the distance from each query to the nearest of `points` (..., M, 3) that count, (..., N).

    NaN where there is none, and all NaN if a point that counts is not finite.
    """
    bad = ~points.isfinite().all(-1)
    bad = bad if mask is None else bad & mask
    distances = nearest(queries, points, mask=mask)[0]
    return torch.where(bad.any(-1, keepdim=True) | distances.isinf(), torch.nan, distances)


@takes_arrays
def recall_curve(errors: Tensor, thresholds: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the share of errors strictly below each threshold.

    Args:
        errors: shape (..., N). A NaN, and infinity, is below none.
        thresholds: shape (T,), in the units of the errors.
        mask: boolean, shape (..., N): errors that count.

    Returns:
        Shape (..., T), in [0, 1], the dtype that of the errors; NaN if no error counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if `errors` is not a floating-point, or `mask` not a boolean tensor.

    Example:
        >>> import torch, svdrot
        >>> degrees = torch.tensor([1.0, 4.0, 12.0, torch.nan])
        >>> svdrot.evaluation.poses.recall_curve(degrees, torch.tensor([5.0, 10.0, 15.0]))
        tensor([0.5000, 0.5000, 0.7500])
    """
    errors, counting = live("errors", errors, mask)
    if not isinstance(thresholds, Tensor) or thresholds.ndim != 1 or thresholds.is_complex():
        got = tuple(thresholds.shape) if isinstance(thresholds, Tensor) else type(thresholds).__name__
        raise ValueError(f"`thresholds` must be a tensor of shape (T,); got {got}.")
    counted = torch.where(counting & ~errors.isnan(), errors, torch.inf).detach().sort(-1).values.contiguous()
    wanted = thresholds.to(counted.dtype).expand(*errors.shape[:-1], -1).contiguous()
    counts = counting.sum(-1, keepdim=True).to(compute_dtype(errors))  # beyond 65,504 is no number in float16
    share = torch.searchsorted(counted, wanted) / counts
    return torch.where(wanted.isnan(), torch.nan, share).to(errors.dtype)


@takes_arrays
def area_under_recall(errors: Tensor, maximum: float, *, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean of the recall over thresholds from 0 to `maximum`: of ADD with 0.1 m, the AUC of YCB.

    The integral itself, $\frac 1 N \sum_i (1 - e_i / e_{\max})_+$. The program that comes with the data sums
    rectangles, and is higher by at most 1 / N.

    Args:
        errors: shape (..., N), at least 0. A NaN counts as infinite.
        maximum: positive, in the units of the errors.
        mask: boolean, shape (..., N): errors that count.

    Returns:
        Shape (...), in [0, 1]; NaN if no error counts.

    Raises:
        ValueError: if shapes do not fit, or `maximum` is not positive.
        TypeError: if `errors` is not a floating-point, or `mask` not a boolean tensor.

    Source:
        Xiang et al., "PoseCNN", RSS 2018.

    Example:
        >>> import torch, svdrot
        >>> meters = torch.tensor([0.0, 0.05, 0.3, torch.nan])
        >>> svdrot.evaluation.poses.area_under_recall(meters, 0.1)
        tensor(0.3750)
    """
    errors, counts = live("errors", errors, mask)
    if not maximum > 0:
        raise ValueError(f"`maximum` must be positive; got {maximum}.")
    kept = torch.where(counts & ~errors.isnan(), errors, torch.inf).to(compute_dtype(errors))
    return ((1 - kept / maximum).clamp_min(0).sum(-1) / counts.sum(-1)).to(errors.dtype)


@takes_arrays
def information_rmse(estimate: Transform, truth: Transform, information: Tensor) -> Tensor:
    r"""Return the root mean square distance of corresponding points, from the moments of the points alone.

    With $E = T^{-1} \hat T$ as a translation $t$ and a unit quaternion $(w, q)$, $w \ge 0$, a point $x$ moves
    by $t + 2 q \times x$ to first order. The mean square over n points is $e^\top \Lambda e / \Lambda_{00}$
    for $e = (t, q)$ and $\Lambda = \sum G^\top G$ with $G = (I, -2 [x]_\times)$, where $\Lambda_{00} = n$.

    Args:
        estimate: poses (...).
        truth: poses (...).
        information: $\Lambda$, shape (..., 6, 6), as in a file gt.info.

    Returns:
        Shape (...), in the units of the points; NaN where something is not finite.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a `Transform` or a floating-point tensor.

    Source:
        Choi, Zhou and Koltun, "Robust Reconstruction of Indoor Scenes", CVPR 2015, and the
        evaluation of 3DMatch.

    Example:
        >>> import torch, svdrot
        >>> information = torch.diag(torch.tensor([50.0, 50.0, 50.0, 9.0, 9.0, 9.0]))  # 50 points
        >>> estimate = svdrot.Transform(torch.eye(3), torch.tensor([0.0, 0.25, 0.0]), torch.tensor(1.0))
        >>> svdrot.evaluation.poses.information_rmse(estimate, svdrot.Transform.identity(), information)
        tensor(0.2500)
    """
    check_shape("information", information, 6, 6)
    _check_poses(estimate, truth, information=information.shape[:-2])
    left = truth.inverse() @ estimate
    q = matrix_to_quaternion(left.rotation)
    e = torch.cat((left.translation, torch.where(q[..., :1] < 0, -q, q)[..., 1:]), -1)
    squared = (e[..., :, None] * information * e[..., None, :]).sum((-2, -1)) / information[..., 0, 0]
    return root(squared.clamp_min(0))


@takes_arrays
def registration_recall(rmse: Tensor, pairs: Tensor, *, threshold: float = 0.2) -> Tensor:
    """Return the share of the pairs of a scene that are registered (RR of 3DMatch), without consecutive ones.

    Args:
        rmse: of every pair that has a true pose, shape (..., P), from `information_rmse`. NaN, as of a pair
            without an estimate, is a miss.
        pairs: numbers i < j of the fragments, shape (P, 2). Pairs with j = i + 1 overlap by construction and
            do not count.
        threshold: meters; strictly below is registered.

    Returns:
        Shape (...), in [0, 1]; NaN if no pair counts. The mean over scenes is the published figure.

    Raises:
        ValueError: if shapes do not fit, or `pairs` are not integers.
        TypeError: if `rmse` is not a floating-point tensor, or `pairs` no tensor.

    Source:
        Choi, Zhou and Koltun, CVPR 2015; Zeng et al., "3DMatch", CVPR 2017.

    Example:
        >>> import torch, svdrot
        >>> pairs = torch.tensor([[0, 1], [0, 2], [1, 3]])
        >>> svdrot.evaluation.poses.registration_recall(torch.tensor([0.9, 0.1, torch.nan]), pairs)
        tensor(0.5000)
    """
    check_items("rmse", rmse)
    check_pairs(pairs)
    if len(pairs) != rmse.shape[-1]:
        raise ValueError(f"`pairs` must have shape ({rmse.shape[-1]}, 2); got {tuple(pairs.shape)}.")
    return _share(rmse < threshold, pairs[:, 1] > pairs[:, 0] + 1)


@takes_arrays
def pose_recall(
    estimate: Transform,
    truth: Transform,
    *,
    rotation: float = 0.2617993877991494,
    translation: float = 0.3,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the share of poses with both errors strictly below a limit: the recall of 3DMatch and of KITTI.

    Args:
        estimate: poses (..., P). NaN is a miss.
        truth: poses (..., P).
        rotation: radians; 15 degrees by default, as for 3DMatch.
        translation: in the units of the translations; 0.3 m by default. For KITTI 5 degrees and 0.6 m are in
            use, and also 2 m, which is not comparable.
        mask: boolean, shape (..., P): poses that count.

    Returns:
        Shape (...), in [0, 1]; NaN if no pose counts.

    Raises:
        ValueError: if shapes do not fit, or the poses have no batch dimension.
        TypeError: if an argument is not a `Transform`, or `mask` not boolean.

    Source:
        Choy, Dong and Koltun, "Deep Global Registration", CVPR 2020.

    Example:
        >>> import torch, svdrot
        >>> off = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.5, 0.0]])
        >>> estimate = svdrot.Transform(torch.eye(3).expand(2, 3, 3), off, torch.ones(2))
        >>> svdrot.evaluation.poses.pose_recall(estimate, svdrot.Transform.identity())
        tensor(0.5000)
    """
    batch = _check_poses(estimate, truth)
    if not batch:
        raise ValueError("`estimate` and `truth` must be poses of shape (..., P); got one each.")
    if mask is not None:
        check_mask("mask", mask, batch[-1])
        common_batch(poses=batch, mask=mask.shape)
    hit = (rotation_error(estimate, truth) < rotation) & (translation_error(estimate, truth) < translation)
    return _share(hit, mask)


@takes_arrays
def inlier_ratio(
    source: Tensor,
    target: Tensor,
    transform: Transform,
    *,
    distance: float = 0.1,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the share of correspondences that the transform brings within a distance of each other (IR).

    Args:
        source: shape (..., N, 3).
        target: the same number of points, pair by pair.
        transform: the true one, shape (...).
        distance: in the units of the points; strictly below is an inlier.
        mask: boolean, shape (..., N): correspondences that count.

    Returns:
        Shape (...), in [0, 1]; NaN if none counts, or one that does is not finite.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not a `Transform` or a tensor of the right kind.

    Source:
        Deng, Birdal and Ilic, "PPFNet", CVPR 2018.

    Example:
        >>> import torch, svdrot
        >>> source = torch.zeros(4, 3)
        >>> target = torch.tensor([[0.0, 0.0, 0.01], [0.0, 0.0, 0.05], [0.0, 0.0, 0.5], [1.0, 0.0, 0.0]])
        >>> svdrot.evaluation.poses.inlier_ratio(source, target, svdrot.Transform.identity())
        tensor(0.5000)
    """
    check_shape("source", source, 3)
    if source.ndim < 2:
        raise ValueError(f"`source` must have shape (..., N, 3); got {tuple(source.shape)}.")
    check_shape("target", target, source.shape[-2], 3)
    check_transform("transform", transform)
    batches = {"source": source.shape[:-2], "target": target.shape[:-2]}
    if mask is not None:
        batches["mask"] = check_mask("mask", mask, source.shape[-2]).shape[:-1]
    common_batch(**batches, transform=transform.translation.shape[:-1])
    apart = torch.linalg.vector_norm(transform.apply(source) - target, dim=-1)
    inlier = torch.where(apart.isnan(), torch.nan, (apart < distance).to(apart.dtype))
    return mean(inlier, mask)


@takes_arrays
def feature_matching_recall(ratios: Tensor, *, threshold: float = 0.05, mask: Tensor | None = None) -> Tensor:
    """Return the share of pairs of clouds whose inlier ratio is strictly above a threshold (FMR).

    Args:
        ratios: shape (..., P), from `inlier_ratio`. A NaN, as of a pair without correspondences, is a miss.
        threshold: 5 percent by default, which leaves enough to a robust estimator.
        mask: boolean, shape (..., P): pairs that count.

    Returns:
        Shape (...), in [0, 1]; NaN if no pair counts.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if `ratios` is not a floating-point, or `mask` not a boolean tensor.

    Source:
        Deng, Birdal and Ilic, "PPFNet", CVPR 2018.

    Example:
        >>> import torch, svdrot
        >>> ratios = torch.tensor([0.4, 0.02, 0.1, torch.nan])
        >>> svdrot.evaluation.poses.feature_matching_recall(ratios)
        tensor(0.5000)
    """
    ratios, counts = live("ratios", ratios, mask)
    return _share(ratios > threshold, counts)


def _share(hit: Tensor, mask: Tensor | None) -> Tensor:
    """Return the share of hits among those that count, (...)."""
    return mean(hit.to(torch.get_default_dtype()), mask)
