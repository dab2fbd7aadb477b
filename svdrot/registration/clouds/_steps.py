r"""One step of each kind of ICP: the small motion that brings paired points together best.

A step is $p' = E p + s$ for the points $p$ of the source where they are. All but point-to-point minimize a
sum $\sum w\, r^2$ of residuals linearized in $\delta = (\rho\,\omega, u)$, with $E = \exp[\omega]_\times$
about a pivot $c$, the mean of the pairs, and $\rho$ their root mean square distance from it. So all six
unknowns are lengths, and the eigenvalues of the normal equations $H \delta = -g$ can be compared: directions
in which H is no more than `OBSERVABLE` times its largest are not determined, and no step goes that way. Of
motions about an axis H and g are projected to what is allowed, and so are steps; H is 0 along the rest.

Each step is there twice: in tensors, differentiable, on any device; and in kernels for the CPU, ten times
faster (`take`). Both are the same to rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from svdrot._kernels import cpu
from svdrot._kernels.cpu.loops import icp_steps, icp_sums
from svdrot._kernels.cpu.loops.icp_steps import OBSERVABLE
from svdrot._kernels.records import STEP, SUMS
from svdrot._robust_kernels import KERNELS
from svdrot.registration._motions import Limits
from svdrot.registration.clouds.surfaces import FULL
from svdrot.registration.pairs.procrustes import kabsch
from svdrot.representations import axis_angle_to_matrix

SEGMENT = 4096  # pairs that one call of a kernel goes over, so that threads can share a large cloud


@dataclass(frozen=True)
class Pairs:
    """Hold batches of pairs, (B, N, ...) in float64: `source` where it is now, `target` nearest to it.

    Where the weight is 0, the others are finite and of no effect. Covariances are packed, (B, N, 6). `limits`
    are those of the motion.
    """

    source: Tensor
    target: Tensor
    weights: Tensor
    source_normals: Tensor | None = None
    target_normals: Tensor | None = None
    source_covariances: Tensor | None = None
    target_covariances: Tensor | None = None
    limits: Limits | None = None

    def weighted(self, weights: Tensor) -> "Pairs":
        return replace(self, weights=weights)

    @property
    def normals(self) -> tuple[Tensor, Tensor]:
        assert self.source_normals is not None and self.target_normals is not None
        return self.source_normals, self.target_normals


@dataclass(frozen=True)
class Step:
    """Hold steps of a batch, and the normal equations that they solve."""

    rotation: Tensor  # E, (B, 3, 3)
    translation: Tensor  # s, (B, 3)
    normal_matrix: Tensor  # H, (B, 6, 6)
    pivot: Tensor  # c, (B, 3)
    radius: Tensor  # rho, (B,)


@dataclass(frozen=True)
class Taken:
    """Hold steps from poses (B, ...), and the poses after them, the same where there was none."""

    rotation: Tensor
    translation: Tensor
    normal_matrix: Tensor  # 0 without a step
    pivot: Tensor
    radius: Tensor
    found: Tensor  # points with a neighbor
    squares: Tensor  # of the distances from these, summed
    enough: Tensor  # whether three pairs or more count
    finite: Tensor  # whether the step is
    angle: Tensor  # by which it turns
    length: Tensor  # by which it moves the pivot


@dataclass(frozen=True)
class Method:
    """Describe a kind of ICP: a row of `METHODS`.

    Attributes:
        residual: of pairs, (B, N): what the robust kernels weigh.
        step: of pairs.
        residuals: the same for the kernel of the sums over pairs.
        stepping: the kernel that takes the same step from the sums.
        source: what it must know of the source, "normals", "covariances" or nothing.
        target: likewise.
        softest: how stiff it takes a plane to be along itself, over across.
    """

    residual: Callable[[Pairs], Tensor]
    step: Callable[[Pairs], Step]
    residuals: int
    stepping: str
    source: str | None = None
    target: str | None = None
    softest: float = 0.0


def _distance(pairs: Pairs) -> Tensor:
    return (pairs.source - pairs.target).norm(dim=-1)


def _point_to_point(pairs: Pairs) -> Step:
    """Return the exact solution; H is that of the linear problem, for the report."""
    limits = pairs.limits
    how: dict[str, Any] = {} if limits is None else {"motion": limits.motion, "axis": limits.axis}
    best = kabsch(pairs.source, pairs.target, pairs.weights, **how)
    with torch.no_grad():
        pivot, radius, p = _centered(pairs)
        moment = (pairs.weights[..., None] * p).mT @ p
        total = pairs.weights.sum(1)[:, None, None] * torch.eye(3, dtype=p.dtype, device=p.device)
        turning = (
            moment.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * torch.eye(3, device="cpu").to(p)
            - moment
        )
        zero = torch.zeros_like(moment)
        h = torch.cat((torch.cat((turning, zero), -1), torch.cat((zero, total), -1)), -2)
        h = h if limits is None else limits.projector @ h @ limits.projector
    return Step(best.rotation, best.translation, h, pivot, radius)


def _plane_distance(pairs: Pairs) -> Tensor:
    assert pairs.target_normals is not None
    return ((pairs.source - pairs.target) * pairs.target_normals).sum(-1)


def _point_to_plane(pairs: Pairs) -> Step:
    """Minimize the residuals (p - q) n. Chen and Medioni, Image and Vision Computing 10 (1992)."""
    assert pairs.target_normals is not None
    pivot, radius, p = _centered(pairs)
    n = pairs.target_normals
    jacobian = torch.cat((torch.linalg.cross(p, n), n), -1)
    h, g = _of_rows(jacobian, _plane_distance(pairs), pairs.weights)
    h, delta = _solve(h, g, pairs.limits)
    return _about(pivot, delta[:, :3] / radius[:, None], delta[:, 3:], h, radius)


def _symmetric_distance(pairs: Pairs) -> Tensor:
    return ((pairs.source - pairs.target) * _sum_of_normals(pairs)).sum(-1)


def _symmetric(pairs: Pairs) -> Step:
    """Minimize the residuals (p - q)(n_p + n_q), zero for points and normals of one circle or sphere.

    Source and target turn by half the angle, in opposite directions: with a~ = tan(angle) axis and both
    clouds about their means, the residual is exactly linear, (p - q) n + ((p + q) x n) a~ + n t~, where the
    motion is E E (p - c_p) + E t + c_q and t = t~ cos(angle). Rusinkiewicz, "A Symmetric Objective Function
    for ICP", SIGGRAPH 2019, equations 8 to 11.
    """
    pivot, radius, p = _centered(pairs)
    total = pairs.weights.sum(1, keepdim=True)
    weights = (pairs.weights / torch.where(total > 0, total, 1))[..., None]
    center = (weights * pairs.target).sum(1, keepdim=True)
    if pairs.limits is not None and pairs.limits.planar:  # at the height of the pivot: then t~ has none
        axis = pairs.limits.axis[:, None]
        center = center - axis * (axis * (center - pivot[:, None])).sum(-1, keepdim=True)
    q = (pairs.target - center) / radius[:, None, None]
    n = _sum_of_normals(pairs)
    jacobian = torch.cat((torch.linalg.cross(p + q, n), n), -1)
    residual = radius[:, None] * ((p - q) * n).sum(-1)
    h, g = _of_rows(jacobian, residual, pairs.weights)
    h, delta = _solve(h, g, pairs.limits)
    tangent = delta[:, :3] / radius[:, None]
    size = tangent.square().sum(-1, keepdim=True)
    moving = size > 0
    size = torch.where(moving, size, 1).sqrt()
    half = torch.where(moving, torch.atan(size) / size, 1) * tangent
    cosine = torch.where(moving, torch.rsqrt(1 + size * size), 1)
    e = axis_angle_to_matrix(half)
    whole = e @ e
    translation = _turn(e, cosine * delta[:, 3:]) + center[:, 0] - _turn(whole, pivot)
    return Step(whole, translation, h, pivot, radius)


def _sum_of_normals(pairs: Pairs) -> Tensor:
    """Add the normals of each pair, after making their signs agree, which mean nothing."""
    a, b = pairs.normals
    return torch.where((a * b).sum(-1, keepdim=True) < 0, -a, a) + b


def _mahalanobis(pairs: Pairs) -> Tensor:
    d = (pairs.source - pairs.target).mT.contiguous()
    return (_times(_precision(pairs), d) * d).sum(1).clamp(min=0).sqrt()


def _generalized(pairs: Pairs) -> Step:
    r"""Minimize the residuals $M^{1/2} (p - q)$, M the inverse of both covariances. Segal et al., RSS 2009.

    With the Jacobian $(-[p]_\times, I)$ all of H is in the sums of $M$, $p_j M$ and $p_j p_m M$: sixty
    numbers of one product of matrices.
    """
    pivot, radius, p = _centered(pairs)
    # With e of Levi and Civita the corners of H are sum w e_ijk e_lmn p_j p_m M_kn (turning, turning) and
    # sum w e_ijk p_j M_kl (turning, moving). `FULL` unpacks the symmetric M, and likewise p_j p_m.
    x, y, z = p.mT.contiguous().unbind(1)
    m = _precision(pairs) * pairs.weights[:, None]
    monomials = torch.stack((torch.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z), 1)
    sums = (monomials @ m.mT)[..., FULL]  # (B, 10, 3, 3)
    first, second = sums[:, 1:4], sums[:, 4:][:, FULL]
    corner = torch.einsum("ijk,bjkl->bil", LEVI_CIVITA.to(p), first)
    turning = torch.einsum("ijk,lmn,bjmkn->bil", LEVI_CIVITA.to(p), LEVI_CIVITA.to(p), second)
    h = torch.cat((torch.cat((turning, corner), -1), torch.cat((corner.mT, sums[:, 0]), -1)), -2)
    md = _times(m, (pairs.source - pairs.target).mT.contiguous())
    pull = monomials[:, :4] @ md.mT
    g = torch.cat((torch.einsum("ijk,bjk->bi", LEVI_CIVITA.to(p), pull[:, 1:]), pull[:, 0]), -1)
    h, delta = _solve(h, g, pairs.limits)
    return _about(pivot, delta[:, :3] / radius[:, None], delta[:, 3:], h, radius)


# Where the entries xx, xy, xz, yy, yz, zz of symmetric matrices are among the nine; `FULL` is the way back.
UPPER = torch.tensor([0, 1, 2, 4, 5, 8], device="cpu")
LEVI_CIVITA = torch.zeros(3, 3, 3, dtype=torch.float64, device="cpu")
LEVI_CIVITA[[0, 1, 2], [1, 2, 0], [2, 0, 1]] = 1
LEVI_CIVITA[[0, 1, 2], [2, 0, 1], [1, 2, 0]] = -1


def pack(symmetric: Tensor) -> Tensor:
    """Return matrices (..., 3, 3) by six entries (..., 6)."""
    return symmetric.flatten(-2)[..., UPPER]


def turn_packed(rotation: Tensor, packed: Tensor) -> Tensor:
    """Return R C R' of packed matrices (B, N, 6): one product with the 6 x 6 matrix of that map."""
    basis = torch.eye(6, dtype=packed.dtype, device=packed.device)[:, FULL]
    return packed @ pack(rotation[:, None] @ basis @ rotation[:, None].mT)


