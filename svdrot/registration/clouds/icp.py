"""Iterated closest points: pair each point of the source with the nearest of the target, step, repeat."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from svdrot import _deprecated
from svdrot._checks import check_choice, check_positive, check_shape, common_batch
from svdrot._precision import result_dtype
from svdrot._robust_kernels import KERNELS
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import one_batch
from svdrot.projection import special_orthogonalize
from svdrot.registration._flat import is_flat, lowered, raised, raised_start
from svdrot.registration._motions import Limits, checked_axis
from svdrot.registration._points import Points
from svdrot.registration._uncertainty import normalized_error
from svdrot.registration.clouds import _steps
from svdrot.registration.clouds._clouds import Clouds
from svdrot.registration.clouds._iterations import Aligner, State, Status
from svdrot.registration.clouds._verdict.settled import exactness
from svdrot.transform import Transform, check_transform

METHODS = tuple(_steps.METHODS)
ROUNDED = 0.03  # from a rotation, Frobenius norm: what two decimals leave of one


REASONS = {
    Status.CONVERGED: "converged",
    Status.ITERATIONS: "the last iteration still moved the cloud",
    Status.UNOBSERVABLE: "the pairs do not determine some directions, along which the pose means nothing",
    Status.NO_OVERLAP: "fewer than three points have a usable neighbor within the distance",
    Status.EMPTY: "a cloud has no finite point that counts",
    Status.NOT_FINITE: "the initial transform or a step is not finite",
}


@dataclass(frozen=True)
class Iteration:
    """Describe one iteration of all clouds of the batch; NaN for those that were done before.

    Attributes:
        scale: which scale, from 0 on.
        number: which iteration of that scale, from 0 on.
        fitness: before the step, as in `Registration`; shape (...).
        rmse: likewise.
        angle: by which the step turned the cloud, radians, shape (...).
        length: how far the step moved the center of the pairs, in the units of the points, shape (...).

    Example:
        >>> import torch, svdrot
        >>> cloud = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
        >>> steps = []
        >>> _ = svdrot.registration.icp(cloud, cloud, max_distance=0.1, progress=steps.append)
        >>> [(step.number, step.fitness.item(), round(step.length.item(), 6)) for step in steps]
        [(0, 1.0, 0.0)]
    """

    scale: int
    number: int
    fitness: Tensor
    rmse: Tensor
    angle: Tensor
    length: Tensor


@dataclass(frozen=True)
class Registration:
    """Describe where ICP ended, and how well the clouds and their pairs determine that.

    Attributes:
        transform: from source to target, shapes (..., 3, 3), (..., 3) and (...).
        fitness: share of the source's points with a neighbor within the distance, in [0, 1], shape (...).
        rmse: root of the mean square of the distances of those, NaN where there is none, shape (...).
        correspondences: shape (..., N), index in `target` of each point of `source`, M where there is none.
        status: `Status`, shape (...).
        iterations: how many, over all scales, shape (...).
        history: each `Iteration`, in order.
        source: the clouds (..., N, 3) of the last scale, NaN past their ends.
        target: likewise, (..., M, 3).
        normal_matrix: of the last step, shape (..., 6, 6), for the unknowns (`radius` times the rotation
            vector about `pivot`, translation), all lengths. Where it is soft, the part that the normals of
            both clouds agree on, without what their noise adds.
        pivot: center of the paired points in the frame of the target, shape (..., 3).
        radius: their root mean square distance from it, shape (...).
        motion: "free", "yaw" or "planar": what was allowed. `normal_matrix` is 0 along the rest.
        axis: the unit axis (..., 3) of a motion that is not free, float64.

    Example:
        >>> import torch, svdrot
        >>> x, y = torch.rand(2, 400, generator=torch.Generator().manual_seed(0))
        >>> floor = torch.stack((x, y, 0 * x), -1)  # slides along itself, and turns about its normal
        >>> found = svdrot.registration.icp(floor, floor, max_distance=0.1)
        >>> bool(found.converged), int(found.unobservable.sum())
        (False, 3)
        >>> found.reasons
        ['the pairs do not determine some directions, along which the pose means nothing']
    """

    transform: Transform
    fitness: Tensor
    rmse: Tensor
    correspondences: Tensor
    status: Tensor
    iterations: Tensor
    history: list[Iteration]
    source: Tensor
    target: Tensor
    normal_matrix: Tensor
    pivot: Tensor
    radius: Tensor
    motion: str = "free"
    axis: Tensor | None = None

    @property
    def converged(self) -> Tensor:
        """Return whether the last step of each cloud was below both tolerances, boolean, shape (...)."""
        return self.status == Status.CONVERGED

    @property
    def reasons(self) -> list[str]:
        """Return why the iterations ended, in words, one for each cloud of the flattened batch."""
        return [REASONS[Status(code)] for code in self.status.flatten().tolist()]

    @property
    def information(self) -> Tensor:
        """Return the inverse covariance of (rotation vector about `pivot`, translation), shape (..., 6, 6).

        The rotation vector is in radians. For residuals of unit variance; divide by theirs. Zero without a
        step, and along motions that were not allowed.
        """
        unit = torch.cat(
            (self.radius[..., None].expand(*self.radius.shape, 3), torch.ones_like(self.pivot)), -1
        )
        return unit[..., :, None] * self.normal_matrix * unit[..., None, :]

    @property
    def covariance(self) -> Tensor:
        """Return the covariance of the twist from the pose to the true one, shape (..., 6, 6), float64.

        That is (rotation vector in radians about `center`, translation), in the frame of the target; 0 along
        what was not allowed, or that the normals of both clouds do not agree on. Computed when asked for, as
        that of a `Verdict` is, in 10 to 80 ms an item: by points of one density and the distances that they
        have from the planes of their own cloud. NaN where few points lie on each other, or form no surface,
        and of clouds of the plane.
        Pairs are taken for right: `judge` tells whether they are. Pairs of points slip along surfaces, where
        this is too small. Not differentiable.
        """
        return self._exactness[0]

    @property
    def center(self) -> Tensor:
        """Return the middle of the points that agree, in the frame of the target, shape (..., 3), float64."""
        return self._exactness[1]

    def normalized_error(self, transform: Transform) -> Tensor:
        """Return how far another pose is from this one in standard deviations, shape (...).

        Args:
            transform: from source to target.

        Returns:
            The root of twist' C^-1 twist, with C `covariance`, along motions that are not fixed. NaN where
            the covariance is, or is 0, as where no motion is held.

        Raises:
            TypeError: if `transform` is not a `Transform`.

        Example:
            >>> import torch, svdrot
            >>> x, y = 2 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 1
            >>> dune = torch.stack((x, y, 0.3 * torch.sin(3 * x + y**2) + 0.2 * x * y), -1)
            >>> found = svdrot.registration.icp(dune[:2000], dune[2000:], max_distance=0.1)
            >>> bool(found.normalized_error(svdrot.Transform.identity()) < 5)
            True
        """
        check_transform("transform", transform, self.source.shape[-1])
        if self.source.shape[-1] == 2:
            return self._exactness[2]
        return normalized_error(*self._exactness, self.transform, transform)

    @cached_property
    def _exactness(self) -> tuple[Tensor, Tensor, Tensor]:
        """The covariance, its center, and a radius of the points about that."""
        batch = self.fitness.shape
        if self.source.shape[-1] == 2:
            nan = self.fitness.new_full((*batch, 6, 6), torch.nan, dtype=torch.float64)
            return nan, nan[..., 0, :3], nan[..., 0, 0]
        t = self.transform
        poses = (t.rotation.reshape(-1, 3, 3), t.translation.reshape(-1, 3), t.scale.reshape(-1))
        clouds = (one_batch(cloud) for cloud in (self.source, self.target))
        allowed = None if self._limits is None else self._limits.projector
        found = [
            exactness(x, y, Transform(*pose), None if allowed is None else allowed[i])
            for i, (x, y, *pose) in enumerate(zip(*clouds, *poses, strict=True))
        ]
        parts = [(6, 6), (3,), ()]
        return tuple(  # pyright: ignore[reportReturnType]
            torch.stack([row[k] for row in found]).reshape(batch + shape)
            if found
            else self.pivot.new_zeros(batch + shape, dtype=torch.float64)
            for k, shape in enumerate(parts)
        )

    @property
    def stiffness(self) -> Tensor:
        """Return the eigenvalues of `normal_matrix` over the largest, ascending, shape (..., 6).

        All 0 without a step. First come those of motions that were not allowed, 0.
        """
        matrix = one_batch(self.normal_matrix)
        values = _steps.eigen(matrix, self._limits)[0].reshape(self.normal_matrix.shape[:-1])
        top = values[..., -1:]
        return values.clamp(min=0) / torch.where(top > 0, top, 1)

    @property
    def directions(self) -> Tensor:
        """Return the eigenvectors of `normal_matrix`, columns of (..., 6, 6), in the order of `stiffness`."""
        shape = self.normal_matrix.shape
        return _steps.eigen(one_batch(self.normal_matrix), self._limits)[1].reshape(shape)

    @property
    def unobservable(self) -> Tensor:
        """Return which of `directions` the pairs leave open, boolean, shape (..., 6).

        Those that were not allowed are not open.
        """
        open_ = self.stiffness <= _steps.OBSERVABLE
        if self._limits is not None:
            open_[..., : self._limits.closed] = False
        return open_

    @property
    def _limits(self) -> Limits | None:
        return None if self.axis is None else Limits(self.motion, one_batch(self.axis, 1))


@_deprecated.renamed_arguments("svdrot.registration.icp")
@takes_arrays
def icp(
    source: Points,
    target: Points,
    *,
    max_distance: float | None = None,
    init: Transform | Tensor | None = None,
    method: str = "point_to_plane",
    kernel: str = "none",
    kernel_parameter: float | None = None,
    max_iterations: int = 50,
    angle_tolerance: float = 1e-5,
    length_tolerance: float | None = None,
    scales: Sequence[tuple[float | None, float, int]] | None = None,
    weights: Points | None = None,
    source_mask: Points | None = None,
    target_mask: Points | None = None,
    source_normals: Points | None = None,
    target_normals: Points | None = None,
    source_covariances: Points | None = None,
    target_covariances: Points | None = None,
    neighbors: int = 20,
    motion: str = "free",
    axis: Tensor | None = None,
    progress: Callable[[Iteration], Any] | None = None,
) -> Registration:
    """Find the rigid motion of the source, near an initial one, that brings it closest to the target.

    Every item of a batch converges for itself, and none changes another. The transform is differentiable in
    source, target and weights through the last step: pairs, normals, robust weights and the pose before that
    step are constants.

    Args:
        source: shape (..., N, 3), any floating dtype, or a list of clouds (N_i, 3). Points that are not
            finite are left out. Clouds of the plane, (..., N, 2), as of laser scanners, are aligned in it:
            then normals, covariances and `init` are those of the plane, too.
        target: shape (..., M, 3) or a list; batch dimensions broadcast.
        max_distance: of paired points, in their units. Required without `scales`.
        init: transform or matrices (..., 4, 4) to start from; its scale is kept. Rotations may have the few
            decimals of a text. Default: the identity.
        method: "point_to_point", "point_to_plane", "symmetric" or "generalized" (planes to planes).
        kernel: weights of the residuals (of the distance to the plane, ...; in units of standard deviations
            for "generalized"): "none", "trimmed", or a row of
            `svdrot.registration.KERNELS`: "huber", "tukey" or "geman_mcclure".
        kernel_parameter: the residual where the kernel sets in. Default: from the median of the residuals,
            for 95 % efficiency on Gaussian noise. For "trimmed" the share that is kept, 0.8 by default.
        max_iterations: at least 0.
        angle_tolerance: radians. An item has converged when a step turns it no more than that and
        length_tolerance: moves it no more than this. Default: 1e-4 of the distance of pairs.
        scales: (voxel, max_distance, iterations) from coarse to fine, in place of `max_distance` and
            `max_iterations`, each with clouds downsampled by the voxel unless it is None; for example ((0.1,
            0.3, 20), (0.05, 0.14, 15), (0.025, 0.07, 10)), with which Open3D's tutorial aligns rooms.
        weights: of the points of the source, shape (..., N), at least 0. Default: 1.
        source_mask: boolean, shape (..., N): points that count.
        target_mask: boolean, shape (..., M), likewise.
        source_normals: unit normals, shape (..., N, 3); their signs do not matter. Where the method needs
            some and none are given: of the `neighbors` nearest points, at a scale with a voxel of those
            within two voxels.
        target_normals: likewise, shape (..., M, 3).
        source_covariances: shape (..., N, 3, 3), for "generalized". Default: discs about the normals. Points
            whose normal or covariance is NaN are not used for steps.
        target_covariances: likewise, shape (..., M, 3, 3).
        neighbors: number of points by which a normal is estimated.
        motion: "free"; "yaw", rotations about `axis` and any translation, as where gravity is known; or
            "planar", rotations about `axis` and translations across it, as of what drives on a floor. The
            motion begins at `init`, which may have any tilt and height: they are kept.
        axis: in the frame of the target, shape (..., 3), of any length but 0, which leaves its item as it
            was; batch dimensions broadcast. Constant to derivatives. Default: z.
        progress: called with each `Iteration`.

    Returns:
        `Registration`, of clouds of the plane with a transform of it, and all else as at height 0 with the
        motion "planar". Clouds without points, without three pairs, or whose pairs leave directions open
        (planes, lines, spheres) keep their last transform and are not `converged`; `reasons` says why.

    Raises:
        ValueError: if a name is unknown, shapes do not fit or a number is out of range.
        TypeError: if an argument is not a tensor of the right kind.
        NotImplementedError: under transforms of torch.func; those of torch.autograd may go through it.

    Source:
        Besl and McKay, IEEE TPAMI 14 (1992); Chen and Medioni (1992); Segal et al., "Generalized-ICP", RSS
        2009; Rusinkiewicz, "A Symmetric Objective Function for ICP", SIGGRAPH 2019.

    Example:
        >>> import torch, svdrot
        >>> x, y = 2 * torch.rand(2, 1000, generator=torch.Generator().manual_seed(0)) - 1
        >>> target = torch.stack((x, y, x * y + x**3), -1)
        >>> source = target + torch.tensor([0.02, 0.0, -0.02])
        >>> found = svdrot.registration.icp(source, target, max_distance=0.2)
        >>> bool(found.converged), torch.allclose(found.transform.apply(source), target, atol=1e-4)
        (True, True)
    """
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError("icp has no transforms of torch.func; those of torch.autograd it has.")
    check_choice("method", method, METHODS)
    check_choice("kernel", kernel, ("none", "trimmed", *KERNELS))
    if kernel_parameter is not None:
        check_positive("kernel_parameter", kernel_parameter)
        if kernel == "trimmed" and kernel_parameter > 1:
            raise ValueError(f"`kernel_parameter` of trimmed is a share, at most 1; got {kernel_parameter}.")
    if (max_distance is None) == (scales is None):
        raise ValueError("Either `max_distance` or `scales` must be given.")
    plan = [(None, max_distance, max_iterations)] if max_distance is not None else list(scales or ())
    if not plan:
        raise ValueError("`scales` must hold at least one (voxel, max_distance, iterations); got none.")
    for stage in plan:
        if not isinstance(stage, (tuple, list)) or len(stage) != 3:
            raise ValueError(f"`scales` must hold (voxel, max_distance, iterations); got {stage!r}.")
        voxel, limit, count = stage
        check_positive("max_distance", limit)
        if voxel is not None:
            check_positive("voxel", voxel)
        if count < 0:
            raise ValueError(f"`max_iterations` must be at least 0; got {count}.")
    needs, flat = _steps.METHODS[method], is_flat(source)
    if flat:
        if motion != "free" or axis is not None:
            raise ValueError(f'`motion` must be "free" for clouds of the plane; got "{motion}".')
        motion, init = "planar", raised_start(init)
        source, target = raised("source", source), raised("target", target)  # pyright: ignore
        source_normals = raised("source_normals", source_normals)
        target_normals = raised("target_normals", target_normals)
        source_covariances = raised("source_covariances", source_covariances, True)
        target_covariances = raised("target_covariances", target_covariances, True)
    given = (
        Clouds.of("source", source, source_mask, weights, source_normals, source_covariances, flat),
        Clouds.of("target", target, target_mask, None, target_normals, target_covariances, flat),
    )
    axis = checked_axis(motion, axis, given[0].points)
    batches = {"source": given[0].points.shape[:-2], "target": given[1].points.shape[:-2]}
    batch = common_batch(**batches, **({} if axis is None else {"axis": axis.shape[:-1]}))
    dtype = result_dtype(given[0].points.to(torch.promote_types(*(cloud.points.dtype for cloud in given))))
    start = initial(init, batch, given[0].points)
    limits = None if axis is None else Limits(motion, one_batch(axis.detach().expand(*batch, 3), 1))
    size = start.scale[:, None, None]
    from_, to = (cloud.flattened(batch) for cloud in given)
    from_ = replace(from_, points=size * from_.points)
    from_, center_from = from_.centered()
    to, center_to = to.centered()

    state = State.of(start, center_from, center_to, from_.valid, to.valid)
    begun = Transform(state.rotation.clone(), state.translation.clone(), torch.ones_like(start.scale))
    history: list[Iteration] = []

    def report(scale: int, number: int, *values: Tensor) -> None:
        history.append(Iteration(scale, number, *(value.reshape(batch) for value in values)))
        if progress is not None:
            progress(history[-1])

    fine = None
    for scale, (voxel, limit, count) in enumerate(plan):
        clouds = [
            cloud.at_scale(voxel).ready(need, neighbors, voxel)
            for cloud, need in ((from_, needs.source), (to, needs.target))
        ]
        tolerance = 1e-4 * limit if length_tolerance is None else length_tolerance
        fine = Aligner(clouds[0], clouds[1], needs, kernel, kernel_parameter, limit, limits, neighbors)
        with torch.no_grad():
            fine.run(state, count, angle_tolerance, tolerance, lambda *values, s=scale: report(s, *values))
    assert fine is not None
    rotation, translation = fine.last_step(state)
    with torch.no_grad():
        back = fine.settle(state, begun)
        fitness, rmse, correspondences = fine.evaluate(state)
    rotation, translation = back.rotation @ rotation, back.apply(translation[:, None])[:, 0]

    turned = (rotation @ center_from[..., None])[..., 0]
    transform = Transform(rotation, translation + center_to - turned, start.scale)

    def shaped(value: Tensor, kind: torch.dtype | None = dtype) -> Tensor:
        return value.to(kind or value.dtype).reshape((*batch, *value.shape[1:]))

    end = Transform(shaped(transform.rotation), shaped(transform.translation), shaped(transform.scale))
    coordinates = 2 if flat else 3
    return Registration(
        lowered(end) if flat else end,
        shaped(fitness),
        shaped(rmse),
        shaped(correspondences, None),
        shaped(state.status, None),
        shaped(state.iterations, None),
        history,
        shaped((fine.source.marked() + center_from[:, None]) / size).detach()[..., :coordinates],
        shaped(fine.target.marked() + center_to[:, None]).detach()[..., :coordinates],
        shaped(state.normal_matrix, torch.float64),
        shaped(state.pivot + center_to),
        shaped(state.radius),
        motion,
        None if limits is None else shaped(limits.axis, torch.float64),
    )


def evaluate(
    source: Tensor, target: Tensor, transform: Transform, max_distance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `fitness`, `rmse` and `correspondences` of `Registration` at a given transform.

    Args:
        source: shape (..., N, 3).
        target: shape (..., M, 3).
        transform: from source to target, batch shape (...).
        max_distance: of paired points, in their units.
    """
    at = icp(source, target, init=transform, max_distance=max_distance, max_iterations=0, method=METHODS[0])
    return at.fitness, at.rmse, at.correspondences


