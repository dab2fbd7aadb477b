"""The verdict on an alignment: is it right, the only one, and how exact?"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._precision import result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot.registration._motions import Allowed, one_axis
from svdrot.registration._uncertainty import normalized_error
from svdrot.registration.clouds._verdict import rule, words
from svdrot.registration.clouds._verdict.surfaces import Both
from svdrot.registration.clouds._verdict.units import Units
from svdrot.transform import Transform, check_transform

ANSWERS = ("aligned", "free", "ambiguous", "doubtful")


@dataclass(frozen=True)
class Verdict:
    """Say what two clouds determine of the pose of one on the other.

    Twists are (rotation vector in radians, translation) of small motions x -> x + w × (x - `center`) + v in
    the frame of the target, the translation in the units of the points.

    Attributes:
        answer: "aligned": right, as far as the clouds can tell, and the only pose. "free": right, but some
            motions change nothing, or the size is open. "ambiguous": other poses fit as well. "doubtful":
            wrong, or not known.
        reasons: why it is not "aligned", in numbers, each a clause in English.
        transform: the pose, polished: moved to where the surfaces fit best, but not along free motions.
        free: twists of motions that change nothing, shape (k, 6), slides first; orthonormal if rotation
            vectors are multiplied by `radius`.
        rivals: other poses that fit as well, shapes (R, 3, 3), (R, 3) and (R,).
        covariance: of the twist from the pose to the true one, shape (6, 6), along free motions zero; NaN
            where too few points agree.
        center: of the points that agree, in the frame of the target, shape (3,).
        radius: their root mean square distance from it.
        misfit: mean square of the residuals of each cloud from the other's surface over that within each
            cloud: about 1, at most 1.8, if both show one surface; infinite if too little lies near.
        cover: share of what determines the poses of the clouds that agrees, less what contradicts.
        scale: by which the source would have to be multiplied to fit best. It is exact near 1 only.
        scale_error: standard error of it; infinite if it was to be found, and is open.
        axes: twists along which the clouds determine the pose least to best, one in a row, of unit length
            with rotation vectors times `radius`, shape (6, 6), or (k, 6) if k motions are allowed.
        spread: standard deviation of the pose along each, of such lengths, over the size of the smaller
            cloud, with one standard error less of information; at most 0.013 where a motion is not free.
        moved: whether the search for other poses put a better one in the place of the one given.

    Example:
        >>> import torch, svdrot
        >>> x, y = 2 * torch.rand(2, 2000, generator=torch.Generator().manual_seed(0)) - 1
        >>> floor = torch.stack((x, y, 0 * x), -1)
        >>> there = svdrot.Transform.identity()
        >>> found = svdrot.registration.judge(floor[:1000], floor[1000:], there)
        >>> found.answer, len(found.free)
        ('free', 3)
    """

    answer: str
    reasons: tuple[str, ...]
    transform: Transform
    free: Tensor
    rivals: Transform
    covariance: Tensor
    center: Tensor
    radius: float
    misfit: float
    cover: float
    scale: float
    scale_error: float
    axes: Tensor
    spread: Tensor
    moved: bool

    def normalized_error(self, transform: Transform) -> float:
        """Return how far another pose is from this one in standard deviations, free motions apart.

        Args:
            transform: from source to target, shapes (3, 3), (3,) and (); its scale is not looked at.

        Returns:
            The root of twist' C⁻¹ twist, with the twist from this pose to the other and C the covariance. For
            the true pose its square is distributed about as chi-squared with as many degrees of freedom as
            motions are determined. NaN where the covariance is.

        Example:
            >>> import torch, svdrot
            >>> x, y = 2 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 1
            >>> dune = torch.stack((x, y, 0.3 * torch.sin(3 * x + y**2) + 0.2 * x * y), -1)
            >>> there = svdrot.Transform.identity()
            >>> found = svdrot.registration.judge(dune[:2000], dune[2000:], there)
            >>> found.normalized_error(found.transform) < 1e-3, found.normalized_error(there) < 5
            (True, True)
        """
        check_transform("transform", transform)
        radius = self.center.new_tensor(self.radius)
        return normalized_error(self.covariance, self.center, radius, self.transform, transform).item()


@takes_arrays
def judge(
    source: Tensor,
    target: Tensor,
    transform: Transform,
    *,
    start: Transform | None = None,
    search: bool = True,
    scale: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> Verdict:
    """Judge an alignment of two clouds that show parts of one surface, or do not.

    Five tests are asked, none of which knows a length: do the clouds fit, by residuals no larger than those
    within each cloud; does enough of what determines their poses agree; are they of one size; is every motion
    determined, by what the normals of both agree on; and does no other pose, of 454 turned and shifted starts
    that are refined, fit as well without contradictions. Both clouds are thinned to at most 2,500 points of
    one density. The same clouds always give the same verdict.

    Args:
        source: shape (N, 3), any floating dtype. Points that are not finite are left out.
        target: shape (M, 3), likewise, in the same units.
        transform: from the source to the target, shapes (3, 3), (3,) and (), near the end of an alignment: to
            about the distance of neighboring points. Its scale is kept.
        start: where the alignment began. Along free motions `Verdict.transform` stays there, as nearly as the
            others let it. Default: `transform`.
        search: for other poses. Without it nothing is "ambiguous", symmetric things and wrong poses of
            repeated ones are "aligned", and it takes half the time.
        scale: whether the scale of `transform` was found from these clouds. One that they leave open, as of
            a corner of three walls, is then "free", and the covariance has what the pose shares with it.
        motion: "free"; "yaw" or "planar" for clouds between which there is no other motion, as of `icp`:
            then poses are polished, searched for and found open within these alone.
        axis: of such a motion, in the frame of the target, shape (3,). Default: z.

    Returns:
        `Verdict`, float64 but for `transform` and `rivals`, which are of the source's dtype. Clouds of too
        few points, on a line or without extent are "doubtful". Not differentiable.

    Raises:
        ValueError: if a shape is another, or a transform is not finite.
        TypeError: if a cloud is not a floating-point tensor, or a transform is none.

    Example:
        >>> import torch, svdrot
        >>> x, y = 2 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(0)) - 1
        >>> dune = torch.stack((x, y, 0.3 * torch.sin(3 * x + y**2) + 0.2 * x * y), -1)
        >>> there = svdrot.Transform.identity()
        >>> svdrot.registration.judge(dune[:2000], dune[2000:], there).answer
        'aligned'
        >>> found = svdrot.registration.judge(dune[:2000], 1.06 * dune[2000:], there)
        >>> found.answer, round(found.scale, 2)
        ('doubtful', 1.06)
    """
    check_cloud("source", source)
    check_cloud("target", target)
    start = transform if start is None else start
    check_pose("transform", transform)
    check_pose("start", start)
    unit = one_axis(motion, axis)
    units = Units.of(source, target, transform)
    with torch.no_grad():
        pose, begun = units.inward(transform), units.inward(start)
        both = None if units.length == 0 else Both.of(units.source, units.target)
        if both is None:
            return _nothing(units, transform)
        allowed = None
        if unit is not None:
            allowed = Allowed(unit, motion == "planar", pose[0, :3], both.source.points.mean(0))
        return _verdict(rule.decide(both, pose, begun, search, scale, allowed), units)


def check_cloud(name: str, value: Tensor) -> None:
    check_shape(name, value, 3)
    if value.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, 3); got {tuple(value.shape)}.")


def check_pose(name: str, value: Transform) -> None:
    if not isinstance(value, Transform):
        raise TypeError(f"`{name}` must be a Transform; got {type(value).__name__}.")
    parts = value.rotation, value.translation, value.scale
    if [tuple(x.shape) for x in parts] != [(3, 3), (3,), ()] or not all(x.isfinite().all() for x in parts):
        raise ValueError(f"`{name}` must be one finite transform in space; got {value}.")


def _verdict(judged: rule.Judged, units: Units) -> Verdict:
    known, length = judged.stiffness, units.length
    pose = units.outward(judged.pose)
    radius = known.radius * length if known else math.nan
    center = known.center * length + units.middles[1] if known else np.full(3, np.nan)
    back = np.r_[np.full(3, 1 / radius), np.ones(3)]  # of twists of unit length, from radius times w to w
    free = known.scaled(judged.free).T * back if known else np.zeros((0, 6))
    full = judged.sized or known  # what the pose shares with a size that was found is part of its variance
    misfit = judged.evidence.misfit[0]
    covariance = full.covariance(full.open_(rule.SPREAD), misfit)[:6, :6] if full else np.full((6, 6), np.nan)
    unit = back * length  # of twists in the units of `Both`
    reasons = words.reasons(judged, free, center, radius)
    if judged.answer == "doubtful":
        reasons += words.of_units(units.ratio)
    axes = known.axes.T * back if known else np.full((6, 6), np.nan)
    spread = known.spread() if known else np.full(6, np.inf)
    return Verdict(
        judged.answer,
        tuple(reasons),
        Transform(pose.rotation[0], pose.translation[0], pose.scale[0]),
        units.back(torch.from_numpy(free)),
        units.outward(judged.rivals),
        units.back(torch.from_numpy(covariance * unit[:, None] * unit)),
        units.back(torch.from_numpy(center)),
        radius,
        float(judged.evidence.misfit[0]),
        float(judged.evidence.cover[0]),
        1 + judged.stretch,
        judged.stretch_error,
        units.back(torch.from_numpy(axes)),
        units.back(torch.from_numpy(spread)),
        judged.moved,
    )


def _nothing(units: Units, transform: Transform) -> Verdict:
    """Return what is said where nothing can be measured."""
    nan, none = (units.back(torch.full((n, 6), torch.nan, device="cpu")) for n in (6, 0))
    own = [
        units.back(x.detach(), result_dtype(units.like))
        for x in (transform.rotation, transform.translation, transform.scale)
    ]
    reasons = [words.TOO_FEW, *words.of_units(units.ratio)]
    return Verdict(
        "doubtful",
        tuple(reasons),
        Transform(*own),
        none,
        units.outward(np.zeros((0, 4, 4))),
        nan,
        nan[0, :3],
        math.nan,
        math.inf,
        0.0,
        1.0,
        math.inf,
        nan,
        torch.full_like(nan[0], math.inf),
        False,
    )