def _precision(pairs: Pairs) -> Tensor:
    """Return the inverse of the sum of the covariances, by its cofactors, (B, 6, N)."""
    assert pairs.source_covariances is not None and pairs.target_covariances is not None
    total = (pairs.source_covariances + pairs.target_covariances).mT.contiguous()
    xx, xy, xz, yy, yz, zz = total.unbind(1)
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    det = xx * a + xy * b + xz * c
    cofactors = torch.stack((a, b, c, xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy), 1)
    return cofactors / torch.where(det > 0, det, torch.inf)[:, None]


def _times(m: Tensor, d: Tensor) -> Tensor:
    """Multiply packed matrices (B, 6, N) and vectors (B, 3, N)."""
    xx, xy, xz, yy, yz, zz = m.unbind(1)
    x, y, z = d.unbind(1)
    return torch.stack((xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z), 1)


def _centered(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of the source, its rms distance from there, and its points in these terms."""
    w = pairs.weights
    total = w.sum(1, keepdim=True)
    w = (w / torch.where(total > 0, total, 1))[:, None].detach()
    pivot = (w @ pairs.source.detach())[:, 0]  # a product is faster than a sum over the first dimension
    p = pairs.source - pivot[:, None]
    radius = (w @ p.detach().square())[:, 0].sum(-1).sqrt()
    radius = torch.where(radius > 0, radius, 1)
    return pivot, radius, p / radius[:, None, None]


def _of_rows(jacobian: Tensor, residual: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    weighted = weights[..., None] * jacobian
    return weighted.mT @ jacobian, (weighted.mT @ residual[..., None])[..., 0]


def _solve(h: Tensor, g: Tensor, limits: Limits | None) -> tuple[Tensor, Tensor]:
    """Return H within the limits, and -g / H in the directions that it determines; 0 in the others, which are
    taken for constant."""
    if limits is not None:
        allowed = limits.projector
        h, g = allowed @ h @ allowed, _turn(allowed, g)
    values, vectors = eigen(h)
    top = values[:, -1:]
    seen = values > OBSERVABLE * top
    kept = (vectors * seen[:, None]) @ vectors.mT
    eye = torch.eye(6, dtype=h.dtype, device=h.device)
    fill = torch.where(top > 0, top, 1)[..., None]
    projected = kept @ h @ kept + fill * (eye - kept)
    delta, _ = torch.linalg.solve_ex(projected, -(kept @ g[..., None]))
    return h, delta[..., 0] if limits is None else _turn(limits.projector, delta[..., 0])


def eigen(h: Tensor, limits: Limits | None = None) -> tuple[Tensor, Tensor]:
    """Return ascending eigenvalues and vectors of symmetric matrices, constants; 0 where not finite.

    First come those of what limits do not allow, negative.
    """
    with torch.no_grad():
        if limits is not None:
            trace = h.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
            eye = torch.eye(6, dtype=h.dtype, device=h.device)
            h = h - torch.where(trace > 0, trace, 1) * (eye - limits.projector)
        finite = h.isfinite().all(-1).all(-1)[:, None, None]
        values, vectors = torch.linalg.eigh(torch.where(finite, h, 0))
        return values, vectors


def _about(pivot: Tensor, omega: Tensor, u: Tensor, h: Tensor, radius: Tensor) -> Step:
    """Make the step p' = exp(omega) (p - c) + c + u."""
    e = axis_angle_to_matrix(omega)
    return Step(e, pivot + u - _turn(e, pivot), h, pivot, radius)


def _turn(rotation: Tensor, vector: Tensor) -> Tensor:
    return (rotation @ vector[..., None])[..., 0]


def take(
    method: Method,
    source: Tensor,
    indices: Tensor,
    weights: Tensor,
    items: Tensor,
    rotation: Tensor,
    translation: Tensor,
    origin: Tensor,
    target: Tensor,
    counts: Tensor,
    own: Tensor | None = None,
    theirs: Tensor | None = None,
    *,
    limits: Limits | None = None,
    kernel: str = "none",
    parameter: float | None = None,
) -> tuple[Taken, Tensor, Tensor]:
    """Take a step by the kernels for the CPU.

    Args:
        method: a row of `METHODS`.
        source: where it is now, (B, N, 3).
        indices: of the neighbors, (B, N), M where there is none.
        weights: (B, N), at least 0.
        items: the place of each among the targets, (B,).
        rotation: of the poses now, (B, 3, 3).
        translation: likewise, (B, 3).
        origin: near the pairs, (B, 3): of the sums, against rounding.
        target: (T, M, 3).
        counts: (T, M), positive where a point counts for steps.
        own: normals or packed covariances of the source, not turned.
        theirs: those of the target.
        limits: of the motions, of batch (B,).
        kernel: of the robust weights, as for `robust_weights`, or "none".
        parameter: likewise.

    Returns:
        The step, the weights (B, N) that it gives, and the sizes of the residuals (B, N), infinite for pairs
        that do not count.
    """
    (size, n), m = indices.shape, target.shape[1]
    segments = -(-n // SEGMENT)  # rounded up
    own, theirs = (source if own is None else own), (target if theirs is None else theirs)
    source, indices, items, rotation, origin, target, counts, own, theirs = (
        x.contiguous() for x in (source, indices, items, rotation, origin, target, counts, own, theirs)
    )
    residuals = torch.empty((size, n), dtype=torch.float64, device="cpu")

    def sum_up(weights: Tensor) -> Tensor:
        sums = torch.zeros(size * segments, SUMS.size, dtype=torch.float64, device="cpu")
        pairs = (source, indices, weights, items, rotation, origin, target, counts, own, theirs, residuals)
        arguments = (*pairs, sums, n, m, segments, SEGMENT, method.residuals)
        cost, scratch = 9 * SEGMENT, icp_sums.SCRATCH
        cpu.run_rows("sum_pairs", torch.float64, len(sums), cost, arguments, scratch, 1)
        return sums

    weights = weights.contiguous()
    sums = sum_up(weights)
    if kernel != "none":
        weights = weights * robust_weights(kernel, residuals, residuals.isfinite(), parameter)
        sums = sum_up(weights)
    steps = torch.empty(size, STEP.size, dtype=torch.float64, device="cpu")
    kinds = torch.zeros(size, 4, dtype=torch.float64, device="cpu")
    if limits is not None:
        kinds[:, :3], kinds[:, 3] = limits.axis, 2 if limits.planar else 1
    poses = (sums, segments, origin, rotation, translation.contiguous(), kinds, steps)
    cpu.run_rows(method.stepping, torch.float64, size, 1000, poses, icp_steps.SCRATCH, 1)
    step = STEP.read(steps)
    taken = Taken(
        rotation=step["rotation"],
        translation=step["translation"],
        normal_matrix=step["matrix"],
        pivot=step["pivot"],
        radius=step["radius"],
        found=step["found"],
        squares=step["squares"],
        enough=step["used"] >= 3,
        finite=step["finite"] > 0,
        angle=_angle(step["chord"]),
        length=step["length"],
    )
    return taken, weights, residuals


def take_of_pairs(
    method: Method, pairs: Pairs, distances: Tensor, rotation: Tensor, translation: Tensor
) -> Taken:
    """Take the same step in tensors; distances (B, N) are infinite where there is no neighbor."""
    step, found = method.step(pairs), distances.isfinite()
    squares = torch.where(found, distances, 0).square().sum(1)
    enough = (pairs.weights > 0).sum(1) >= 3
    finite = step.rotation.isfinite().all(-1).all(-1) & step.translation.isfinite().all(-1)
    moves = enough & finite
    return Taken(
        torch.where(moves[:, None, None], step.rotation @ rotation, rotation),
        torch.where(moves[:, None], _turn(step.rotation, translation) + step.translation, translation),
        torch.where(moves[:, None, None], step.normal_matrix, 0),
        step.pivot,
        step.radius,
        found.sum(1),
        squares,
        enough,
        finite,
        _angle(torch.linalg.matrix_norm(step.rotation - torch.eye(3, device="cpu").to(step.rotation))),
        (_turn(step.rotation, step.pivot) + step.translation - step.pivot).norm(dim=-1),
    )


def _angle(chord: Tensor) -> Tensor:
    return 2 * torch.asin((chord / math.sqrt(8)).clamp(max=1))


METHODS = {
    "point_to_point": Method(_distance, _point_to_point, icp_sums.POINTS, "step_points"),
    "point_to_plane": Method(
        _plane_distance, _point_to_plane, icp_sums.PLANES, "step_planes", target="normals"
    ),
    "symmetric": Method(
        _symmetric_distance, _symmetric, icp_sums.SYMMETRIC, "step_symmetric", "normals", "normals"
    ),
    "generalized": Method(
        _mahalanobis, _generalized, icp_sums.COVARIANCES, "step_planes", "covariances", "covariances", 3e-3
    ),
}


TRIMMED = 0.8  # the share that counts by default
DEVIATION = 1.4826  # of Gaussian noise, over the median of its absolute values


def robust_weights(kernel: str, residual: Tensor, live: Tensor, parameter: float | None) -> Tensor:
    """Return factors of the weights, (B, N), in [0, 1], constants for autograd.

    Args:
        kernel: "trimmed" or a row of `KERNELS`.
        residual: (B, N).
        live: boolean, (B, N): pairs that count.
        parameter: the scale c of the kernel, or the share that "trimmed" keeps.
    """
    with torch.no_grad():
        r = residual.abs()
        if kernel == "trimmed":
            share = TRIMMED if parameter is None else parameter
            return (r <= _smallest(r, live, share)).to(r.dtype)
        if parameter is not None:
            return KERNELS[kernel].weight((r / parameter).square())
        scale = KERNELS[kernel].tuning * DEVIATION * _smallest(r, live, 0.5)
        # Half of the pairs fit exactly: rounding is no measure of noise, and all that fits as well counts.
        least = torch.finfo(r.dtype).eps * torch.where(live, r, 0).amax(1, keepdim=True)
        return KERNELS[kernel].weight((r / torch.maximum(scale, torch.where(least > 0, least, 1))).square())


def _smallest(r: Tensor, live: Tensor, share: float) -> Tensor:
    """Return the residual that a share of the pairs do not exceed, (B, 1)."""
    ordered = torch.where(live, r, torch.inf).sort(1).values
    rank = (share * live.sum(1, keepdim=True)).ceil().long() - 1
    return ordered.gather(1, rank.clamp(min=0))
