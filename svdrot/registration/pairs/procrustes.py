r"""The transform that takes one set of points to another, pair by pair, in weighted least squares.

With weights that sum to one, centroids $\bar x$ and $\bar y$, $C = \sum w (y - \bar y)(x - \bar x)^\top$ and
$v = \sum w |x - \bar x|^2$, the sum $\sum w |s R x + t - y|^2$ is least for the rotation $R$ nearest to $C$,
$s = \operatorname{tr}(R^\top C) / v$ and $t = \bar y - s R \bar x$ (Umeyama, IEEE TPAMI 13, 1991). Weights
enter once in each sum.

A rotation by $\theta$ about a unit axis a is $a a^\top + \cos\theta (I - a a^\top) + \sin\theta [a]_\times$.
With $c = (C_{32} - C_{23}, C_{13} - C_{31}, C_{21} - C_{12})$ its $\operatorname{tr}(R^\top C)$ is
$a^\top C a + \cos\theta (\operatorname{tr} C - a^\top C a) + \sin\theta\, a \cdot c$, largest for $\theta =
\operatorname{atan2}(a \cdot c, \operatorname{tr} C - a^\top C a)$: the rotation nearest to the 2x2 block of C
across the axis (`svdrot._formulas.axes`). A motion "planar" moves nothing along the axis, $t = (I - a a^\top)
(\bar y - s R \bar x)$: centroids meet across it, and what their heights differ by remains.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from svdrot import _deprecated
from svdrot._checks import check_floating, check_mask, common_batch, same_shape
from svdrot._formulas.axes import across
from svdrot._kernels.operations.pairs import centroids
from svdrot._precision import compute_dtype, result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import one_batch
from svdrot.projection import projection_gap
from svdrot.registration._motions import Limits, checked_axis
from svdrot.registration._points import Points, as_tensor, padded
from svdrot.registration._uncertainty import normalized_error
from svdrot.registration.pairs._exactness import pose_covariance
from svdrot.registration.pairs._fit import fit, fit_about
from svdrot.registration.pairs._moments import moments, residual
from svdrot.transform import Transform, check_transform, register_pytree


@_deprecated.renamed_attributes("svdrot.registration.Alignment")
@dataclass(frozen=True)
class Alignment(Transform):
    """Describe the transform that fits pairs of points best, and how well it does.

    It is a `Transform`, which can be applied, inverted and composed.

    Attributes:
        rotation: shape (..., d, d).
        translation: shape (..., d).
        scale: shape (...).
        covariance: $C$, of target by source, shape (..., d, d), float64.
        reflection: whether reflections were allowed.
        pairs: what it was fitted to, kept for `residual`: source, target and, if there are any, weights.
        centered: whether the clouds were centered, or turned about the origin.
        motion: "free", "yaw" or "planar": what was allowed.
        about: the unit axis (..., 3) of a motion that is not free, float64; else empty.

    Example:
        >>> import torch, svdrot
        >>> line = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
        >>> fit = svdrot.registration.kabsch(line, line + 1)
        >>> torch.allclose(fit.apply(line), line + 1, atol=1e-6), bool(fit.residual < 1e-6)
        (True, True)
        >>> fit.gap.round(decimals=4), fit.rank  # turns about the line fit as well
        (tensor(0., dtype=torch.float64), tensor(1))
    """

    covariance: Tensor
    reflection: bool
    pairs: tuple[Tensor, ...]
    centered: bool
    motion: str = field(default="free", kw_only=True)
    about: tuple[Tensor, ...] = field(default=(), kw_only=True)

    @property
    def residual(self) -> Tensor:
        """Return the weighted root mean square of the distances left, shape (...), in the target's units.

        Not differentiable. Computed, in two passes over the pairs, when asked for. 0 without any pair.
        """
        x, y, *weights = (part.detach() for part in self.pairs)
        w = weights[0] if weights else None
        turned = self.scale.detach()[..., None, None] * self.rotation.detach()
        if x.ndim > 3:  # of `vmap`
            x, y = x.flatten(0, -3), y.flatten(0, -3)
            w = None if w is None else w.flatten(0, -2)
        raw, pivots = moments(x, y, w, self.centered)
        left = residual(x, y, w, raw, pivots, turned.reshape(x.shape[0], *turned.shape[-2:]).to(raw.dtype))
        if self.motion == "planar" and self.centered:
            start, end = centroids(raw, pivots)
            axis, scale = self.about[0].detach().reshape(-1, 3), self.scale.detach().reshape(-1, 1)
            left = torch.hypot(left, (axis * (scale * start - end)).sum(-1))
        return left.to(turned.dtype).reshape(turned.shape[:-2])

    @property
    def pose_covariance(self) -> Tensor:
        """Return the covariance of the twist from the pose to the true one, shape (..., 6, 6), float64.

        The twist is (rotation vector in radians about `center`, translation), in the frame of the target; 0
        along motions that were not allowed. Errors of the pairs are taken for independent and alike in all
        directions, and weights for inverse variances up to one factor, which follows from what is left over.
        NaN where the pairs do not determine the pose, or are no more than they need for it, and of points
        that are not in space, or with reflections. Not differentiable.

        Example:
            >>> import torch, svdrot
            >>> source = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
            >>> noise = 0.01 * torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
            >>> fit = svdrot.registration.kabsch(source, source + noise)
            >>> fit.pose_covariance.diagonal()[3:].sqrt().round(decimals=3)  # of the mean of a hundred
            tensor([0.0010, 0.0010, 0.0010], dtype=torch.float64)
            >>> bool(fit.normalized_error(svdrot.Transform.identity()) < 5)
            True
        """
        return self._exactness()[0]

    @property
    def center(self) -> Tensor:
        """Return the weighted mean of the source as the fit moves it, shape (..., 3), float64.

        Rotations and translations about it are independent. The origin, if the clouds were not centered; NaN
        of points that are not in space.
        """
        return self._exactness()[1]

    def normalized_error(self, transform: Transform) -> Tensor:
        """Return how far another pose is from this one in standard deviations, shape (...).

        Args:
            transform: of the source to the target.

        Returns:
            The root of twist' C^-1 twist, with C `pose_covariance`, of motions that were allowed. For the
            true pose its square is distributed about as chi-squared with as many degrees of freedom as these
            have. NaN where the covariance is, or is 0, as of an exact fit.

        Raises:
            TypeError: if `transform` is not a `Transform`.

        Example:
            >>> import torch, svdrot
            >>> source = torch.rand(100, 3, generator=torch.Generator().manual_seed(0))
            >>> noise = 0.01 * torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
            >>> fit = svdrot.registration.kabsch(source, source + noise)
            >>> fit.normalized_error(fit) < 1e-3
            tensor(True)
        """
        check_transform("transform", transform, self.rotation.shape[-1])
        if self.rotation.shape[-1] != 3:
            return self._exactness()[2]
        return normalized_error(*self._exactness(), self, transform)

    def _exactness(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the covariance, its center, and a radius of the pairs about that."""
        batch = self.rotation.shape[:-2]
        if self.rotation.shape[-1] != 3 or self.reflection:
            nan = self.rotation.new_full((*batch, 6, 6), torch.nan, dtype=torch.float64)
            return nan, nan[..., 0, :3], nan[..., 0, 0]
        axis = None if not self.about else one_batch(self.about[0].detach().expand(*batch, 3), 1)
        count = math.prod(batch)
        rotation, translation, scale, residual = (
            part.detach().double().reshape(count, *part.shape[len(batch) :])
            for part in (self.rotation, self.translation, self.scale, self.residual)
        )
        limits = None if axis is None else Limits(self.motion, axis)
        found = pose_covariance(self.pairs, rotation, translation, scale, residual, self.centered, limits)
        covariance, center, radius = (part.reshape((*batch, *part.shape[1:])) for part in found)
        return covariance, center, radius

    @property
    def gap(self) -> Tensor:
        """Return how far C is from allowing two best rotations, shape (...), at least 0; 0 means ambiguous.

        The distance is over the Frobenius norm of C. That is `projection_gap`, or with reflections twice the
        smallest singular value. Points on a line and clouds of rotational symmetry have gap 0; errors of the
        points are amplified by 2 / gap. Of a motion about an axis it is that of the 2x2 block of C across it,
        which is 0 if all points are on one parallel of the axis.
        """
        c = self._determining()
        largest = c.abs().amax((-2, -1), keepdim=True)  # whose square may be 0
        c = c / torch.where(largest > 0, largest, 1)
        norm = torch.linalg.matrix_norm(c)
        gap = 2 * _singular_values(c)[..., -1] if self.reflection else projection_gap(c)
        return torch.where(norm > 0, gap.clamp_min(0) / torch.where(norm > 0, norm, 1), gap * 0)

    @property
    def rank(self) -> Tensor:
        """Return the rank of C, up to rounding of the points: integers, shape (...).

        d - 1 is enough for a rotation, d for reflections. 0 where C is not finite. Of a motion about an axis
        it is that of the 2x2 block of C across it, of which 1 is enough.
        """
        s = _singular_values(self._determining())
        tolerance = 8 * s.shape[-1] * torch.finfo(self.rotation.dtype).eps
        return (s > tolerance * s[..., :1]).sum(-1)

    def _determining(self) -> Tensor:
        """Return the matrix to which the rotation is nearest: C, or its block across the axis."""
        c = self.covariance.detach()
        return across(c, self.about[0].detach()) if self.about else c


