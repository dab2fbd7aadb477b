r"""One rotation for many: the weighted means and the weighted median of SO(3).

With weights $w_i$ of sum one and the angle $\theta_i$ from $R$ to $R_i$, the costs of `NORMS` are

    chordal_l2     $\sum w_i |R - R_i|_F^2 / 4$, a sum of $2 \sin^2(\theta_i / 2)$
    geodesic_l2    $\sum w_i \theta_i^2 / 2$
    geodesic_l1    $\sum w_i \theta_i$

The first is least, over all of SO(3), at the rotation nearest to $\sum w_i R_i$. The others are found by
iteration from a start of their own. Let $v_i$ be the rotation vector of $R^\top R_i$, of length $\theta_i$,
and $R$ move to $R \exp(\delta)$: the gradients in $\delta$ are $-g$ with $g = \sum w_i v_i$ and $g = \sum w_i
v_i / \theta_i$, and the Hessian of an angle's square over 2 is $a a^\top + c\,(I - a a^\top)$, with the axis
$a$ and $c = \frac{\theta}2 \cot\frac{\theta}2$, that of the angle itself $\frac c\theta (I - a a^\top)$.
Where $g = 0$, implicit differentiation gives $d\delta = H^{-1} dg$, by which gradients pass to rotations and
weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from svdrot._checks import check_choice, check_mask, check_shape, common_batch
from svdrot._precision import result_dtype
from svdrot._stand_ins import takes_arrays
from svdrot._vectors import one_batch
from svdrot.engine.door import is_constant
from svdrot.projection import special_orthogonalize
from svdrot.representations import axis_angle_to_matrix, matrix_to_axis_angle

COINCIDENT = 1e-12  # radians; rotation vectors of products of rotations are right to 1e-15


@takes_arrays
def average_rotations(
    rotations: Tensor, weights: Tensor | None = None, *, mask: Tensor | None = None, norm: str = "chordal_l2"
) -> Tensor:
    r"""Find the rotation of least weighted cost to many: their mean, or their median.

    "chordal_l2", $\sum w |R - R_i|_F^2$, is a closed form and the global minimum. "geodesic_l2", $\sum w
    \theta_i^2$, is the Karcher mean found from there: the only one if all lie within a quarter turn of one
    rotation. "geodesic_l1", $\sum w \theta_i$, is the median, found from the rotation nearest to the matrix
    of entry-wise medians; less than half of the weight, however far off, moves it little.

    Differentiable in rotations and weights: the chordal mean any number of times with the damping of
    `special_orthogonalize`, the others twice, by the implicit function theorem. A median that lies at one of
    the rotations moves with it, and with no other. Along an axis in which the cost is flat the gradient is
    zero; `average_curvature` tells of that.

    Args:
        rotations: shape (..., N, 3, 3).
        weights: shape (..., N), at least 0, of any total. Batch dimensions broadcast. Default: 1.
        mask: boolean, shape (..., N): rotations that count. What does not count may be NaN. So may rotations
            of weight 0.
        norm: "chordal_l2", "geodesic_l2" or "geodesic_l1", a key of `NORMS`.

    Returns:
        Rotations, shape (..., 3, 3), computed in float64. No rotation or a total weight of 0 gives the
        identity with zero gradient. NaN, infinity or a negative weight in what counts gives NaN for its item
        only. Several minima, as for two rotations half a turn apart, give one of them.

    Raises:
        ValueError: if shapes do not fit, or `norm` is none.
        TypeError: if an argument is not a tensor of the right kind.

    Source:
        Hartley, Trumpf, Dai and Li, "Rotation averaging", IJCV 103 (2013), sections 4 and 5; Hartley, Aftab
        and Trumpf, "L1 rotation averaging using the Weiszfeld algorithm", CVPR 2011; Lee and Civera, "Robust
        single rotation averaging", arXiv 2004.00732 (entry-wise medians).

    Example:
        >>> import torch, svdrot
        >>> about_x = torch.tensor([[0.1, 0.0, 0.0], [0.2, 0.0, 0.0], [1.5, 0.0, 0.0]])
        >>> rotations = svdrot.axis_angle_to_matrix(about_x)
        >>> for norm in ("geodesic_l2", "geodesic_l1"):
        ...     average = svdrot.averaging.average_rotations(rotations, norm=norm)
        ...     print(round(svdrot.matrix_to_axis_angle(average)[0].item(), 4))
        0.6
        0.2
    """
    items = _Items.of(rotations, weights, mask, norm)
    average = NORMS[norm].solve(items.rotations, items.weights)
    average = torch.where(items.empty[:, None, None], torch.eye(3, device="cpu").to(average), average)
    return average.to(items.dtype).reshape(*items.batch, 3, 3)


@takes_arrays
def average_curvature(
    average: Tensor,
    rotations: Tensor,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    norm: str = "chordal_l2",
) -> Tensor:
    r"""Return how well defined an average is: the smallest second derivative of its cost by an angle turned.

    The cost is that of `NORMS`, with weights of sum one. A value that is not positive says that other
    averages are as good, or better.

    Args:
        average: rotations, shape (..., 3, 3), as from `average_rotations` with the other arguments.
        rotations, weights, mask, norm: see `average_rotations`.

    Returns:
        Shape (...), not differentiable; 0 if nothing counts. For the L2 norms it is at most 1, the value of
        rotations that agree; that of the chordal mean is half the `projection_gap` of $\sum w R_i$. For the
        L1 norm it is at least 0 unless angles pass pi, in 1 / radians, infinite for an average at one of the
        rotations, and 0 for two rotations and whatever lies between them.

    Raises:
        ValueError: if shapes do not fit, or `norm` is none.
        TypeError: if an argument is not a tensor of the right kind.

    Example:
        >>> import torch, svdrot
        >>> half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        >>> apart = torch.stack((torch.eye(3), half_turn))  # any turn about x between them is as near
        >>> average = svdrot.averaging.average_rotations(apart)
        >>> svdrot.averaging.average_curvature(average, apart).abs() < 1e-6
        tensor(True)
    """
    check_shape("average", average, 3, 3)
    items = _Items.of(rotations, weights, mask, norm)
    if common_batch(average=average.shape[:-2], rotations=items.batch) != items.batch:
        raise ValueError(f"`average` must have shape {(*items.batch, 3, 3)}; got {tuple(average.shape)}.")
    with torch.no_grad():
        r = one_batch(average.double().expand(*items.batch, 3, 3))
        hessian = NORMS[norm].hessian(r, items.rotations, items.weights)
        sound = hessian.isfinite().all(-1).all(-1)
        smallest = torch.linalg.eigvalsh(torch.where(sound[:, None, None], hessian, 0))[:, 0]
        smallest = torch.where(sound, smallest, hessian.diagonal(dim1=-2, dim2=-1).amin(-1))
    return smallest.to(items.dtype).reshape(items.batch)


@dataclass(frozen=True)
class _Items:
    """Hold checked arguments as one batch: (B, N, 3, 3) and weights (B, N) of sum 1 or 0, in float64."""

    rotations: Tensor
    weights: Tensor
    empty: Tensor
    batch: torch.Size
    dtype: torch.dtype

    @staticmethod
    def of(rotations: Tensor, weights: Tensor | None, mask: Tensor | None, norm: str) -> "_Items":
        check_choice("norm", norm, NORMS)
        check_shape("rotations", rotations, 3, 3)
        if rotations.ndim < 3:
            raise ValueError(f"`rotations` must have shape (..., N, 3, 3); got {tuple(rotations.shape)}.")
        n = rotations.shape[-3]
        w = rotations.new_ones(n) if weights is None else weights
        check_shape("weights", w, n)
        counts = torch.ones(n, dtype=torch.bool, device=rotations.device) if mask is None else mask
        check_mask("mask", counts, n)
        batch = common_batch(rotations=rotations.shape[:-3], weights=w.shape[:-1], mask=counts.shape[:-1])
        size = math.prod(batch)
        r = rotations.double().expand(*batch, n, 3, 3).reshape(size, n, 3, 3)
        w = torch.where(counts, w.double(), 0).expand(*batch, n).reshape(size, n)
        counts = counts.expand(*batch, n).reshape(size, n)
        # A finite rotation of weight 0 stays, for the gradient of its weight.
        unread = ~counts | ((w == 0) & ~r.isfinite().all(-1).all(-1))
        r = torch.where(unread[..., None, None], torch.eye(3, device="cpu").to(r), r)
        broken = (~r.isfinite().all(-1).all(-1) | ~w.isfinite() | (w < 0)).any(1)
        # All of it: where medians and nearest neighbors are chosen, one NaN may go unseen.
        r, w = (
            torch.where(broken[:, None, None, None], torch.nan, r),
            torch.where(broken[:, None], torch.nan, w),
        )
        total = torch.where(broken, 1, w.sum(1))
        return _Items(
            r, w / torch.where(total == 0, 1, total)[:, None], total == 0, batch, result_dtype(rotations)
        )


def _chordal_mean(r: Tensor, w: Tensor) -> Tensor:
    return special_orthogonalize((w[..., None, None] * r).sum(1))


def _chordal_hessian(average: Tensor, r: Tensor, w: Tensor) -> Tensor:
    s = average.mT @ (w[..., None, None] * r).sum(1)
    s = (s + s.mT) / 2
    return (s.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * torch.eye(3, device="cpu").to(s) - s) / 2


def _karcher_mean(r: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        average = _descend(
            _chordal_mean(r, w), lambda average: (w[..., None] * _vectors(average, r)).sum(1), 200
        )
    if is_constant((r, w)):
        return average
    hessian = _karcher_hessian(average, r, w)
    return _with_derivatives(average, hessian, lambda at: (w[..., None] * _vectors(at, r)).sum(1))


def _descend(average: Tensor, step: Callable[[Tensor], Tensor], limit: int) -> Tensor:
    """Follow the steps of each item until one is below 1e-12 radians, whatever the others do."""
    for _ in range(limit):
        turn = step(average)
        going = (turn.abs() > 1e-12).any(1, keepdim=True)
        if not going.any():
            break
        average = average @ axis_angle_to_matrix(torch.where(going, turn, 0))
    return average


def _vectors(average: Tensor, r: Tensor) -> Tensor:
    return matrix_to_axis_angle(average.mT[:, None] @ r)


def _karcher_hessian(average: Tensor, r: Tensor, w: Tensor) -> Tensor:
    axes, _, c = _polar(_vectors(average, r))
    along = axes[..., :, None] * axes[..., None, :]
    each = along + c * (torch.eye(3, device="cpu").to(r) - along)
    return (w[..., None, None] * each).sum(1)


def _polar(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return axes (B, N, 3), 0 without an angle; angles (B, N); theta / 2 cot(theta / 2), (B, N, 1, 1)."""
    angles = _angles(v)
    some = torch.where(angles > 0, angles, 1)
    c = torch.where(angles > 1e-4, some / 2 / torch.tan(some / 2), 1 - angles**2 / 12)
    return v / some[..., None], angles, c[..., None, None]


