"""Exponential and logarithm at a rotation, geodesics between two, and smooth curves through many."""

from itertools import pairwise

import torch
from torch import Tensor

from ._checks import as_number, check_floating, check_shape
from ._formulas import turns
from ._formulas.geometry import se3
from ._precision import compute_dtype, result_dtype, to_compute
from ._stand_ins import takes_arrays
from .transform import Transform, check_transform


def exp_map(base: Tensor, vector: Tensor) -> Tensor:
    r"""Return the rotation $R \exp([v]_\times)$: from `base` along a rotation vector in its own (body) frame.

    Args:
        base: rotations, shape (..., 3, 3).
        vector: rotation vectors in radians, shape (..., 3); batch dimensions broadcast.

    Returns:
        Rotations, shape (..., 3, 3). Derivatives are those of the exponential everywhere, zero included.

    Raises:
        ValueError: if the last dimensions are not (3, 3) and 3, or the others do not broadcast.
        TypeError: if an argument is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 25.

    Example:
        >>> import torch, svdrot
        >>> base = svdrot.random_rotation(5, generator=torch.Generator().manual_seed(0))
        >>> vector = torch.tensor([0.0, 0.3, 0.0], requires_grad=True)
        >>> turned = svdrot.exp_map(base, vector)
        >>> svdrot.geodesic_distance(base, turned).detach()
        tensor([0.3000, 0.3000, 0.3000, 0.3000, 0.3000])
    """
    return turns.exp_map(base, vector)


def log_map(base: Tensor, rotation: Tensor) -> Tensor:
    r"""Return the rotation vector from `base` to `rotation`, in the frame of `base`.

    It is the shortest v with $R \exp([v]_\times)$ = `rotation`, R = `base`.

    Args:
        base: rotations, shape (..., 3, 3).
        rotation: rotations, shape (..., 3, 3); batch dimensions broadcast.

    Returns:
        Rotation vectors in radians, shape (..., 3), in the frame of `base`; their length, the geodesic
        distance, is in [0, pi]. The gradient is finite everywhere. Half a turn apart both signs are right,
        and one is returned.

    Raises:
        ValueError: if the last two dimensions of an argument are not (3, 3).
        TypeError: if an argument is not floating point.

    Source:
        Solà, Deray and Atchuthan, "A Micro Lie Theory for State Estimation in Robotics", arXiv 1812.01537,
        equation 26.

    Example:
        >>> import torch, svdrot
        >>> base = svdrot.random_rotation(generator=torch.Generator().manual_seed(0))
        >>> vector = torch.tensor([0.1, 0.2, 0.3])
        >>> svdrot.log_map(base, svdrot.exp_map(base, vector))
        tensor([0.1000, 0.2000, 0.3000])
    """
    return turns.log_map(base, rotation)


@takes_arrays
def slerp(start: Tensor, end: Tensor, share: Tensor | float) -> Tensor:
    """Return the rotation a share of the way along the shortest geodesic, at constant angular velocity.

    Args:
        start: rotations, shape (..., 3, 3).
        end: rotations, shape (..., 3, 3).
        share: a number or a tensor of shape (...): 0 gives `start`, 1 gives `end`, others beyond go on along
            the geodesic. Batch dimensions broadcast. NaN and infinity give NaN, and have no part in
            gradients.

    Returns:
        Rotations, shape (..., 3, 3). Half a turn apart there are two shortest ways; one is taken.

    Raises:
        ValueError: if the last two dimensions of `start` or `end` are not (3, 3), or others do not broadcast.
        TypeError: if a tensor is not floating point, or `share` neither one nor a number.

    Source:
        Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985.

    Example:
        >>> import math, torch, svdrot
        >>> start, end = torch.eye(3), svdrot.axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]))
        >>> path = svdrot.slerp(start, end, torch.tensor([0.0, 0.25, 1.0]))
        >>> svdrot.geodesic_distance(start, path)
        tensor([0.0000, 0.2500, 1.0000])
    """
    check_floating("start", start)
    check_floating("end", end)
    return turns.slerp(start, end, as_number("share", share, start, end))