register_pytree(Alignment, "reflection", "centered", "motion")


@takes_arrays
def procrustes(
    source: Points,
    target: Points,
    weights: Points | None = None,
    *,
    mask: Points | None = None,
    reflection: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> Alignment:
    """Find the rotation R about the origin of least sum of w |R x - y|^2.

    As `kabsch`, but the clouds are not centered and nothing is moved.

    Args:
        source: shape (..., N, d), any floating dtype, or a list of clouds (N_i, d) of different lengths.
        target: the same number of points, pair by pair. Batch dimensions broadcast.
        weights: shape (..., N), at least 0, of any total; a list if the clouds are one. Default: 1.
        mask: boolean, shape (..., N): pairs that count. What does not count, or has weight 0, may be NaN.
        reflection: whether the determinant may be -1.
        motion: "free", or "yaw" for rotations about `axis` alone. "planar" is the same here.
        axis: as of `kabsch`.

    Returns:
        `Alignment`: `rotation` (..., d, d), `translation` 0, `scale` 1. No pair or a total weight of 0 gives
        the identity with gap 0; a pair that counts and is not finite gives NaN for its cloud only.

    Raises:
        ValueError: if shapes do not fit, or a motion about an axis is asked of a plane or with reflections.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Schönemann, Psychometrika 31 (1966).

    Example:
        >>> import torch, svdrot
        >>> known = torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # down and north in the world
        >>> seen = torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # and as a sensor measures them
        >>> turn = svdrot.registration.procrustes(seen, known).rotation
        >>> torch.rad2deg(svdrot.matrix_to_axis_angle(turn))[2].round()
        tensor(90.)
    """
    return _aligned(source, target, weights, mask, reflection, motion, axis, centered=False, scaled=False)


@takes_arrays
def kabsch(
    source: Points,
    target: Points,
    weights: Points | None = None,
    *,
    mask: Points | None = None,
    reflection: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> Alignment:
    """Find the rigid transform R x + t of least sum of w |R x + t - y|^2.

    Differentiable in points and weights any number of times; gradients are those of the exact solution, with
    the damping of `special_orthogonalize` where it is ambiguous. Centroids and covariance are accumulated in
    float64, so far from the origin nothing is lost that the points had.

    Args:
        source: shape (..., N, d), any floating dtype, or a list of clouds (N_i, d) of different lengths.
        target: the same number of points, pair by pair. Batch dimensions broadcast.
        weights: shape (..., N), at least 0, of any total; a list if the clouds are one. Default: 1.
        mask: boolean, shape (..., N): pairs that count. What does not count may be NaN. So may pairs of
            weight 0.
        reflection: whether the determinant may be -1.
        motion: "free"; "yaw", a rotation about `axis` and any translation (4 degrees of freedom), as where
            gravity is known; or "planar", a rotation about `axis` and a translation across it (3), which
            brings the centroids together across the axis and keeps heights along it. For points in space.
        axis: shape (..., 3), of any length but 0, which gives NaN; batch dimensions broadcast. Default: z.

    Returns:
        `Alignment`: `rotation` (..., d, d), `translation` (..., d), `scale` (...) 1, with `residual`, `gap`
        and `rank`. Coincident points give the identity and the difference of the centroids, no pair or a
        total weight of 0 the identity and no translation, both with gap 0 and zero gradients along what is
        undefined; so do, for a motion about an axis, points on one parallel of it. NaN, infinity or a
        negative weight in a pair that counts gives NaN for its cloud only.

    Raises:
        ValueError: if shapes do not fit, or a motion about an axis is asked of a plane or with reflections.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Kabsch, Acta Cryst. A32 (1976); Umeyama, IEEE TPAMI 13 (1991).

    Example:
        >>> import torch, svdrot
        >>> source = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
        >>> turn = svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]))
        >>> target = source @ turn.mT + torch.tensor([1.0, 2.0, 3.0])
        >>> fit = svdrot.registration.kabsch(source, target)
        >>> torch.allclose(fit.rotation, turn, atol=1e-5), fit.translation.round(decimals=4)
        (True, tensor([1., 2., 3.]))
        >>> two = svdrot.registration.kabsch(source[:2], target[:2], motion="yaw")  # no tilt, so that two do
        >>> torch.allclose(two.rotation, turn, atol=1e-5), bool(two.gap > 1)
        (True, True)
    """
    return _aligned(source, target, weights, mask, reflection, motion, axis, centered=True, scaled=False)


@takes_arrays
def umeyama(
    source: Points,
    target: Points,
    weights: Points | None = None,
    *,
    mask: Points | None = None,
    reflection: bool = False,
    motion: str = "free",
    axis: Tensor | None = None,
) -> Alignment:
    """Find the similarity s R x + t of least sum of w |s R x + t - y|^2.

    As `kabsch`, with the best scale.

    Args:
        source: shape (..., N, d), any floating dtype, or a list of clouds (N_i, d) of different lengths.
        target: the same number of points, pair by pair. Batch dimensions broadcast.
        weights: shape (..., N), at least 0, of any total; a list if the clouds are one. Default: 1.
        mask: boolean, shape (..., N): pairs that count. What does not count, or has weight 0, may be NaN.
        reflection: whether the determinant may be -1.
        motion: as of `kabsch`. The scale is one in all directions; "planar" scales heights, too, from 0, to
            which they are not moved.
        axis: as of `kabsch`.

    Returns:
        `Alignment`: `rotation` (..., d, d), `translation` (..., d), `scale` (...), which is 0 if nothing in
        the target follows the source, and 1 if the source is a single point; otherwise as `kabsch`.

    Raises:
        ValueError: if shapes do not fit, or a motion about an axis is asked of a plane or with reflections.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Umeyama, "Least-squares estimation of transformation parameters between two point patterns", IEEE
        TPAMI 13 (1991), equations 40 to 42.

    Example:
        >>> import torch, svdrot
        >>> inches = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]])
        >>> millimeters = 25.4 * inches + torch.tensor([100.0, 0.0])
        >>> fit = svdrot.registration.umeyama(inches, millimeters)
        >>> round(fit.scale.item(), 3), round(fit.residual.item(), 3)
        (25.4, 0.0)
    """
    return _aligned(source, target, weights, mask, reflection, motion, axis, centered=True, scaled=True)


def _aligned(
    source: Points,
    target: Points,
    weights: Points | None,
    mask: Points | None,
    reflection: bool,
    motion: str,
    axis: Tensor | None,
    centered: bool,
    scaled: bool,
) -> Alignment:
    x, y, w = _pairs(source, target, weights, mask)
    axis = checked_axis(motion, axis, x)
    if axis is not None:
        if reflection:
            raise ValueError(f'`reflection` is of free motions; got True for `motion` "{motion}".')
        x, y, w, axis = _each_about(x, y, w, axis)
    batch, dtype, precision = x.shape[:-2], result_dtype(x), compute_dtype(x)
    x, y = (_flat(z, precision, z.shape[-2:]) for z in (x, y))
    w = None if w is None else _flat(w, precision, w.shape[-1:])

    if axis is None:
        found = fit(x, y, w, centered, scaled, reflection)
    else:
        each = axis if axis.ndim == 1 else one_batch(axis, 1)
        found = fit_about(each, motion == "planar", x, y, w, centered, scaled)
    parts = found.rotation, found.translation, found.scale  # Dynamo of torch 2.8 cannot slice a named tuple
    pose = [z if z.dtype == dtype else z.to(dtype) for z in parts]
    pose.append(found.covariance)
    if len(batch) != 1:
        pose = [z.reshape(batch + z.shape[1:]) for z in pose]
    kept = (x, y) if w is None else (x, y, w)
    about = () if axis is None else (axis.expand(*batch, 3),)
    return Alignment(*pose, reflection=reflection, pairs=kept, centered=centered, motion=motion, about=about)


def _each_about(
    x: Tensor, y: Tensor, w: Tensor | None, axis: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Expand pairs and axes to a common batch, but an axis that is one for all."""
    if axis.ndim == 1 or same_shape(axis.shape[:-1], x.shape[:-2]):
        return x, y, w, axis
    batch = common_batch(source=x.shape[:-2], axis=axis.shape[:-1])
    x, y = (z.expand(*batch, *z.shape[-2:]) for z in (x, y))
    return x, y, None if w is None else w.expand(*batch, w.shape[-1]), axis.expand(*batch, 3)


def _singular_values(c: Tensor) -> Tensor:
    finite = c.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return torch.where(finite[..., 0], torch.linalg.svdvals(torch.where(finite, c, 0)), torch.nan)


def _flat(z: Tensor, dtype: torch.dtype, item: torch.Size) -> Tensor:
    """Give `z` one batch dimension; untouched where possible, for each operation costs autograd 5 us."""
    if z.dtype != dtype:
        z = z.to(dtype)
    if z.ndim != 1 + len(item):
        z = z.reshape(math.prod(z.shape[: -len(item)]), *item)
    return z.contiguous()


def _pairs(
    source: Points, target: Points, weights: Points | None, mask: Points | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check the pairs, pad them, bring them to one dtype and batch shape; the mask becomes zero weights."""
    if not isinstance(source, Tensor):
        optional = {"weights": weights, "mask": mask}
        lists, inside = padded({"source": source, "target": target}, optional)
        source, target, weights = lists["source"], lists["target"], lists.get("weights")
        mask = lists.get("mask", inside)
    check_floating("source", source)
    if source.ndim < 2 or source.shape[-1] == 0:
        raise ValueError(f"`source` must have shape (..., N, d); got {tuple(source.shape)}.")
    n, d = source.shape[-2:]
    target = as_tensor("target", target, n, d)
    if target.dtype != source.dtype:
        dtype = torch.promote_types(source.dtype, target.dtype)
        source, target = source.to(dtype), target.to(dtype)
    if weights is not None:
        weights = as_tensor("weights", weights, n)
    if mask is not None:
        mask = check_mask("mask", mask, n)
        if weights is None:
            weights = mask.to(source.dtype)
        else:
            common_batch(weights=weights.shape[:-1], mask=mask.shape[:-1])
            weights = torch.where(mask, weights, 0)
    batches = {"source": source.shape[:-2], "target": target.shape[:-2]}
    if weights is not None:
        batches["weights or mask"] = weights.shape[:-1]
    first, *others = batches.values()
    if all(same_shape(first, other) for other in others):
        return source, target, weights
    batch = common_batch(**batches)
    weights = None if weights is None else weights.expand(*batch, n)
    return source.expand(*batch, n, d), target.expand(*batch, n, d), weights