def _angles(v: Tensor) -> Tensor:
    """Return lengths, with zero gradient at zero."""
    squared = (v * v).sum(-1)
    zero = squared == 0
    return torch.where(zero, 0, torch.where(zero, 1, squared).sqrt())


def _with_derivatives(average: Tensor, hessian: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `average`, a constant, with its first and second derivatives: two steps H^-1 d slope.

    Each step, which changes no number, makes right one order more of how the average moves with what the
    slope depends on. Along axes in which the cost does not bend it does not move.
    """
    inverse, _ = _inverse(hessian.detach())
    for _ in range(2):
        s = slope(average)
        turn = (inverse @ (s - s.detach())[..., None])[..., 0]
        average = average @ axis_angle_to_matrix(turn)
    return average


def _inverse(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Invert on the axes in which the cost is convex, 0 on the others; and tell if there are no others."""
    values, vectors = torch.linalg.eigh(torch.where(hessian.isfinite(), hessian, 0))
    bends = values > 1e-10 * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    inverse = (vectors * torch.where(bends, 1 / torch.where(bends, values, 1), 0)[:, None]) @ vectors.mT
    return inverse, bends.all(-1)


def _median(r: Tensor, w: Tensor) -> Tensor:
    """Return one of the rotations if it weighs more than the others pull, else where they balance."""
    if r.shape[1] == 0:
        return _chordal_mean(r, w)
    with torch.no_grad():
        start = special_orthogonalize(_entrywise_median(r, w))
        average = _descend(start, lambda average: _median_step(average, r, w), 200)
        v = _vectors(average, r)
        pull, held, _ = _pull(v, w)
        kept = (held > 0) & (_angles(pull) <= held)
        here = (_angles(v) <= COINCIDENT) & kept[:, None]
    if is_constant((r, w)):
        return torch.where(kept[:, None, None], _nearest(here, r, w), average)

    def slope(at: Tensor) -> Tensor:
        return _pull(_vectors(at, r), w)[0]

    between = _with_derivatives(average, _bend(v.detach(), w), slope)
    return torch.where(kept[:, None, None], _nearest(here, r, w), between)


def _nearest(here: Tensor, r: Tensor, w: Tensor) -> Tensor:
    return special_orthogonalize((torch.where(here, w.detach(), 0)[..., None, None] * r).sum(1))


def _median_step(average: Tensor, r: Tensor, w: Tensor) -> Tensor:
    """Return a step towards the median, a rotation vector in the frame of the average, (B, 3).

    To the nearest rotation if that is a minimum and no worse; Newton's step where the cost is convex and the
    step halves the pull; otherwise Weiszfeld's, which never fails, and is linear.
    """
    v = _vectors(average, r)
    pull, held, near = _pull(v, w)
    length = _angles(pull)

    rows = torch.arange(r.shape[0], device=r.device)
    nearest = _angles(v).masked_fill(w == 0, math.inf).argmin(1)
    there = _vectors(r[rows, nearest], r)
    pull_there, held_there, _ = _pull(there, w)
    settles = (_angles(pull_there) <= held_there) & (_cost(there, w) <= _cost(v, w))

    inverse, convex = _inverse(torch.where(held[:, None, None] > 0, 0, _bend(v, w)))
    newton = (inverse @ pull[..., None])[..., 0]
    pull_then, held_then, _ = _pull(_vectors(average @ axis_angle_to_matrix(newton), r), w)
    better = convex & (held == 0) & (held_then == 0) & (_angles(pull_then) < length / 2)

    # Vardi and Zhang, PNAS 97 (2000): what is left of the pull when those here have had their share.
    left = (1 - held / torch.where(length > 0, length, 1)).clamp_min(0)
    weiszfeld = (left / torch.where(near > 0, near, 1))[:, None] * pull
    turn = torch.where(better[:, None], newton, weiszfeld)
    return torch.where(settles[:, None], v[rows, nearest], turn)


def _entrywise_median(r: Tensor, w: Tensor) -> Tensor:
    # Of each of the nine entries the first value, in ascending order, at which half of the weight is reached.
    values, order = r.flatten(-2).sort(1)
    below = w[..., None].expand_as(order).gather(1, order).cumsum(1)
    middle = (below < 0.5).sum(1, keepdim=True).clamp_max(r.shape[1] - 1)
    return values.gather(1, middle)[:, 0].unflatten(-1, (3, 3))


def _pull(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pull sum w v / theta of the rotations elsewhere, the weight of those here, sum w / theta.

    Shapes (B, 3), (B,) and (B,).
    """
    angles = _angles(v)
    apart = angles > COINCIDENT
    share = torch.where(apart, w / torch.where(apart, angles, 1), 0)
    return (share[..., None] * v).sum(1), torch.where(apart, 0, w).sum(1), share.sum(1)


def _cost(v: Tensor, w: Tensor) -> Tensor:
    return (w * _angles(v)).sum(1)


def _median_hessian(average: Tensor, r: Tensor, w: Tensor) -> Tensor:
    return _bend(_vectors(average, r), w)


def _bend(v: Tensor, w: Tensor) -> Tensor:
    axes, angles, c = _polar(v)
    apart = (angles > COINCIDENT)[..., None, None]
    across = c * (torch.eye(3, device="cpu").to(v) - axes[..., :, None] * axes[..., None, :])
    endless = torch.full((3,), math.inf, device="cpu").to(v).diag()
    each = torch.where(apart, across / torch.where(apart, angles[..., None, None], 1), endless)
    # 0 * inf: what has no weight adds nothing.
    weight = w[..., None, None]
    return torch.where((weight == 0) | (each == 0), 0, weight * each).sum(1)


@dataclass(frozen=True)
class _Norm:
    solve: Callable[[Tensor, Tensor], Tensor]
    hessian: Callable[[Tensor, Tensor, Tensor], Tensor]


NORMS = {
    "chordal_l2": _Norm(_chordal_mean, _chordal_hessian),
    "geodesic_l2": _Norm(_karcher_mean, _karcher_hessian),
    "geodesic_l1": _Norm(_median, _median_hessian),
}
