"""Alignment of correspondences of which most may be wrong.

What is right up to noise is known by one number, the threshold: a distance that a right pair hardly exceeds
after alignment, three to four standard deviations of the noise. `METHODS` are rows of a table; all end in the
weighted least-squares fit of `kabsch`, so that is what an estimate is, and how it is differentiable.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_choice, check_floating, check_mask, check_shape, common_batch
from svdrot._precision import result_dtype
from svdrot._robust_kernels import KERNELS
from svdrot._stand_ins import takes_arrays
from svdrot.registration.pairs import reweighting
from svdrot.registration.pairs._hypotheses import Pairs, Selection, squared_residuals
from svdrot.registration.pairs.consistency import consistency
from svdrot.registration.pairs.procrustes import Alignment, kabsch, umeyama
from svdrot.registration.pairs.ransac import ransac
from svdrot.transform import register_pytree

SHUFFLED = 256  # sources, to measure what agrees by chance


@dataclass(frozen=True)
class RobustAlignment(Alignment):
    """Describe the transform that fits the right ones among pairs of points, and which those are.

    Attributes:
        rotation: shape (..., 3, 3).
        translation: shape (..., 3).
        scale: shape (...).
        covariance: of the weighted fit, shape (..., 3, 3), float64.
        reflection: False.
        pairs: source, target and weights of the fit, kept for `residual`.
        centered: True.
        motion: "free".
        about: empty.
        weights: of the least-squares fit, shape (..., N): those given, times the method's, at most 1.
        inliers: pairs that end within the threshold, boolean, shape (..., N).
        fitness: their share of the pairs that count, shape (...), in [0, 1].
        rmse: root of their mean squared distance, shape (...); 0 without any.
        iterations: of the method, samples for RANSAC, shape (...).
        converged: whether the method came to its end, the inliers determine the transform, and more pairs
            agree with it than would by chance with the best of all samples of three. Shape (...).

    Example:
        >>> import torch, svdrot
        >>> x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
        >>> y = x.clone()
        >>> y[:10] = torch.rand(10, 3, generator=torch.Generator().manual_seed(1))  # wrong pairs
        >>> fit = svdrot.registration.robust_kabsch(x, y, threshold=0.01)
        >>> bool(fit.converged), fit.inliers.sum(), round(fit.fitness.item(), 3)
        (True, tensor(20), 0.667)
    """

    weights: Tensor
    inliers: Tensor
    fitness: Tensor
    rmse: Tensor
    iterations: Tensor
    converged: Tensor


register_pytree(RobustAlignment, "reflection")


@takes_arrays
def robust_kabsch(
    source: Tensor,
    target: Tensor,
    threshold: float,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    method: str = "consistency",
    generator: torch.Generator | None = None,
) -> RobustAlignment:
    """Find the rigid transform that most of the right pairs agree on, however many are wrong.

    Args:
        source: shape (..., N, 3), any floating dtype.
        target: the same number of points, pair by pair. Batch dimensions broadcast.
        threshold: distance up to which a pair counts as right, > 0, in the units of the points.
        weights: shape (..., N). A pair whose weight is not positive does not count. Default: 1.
        mask: boolean, shape (..., N): pairs that count. Nor does a pair with a NaN or an infinity.
        method: "consistency", "ransac", "gnc_tls", "gnc_geman_mcclure", a row of
            `svdrot.registration.KERNELS` ("geman_mcclure", "tukey", "huber") or "least_squares"; the share of
            wrong pairs that each tolerates is measured by `experiments.registration.robust_procrustes`.
        generator: of the random numbers of the first two; torch's global one if None.

    Returns:
        `RobustAlignment`: rigid, differentiable in points and weights as the weighted `kabsch` that it ends
        with. Where no two pairs agree, or fewer than three count, it is what least squares makes of what is
        there (the identity, of nothing), with `converged` False; so it is for pairs on a line, in one point,
        and for a set of inliers no larger than chance would make it.

    Raises:
        ValueError: if shapes do not fit, `threshold` is not a positive number, or `method` is unknown.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        the modules `consistency`, `ransac` and `reweighting`.

    Example:
        >>> import torch, svdrot
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.rand(100, 3, generator=generator)
        >>> y = x + torch.tensor([1.0, 0.0, 0.0])
        >>> y[:70] = torch.rand(70, 3, generator=generator)  # 70 % are wrong
        >>> fit = svdrot.registration.robust_kabsch(x, y, threshold=0.01, generator=generator)
        >>> bool(fit.converged), torch.allclose(fit.translation, y[-1] - x[-1], atol=1e-4)
        (True, True)
    """
    return _robust(source, target, threshold, weights, mask, method, generator, scaled=False)


@takes_arrays
def robust_umeyama(
    source: Tensor,
    target: Tensor,
    threshold: float,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    method: str = "ransac",
    generator: torch.Generator | None = None,
) -> RobustAlignment:
    """Find the similarity that most of the right pairs agree on, however many are wrong.

    Args:
        source: shape (..., N, 3), any floating dtype.
        target: the same number of points, pair by pair. Batch dimensions broadcast.
        threshold: distance up to which a pair counts as right, > 0, in the target's units.
        weights: shape (..., N). A pair whose weight is not positive does not count. Default: 1.
        mask: boolean, shape (..., N): pairs that count. Nor does a pair with a NaN or an infinity.
        method: as for `robust_kabsch`, but for "consistency", which compares lengths, and a similarity does
            not keep them.
        generator: of the random numbers of "ransac"; torch's global one if None.

    Returns:
        `RobustAlignment`, with the scale; otherwise as `robust_kabsch`.

    Raises:
        ValueError: if shapes do not fit, `threshold` is not a positive number, or `method` is unknown or
            "consistency".
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        the modules `ransac` and `reweighting`.

    Example:
        >>> import torch, svdrot
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.rand(100, 3, generator=generator)
        >>> y = 2 * x
        >>> y[:30] = torch.rand(30, 3, generator=generator)  # wrong pairs
        >>> fit = svdrot.registration.robust_umeyama(x, y, threshold=0.01, generator=generator)
        >>> bool(fit.converged), round(fit.scale.item(), 4)
        (True, 2.0)
    """
    return _robust(source, target, threshold, weights, mask, method, generator, scaled=True)


Method = Callable[[Tensor, Tensor, Tensor, Tensor, bool, torch.Generator | None], Selection]


def _one_by_one(method: Callable[[Pairs, torch.Generator | None], Selection]) -> Method:
    def batched(x, y, w, threshold, scaled, generator) -> Selection:
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                "`method` 'consistency' and 'ransac' have no transforms of torch.func;"
                " those of torch.autograd they have."
            )
        weights = torch.zeros_like(w)
        iterations = torch.zeros_like(threshold, dtype=torch.long)
        settled = torch.zeros_like(iterations, dtype=torch.bool)
        for k in range(len(x)):
            live = w[k] > 0
            if live.sum() >= 3:
                pairs = Pairs(x[k, live], y[k, live], w[k, live], threshold[k].item(), scaled)
                found = method(pairs, generator)
                weights[k, live], iterations[k], settled[k] = found.weights, found.iterations, found.settled
            else:  # nothing to select from
                weights[k] = w[k]
        return Selection(weights, iterations, settled)

    return batched


def _reweighted(rule: reweighting.Rule) -> Method:
    def batched(x, y, w, threshold, scaled, generator) -> Selection:
        return reweighting.reweighted(rule, x, y, w, threshold, scaled)

    return batched


def _least_squares(x, y, w, threshold, scaled, generator) -> Selection:
    return Selection(
        w, torch.ones_like(threshold, dtype=torch.long), torch.ones_like(threshold, dtype=torch.bool)
    )


# Besides these, every row of `KERNELS` is a method: reweighting by it from the first step on.
METHODS: dict[str, Method] = {
    "consistency": _one_by_one(consistency),
    "ransac": _one_by_one(ransac),
    "gnc_tls": _reweighted(reweighting.GRADUATED_TRUNCATED),
    "gnc_geman_mcclure": _reweighted(reweighting.GRADUATED_GEMAN_MCCLURE),
    "least_squares": _least_squares,
}


def _robust(
    source: Tensor,
    target: Tensor,
    threshold: float,
    weights: Tensor | None,
    mask: Tensor | None,
    method: str,
    generator: torch.Generator | None,
    scaled: bool,
) -> RobustAlignment:
    check_choice("method", method, (*METHODS, *KERNELS))
    select = METHODS.get(method) or _reweighted(reweighting.plain(KERNELS[method]))
    if scaled and method == "consistency":
        raise ValueError("`method` must not be 'consistency' for a similarity, which does not keep lengths.")
    x, y, w, batch = _checked(source, target, threshold, weights, mask)
    live = w > 0
    with torch.no_grad():
        limit = w.new_full(w.shape[:1], threshold)
        found = select(x.detach(), y.detach(), w.detach(), limit, scaled, generator)
        share = found.weights / torch.where(live, w, 1)
    fit = (umeyama if scaled else kabsch)(x, y, w * share)
    with torch.no_grad():
        squared = squared_residuals(fit, x, y)
        inliers = live & (squared <= threshold**2)
        count = inliers.sum(1)
        rmse = (torch.where(inliers, squared, 0).sum(1) / count.clamp_min(1)).sqrt()
        determined = fit.gap * torch.linalg.matrix_norm(fit.covariance) > (threshold / 3) ** 2
        alarms = _log_false_alarms(fit.apply(x), y, live, count, threshold)
        converged = found.settled & determined & (alarms < 0)
        fitness = count / live.sum(1).clamp_min(1)
    dtype = result_dtype(source.to(torch.promote_types(source.dtype, target.dtype)))
    floats = (fit.rotation, fit.translation, fit.scale, w * share, fitness, rmse)
    rotation, translation, scale, w, fitness, rmse = (
        part.to(dtype).reshape(batch + part.shape[1:]) for part in floats
    )
    covariance, inliers, iterations, converged = (
        part.reshape(batch + part.shape[1:])
        for part in (fit.covariance, inliers, found.iterations, converged)
    )
    return RobustAlignment(
        rotation,
        translation,
        scale,
        covariance,
        False,
        fit.pairs,
        fit.centered,
        w,
        inliers,
        fitness,
        rmse,
        iterations,
        converged,
    )


def _checked(
    source: Tensor, target: Tensor, threshold: float, weights: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, torch.Size]:
    """Check the arguments; return them as (B, N, 3), (B, N, 3) and (B, N) in float64, and the batch.

    Where a pair does not count, all are zero.
    """
    check_floating("source", source)
    if source.ndim < 2 or source.shape[-1] != 3:
        raise ValueError(f"`source` must have shape (..., N, 3); got {tuple(source.shape)}.")
    n = source.shape[-2]
    check_shape("target", target, n, 3)
    if not (isinstance(threshold, Real) and 0 < threshold < math.inf):  # numbers of numpy, too
        raise ValueError(f"`threshold` must be a finite number > 0; got {threshold!r}.")
    if weights is not None:
        check_shape("weights", weights, n)
    w = source.new_ones(n, dtype=torch.float64) if weights is None else weights.double()
    counts = torch.ones_like(w, dtype=torch.bool) if mask is None else mask
    check_mask("mask", counts, n)
    given = {"source": source.shape[:-2], "target": target.shape[:-2]}
    batch = common_batch(**given, weights=w.shape[:-1], mask=counts.shape[:-1])
    w = torch.where(counts, w, 0)
    size = math.prod(batch)
    x = source.double().expand(*batch, n, 3).reshape(size, n, 3)
    y = target.double().expand(*batch, n, 3).reshape(size, n, 3)
    w = w.expand(*batch, n).reshape(size, n)
    live = (w > 0) & w.isfinite() & x.isfinite().all(-1) & y.isfinite().all(-1)
    x, y = torch.where(live[..., None], x, 0), torch.where(live[..., None], y, 0)
    return x, y, torch.where(live, w, 0), batch


def _log_false_alarms(moved: Tensor, y: Tensor, live: Tensor, count: Tensor, threshold: float) -> Tensor:
    """Return the logarithm of how many fits to three pairs would have `count` inliers by chance, (B,).

    By chance a moved source meets its target as often as it meets those of other pairs, as if these were
    shuffled, or as if they were uniform in their box: where points lie close together the former is likelier.
    """
    if y.shape[1] == 0:
        return y.new_full((y.shape[0],), math.inf)
    moved, y = torch.where(live[..., None], moved, 0), torch.where(live[..., None], y, 0)
    low = torch.where(live[..., None], y, math.inf).amin(1)
    high = torch.where(live[..., None], y, -math.inf).amax(1)
    extent = (high - low).clamp_min(0) / threshold + 2
    some = torch.linspace(0, y.shape[1] - 1, min(y.shape[1], SHUFFLED), device=y.device).long()
    columns = zip(moved[:, some].unbind(-1), y.unbind(-1), strict=True)
    squares = sum(((a[..., None] - b[:, None]).square() for a, b in columns), y.new_zeros(()))
    both = live[:, some, None] & live[:, None] & (some[:, None] != torch.arange(y.shape[1], device=y.device))
    meet = ((squares <= threshold**2) & both).sum((1, 2)) / both.sum((1, 2)).clamp_min(1)
    return _log_of_fits(live.sum(1).double(), count.double(), extent, meet.double())


def _log_of_fits(n: Tensor, k: Tensor, extent: Tensor, meet: Tensor) -> Tensor:
    """Return the logarithm of how many fits to three of n pairs have k inliers by chance.

    A contrario: Moisan and Stival, "A probabilistic criterion to detect rigid point matches", IJCV 57
    (2004), equation 10, for points in space, with the factor of the binomial distribution that it leaves out.
    A third point counts as evidence, since the distances to the other two must fit it.

    Args:
        n: pairs.
        k: inliers.
        extent: of the box of the targets, in thresholds, (..., 3).
        meet: share of shuffled pairs that agree.
    """
    chance = torch.maximum(4 / 3 * math.pi / extent.prod(-1), meet)

    def log_choose(n: Tensor, k: Tensor) -> Tensor:
        return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)

    fits = n.log() + log_choose(n, k) + log_choose(k, k.new_tensor(3))
    alarms = fits + (k - 2) * chance.log() + torch.special.xlog1py(n - k, -chance.clamp_max(1))
    return torch.where((k >= 3) & (k > n * chance), alarms, math.inf)


def by_more_than_chance(x: NDArray[Any], y: NDArray[Any], pose: NDArray[Any], threshold: float) -> bool:
    """Return whether more pairs (n, 3) agree with a pose (3, 4) than would by chance with the best of all.

    Args:
        x: sources.
        y: targets.
        pose: rotation and translation.
        threshold: distance within which a pair agrees.
    """
    moved, n = x @ pose[:, :3].T + pose[:, 3], len(y)
    if n < 3:
        return False
    agree = np.square(moved - y).sum(1) < threshold**2
    some = range(0, n, -(-n // SHUFFLED))
    meet = np.zeros(n)
    for i in some:
        near = np.square(moved[i] - y).sum(1) < threshold**2
        near[i] = False
        meet += near
    known = float(n), float(agree.sum()), np.ptp(y, 0) / threshold + 2, meet.sum() / (len(some) * (n - 1))
    return bool(_log_of_fits(*(torch.as_tensor(value, dtype=torch.float64) for value in known)) < 0)