@takes_arrays
def interpolate_rotations(rotations: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
    r"""Return points on a curve of continuous angular velocity through rotations at any times.

    The curve is cubic, as squad is. The velocity at a knot is that of the parabola through it and its
    neighbors, in rotation vectors; at the ends, of the parabola that goes on. Between knots the curve is
    Bézier's, with the control rotations $R_i, R_i \exp(h \omega_i / 3), R_{i+1} \exp(-h \omega_{i+1} / 3),
    R_{i+1}$ and geodesics in place of lines. Two rotations give their geodesic, and a steady turn is
    reproduced. Turning all of the rotations, from either side, turns the curve.

    Args:
        rotations: knots, shape (..., N, 3, 3), N >= 2, neighbors less than half a turn apart: otherwise the
            shorter way is taken.
        at: times asked for, shape (T,).
        times: of the knots, each later than the one before, shape (N,); 0, 1, ... if None.

    Returns:
        Rotations, shape (..., T, 3, 3), differentiable in everything. NaN outside the times of the knots, and
        everywhere if these do not ascend.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not floating point.

    Source:
        Shoemake, SIGGRAPH 1985 (Bézier curves by geodesics); Kim, Kim and Shin, "A General Construction
        Scheme for Unit Quaternion Curves with Simple High Order Derivatives", SIGGRAPH 1995.

    Example:
        >>> import torch, svdrot
        >>> knots = svdrot.random_rotation(4, generator=torch.Generator().manual_seed(0))
        >>> times = torch.tensor([0.0, 1.0, 3.0, 4.0])
        >>> curve = svdrot.interpolate_rotations(knots, torch.linspace(0, 4, 9), times)
        >>> torch.allclose(curve[[0, 2, 6, 8]], knots, atol=1e-5)
        True
    """
    check_shape("rotations", rotations, 3, 3)
    check_floating("at", at)
    if rotations.ndim < 3 or rotations.shape[-3] < 2:
        raise ValueError(
            f"`rotations` must have shape (..., N, 3, 3) with N >= 2; got {tuple(rotations.shape)}."
        )
    r = to_compute(rotations, 2)
    i, t, h, inside = _spans("rotations", rotations.shape[-3], at, times, r)
    velocity = _velocities(turns.log_map(r[..., :-1, :, :], r[..., 1:, :, :]) / h, h)
    third = h / 3
    out = exp_map(r[..., :-1, :, :], third * velocity[..., :-1, :])
    into = exp_map(r[..., 1:, :, :], -third * velocity[..., 1:, :])
    curve = [r[..., i, :, :], out[..., i, :, :], into[..., i, :, :], r[..., i + 1, :, :]]
    while len(curve) > 1:
        curve = [turns.slerp(a, b, t) for a, b in pairwise(curve)]
    # Last, so that a time outside has no share in the gradient of the knots.
    return torch.where(inside[:, None, None], curve[0], torch.nan).to(result_dtype(rotations))


@takes_arrays
def interpolate_transforms(transforms: Transform, at: Tensor, times: Tensor | None = None) -> Transform:
    r"""Return points on a curve of continuous velocity through transforms of space at any times.

    As `interpolate_rotations`, whose curve it is for rotations, with twists in place of rotation vectors and
    screw motions in place of geodesics: two transforms give their screw motion, and a steady one is
    reproduced. Moving all of the transforms by a rigid motion, before or after them, moves the curve. The
    logarithms of scales go along a cubic.

    Args:
        transforms: knots, of batch shape (..., N), N >= 2, in space, neighbors less than half a turn apart:
            otherwise the shorter way is taken.
        at: times asked for, shape (T,).
        times: of the knots, each later than the one before, shape (N,); 0, 1, ... if None.

    Returns:
        Transforms of batch shape (..., T), differentiable in everything. NaN outside the times of the knots,
        and everywhere if these do not ascend. A knot that is not finite spoils the curve up to the second
        knot before and after it.

    Raises:
        ValueError: if shapes do not fit.
        TypeError: if an argument is not of the right kind.

    Source:
        Kim, Kim and Shin, "A General Construction Scheme for Unit Quaternion Curves with Simple High Order
        Derivatives", SIGGRAPH 1995; Žefran and Kumar, "Interpolation schemes for rigid body motions",
        Computer-Aided Design 30 (1998).

    Example:
        >>> import torch, svdrot
        >>> knots = svdrot.Transform.random(4, generator=torch.Generator().manual_seed(0))
        >>> times = torch.tensor([0.0, 1.0, 3.0, 4.0])
        >>> curve = svdrot.interpolate_transforms(knots, torch.linspace(0, 4, 9), times)
        >>> torch.allclose(curve[[0, 2, 6, 8]].matrix, knots.matrix, atol=1e-5)
        True
    """
    check_transform("transforms", transforms)
    check_floating("at", at)
    if transforms.shape[-1:] < (2,):
        raise ValueError(f"`transforms` must have shape (..., N) with N >= 2; got {tuple(transforms.shape)}.")
    batch, kinds = transforms.shape, (transforms.rotation, transforms.translation, transforms.scale)
    common = torch.float64 if any(x.dtype == torch.float64 for x in kinds) else torch.float32
    knots = transforms.to(common)
    knots = (
        knots.rotation.expand(*batch, 3, 3),
        knots.translation.expand(*batch, 3),
        knots.scale.expand(batch),
    )
    i, t, h, inside = _spans("transforms", batch[-1], at, times, knots[1])
    whole = Transform(*knots)
    before, after = _parts(whole[..., :-1]), _parts(whole[..., 1:])
    velocity = _velocities(se3.relative_twist(*before, *after) / h, h)
    third = h / 3
    out = Transform(*se3.moved(*before, third * velocity[..., :-1, :]))
    into = Transform(*se3.moved(*after, -third * velocity[..., 1:, :]))
    curve = [_parts(x) for x in (whole[..., i], out[..., i], into[..., i], whole[..., i + 1])]
    while len(curve) > 1:
        curve = [se3.screw(*a, *b, t) for a, b in pairwise(curve)]
    r, p, s = (x.to(result_dtype(kind)) for x, kind in zip(curve[0], kinds, strict=True))
    return Transform(
        torch.where(inside[:, None, None], r, torch.nan),
        torch.where(inside[:, None], p, torch.nan),
        torch.where(inside, s, torch.nan),
    )


def _parts(transform: Transform) -> tuple[Tensor, Tensor, Tensor]:
    return transform.rotation, transform.translation, transform.scale


def _spans(
    name: str, n: int, at: Tensor, times: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return between which knots times are, (T,), what share of the way, steps (N - 1, 1), whether inside."""
    if at.ndim != 1:
        raise ValueError(f"`at` must have shape (T,); got {tuple(at.shape)}.")
    times = torch.arange(n, dtype=compute_dtype(at), device=at.device) if times is None else times
    check_floating("times", times)
    at = at.to(torch.promote_types(at.dtype, times.dtype))
    if times.shape != (n,):
        raise ValueError(f"`times` must have shape ({n},), as many as `{name}`; got {tuple(times.shape)}.")
    from_, to = times.detach().contiguous(), at.detach().contiguous()  # torch warns of others
    i = (torch.searchsorted(from_, to, right=True) - 1).clamp(0, n - 2)
    step = times.diff()
    inside = (at >= times[0]) & (at <= times[-1]) & (step > 0).all()
    t = torch.where(inside, (at - times[i]) / torch.where(step > 0, step, 1)[i], 0).to(like)
    return i, t, step.to(like)[:, None], inside


def _velocities(chords: Tensor, h: Tensor) -> Tensor:
    """Return velocities at the knots (..., N, 3) from mean ones (..., N - 1, 3) over steps of lengths (N - 1,
    1).

    A rotation vector is the same in the frames of both its ends.
    """
    before, after = h[:-1], h[1:]
    inner = (after * chords[..., :-1, :] + before * chords[..., 1:, :]) / (before + after)
    if inner.shape[-2] == 0:
        return torch.cat((chords, chords), -2)
    first = 2 * chords[..., :1, :] - inner[..., :1, :]
    last = 2 * chords[..., -1:, :] - inner[..., -1:, :]
    return torch.cat((first, inner, last), -2)