def initial(init: Transform | Tensor | None, batch: torch.Size, like: Tensor) -> Transform:
    """Return the initial transforms of the flattened batch in float64, of the device of `like`."""
    is_matrix = isinstance(init, Tensor)
    if init is None:
        init = Transform.identity(dtype=torch.float64, device=like.device)
    elif isinstance(init, Tensor):
        check_shape("init", init, 4, 4)
        init = Transform.from_matrix(init.double())
    elif not isinstance(init, Transform):
        raise TypeError(f"`init` must be a transform or a tensor; got {type(init).__name__}.")
    if (init.scale <= 0).any():
        raise ValueError(f"`init` must have positive scales; got {init.scale.min().item():.6g}.")
    parts = (("rotation", (3, 3)), ("translation", (3,)), ("scale", ()))
    values = []
    for part, trailing in parts:
        value = getattr(init, part).detach().to(like.device, torch.float64)
        try:
            value = value.expand((*batch, *trailing))
        except RuntimeError as error:
            wanted = f"{(*batch, *trailing)}"
            raise ValueError(f"`init` has a {part} of shape {tuple(value.shape)}, not {wanted}.") from error
        values.append(value.reshape((math.prod(batch), *trailing)))
    return _mended(Transform(*values), is_matrix)


def _mended(init: Transform, is_matrix: bool) -> Transform:
    """Take rotations that have the few decimals of a text for what they mean, and refuse what is none.

    So is the scale of a matrix taken for 1 where it differs from 1 by what rounds its rotation.
    """
    rotation = special_orthogonalize(init.rotation)
    off = torch.linalg.matrix_norm(rotation - init.rotation)
    if (off > ROUNDED).any():  # NaN is bad data: its item gets a status
        raise ValueError(f"`init` must hold rotations; got a matrix that is {off.max().item():.2g} from one.")
    scale = torch.where((init.scale - 1).abs() <= 4 * off, 1, init.scale) if is_matrix else init.scale
    return Transform(rotation, init.translation, scale)
