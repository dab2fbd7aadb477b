"""Moments of pairs of points, differentiable: kernels of `svdrot._kernels` behind one autograd Function."""

from typing import Any

import torch
from torch import Tensor

from svdrot import _autograd, _kernels
from svdrot._kernels.operations import pairs as pairs_reference
from svdrot._rules import backward_rule, forward_rule, joined, parted


def moments(x: Tensor, y: Tensor, w: Tensor | None, centered: bool) -> tuple[Tensor, Tensor]:
    """Return the moments of pairs, about the centroids or else the origin, and the pivots.

    Args:
        x: source, (B, N, d).
        y: target, (B, N, d).
        w: weights, (B, N), or none.
        centered: whether about the centroids.
    """
    if _autograd.is_recorded():
        return pairs_reference.moments(x, y, w, centered)
    return _autograd.pick(_Moments, _MomentsWithJvp).apply(x, y, w, centered)


def residual(
    x: Tensor, y: Tensor, w: Tensor | None, raw: Tensor, pivots: Tensor, scaled_rotation: Tensor
) -> Tensor:
    """Return the weighted root mean square of what is left after the rotation about the centroids, (B,)."""
    if _autograd.is_recorded():
        squares = pairs_reference.misfit(x, y, w, pivots, raw, scaled_rotation)
    else:
        squares = _autograd.pick(_Misfit, _EagerMisfit).apply(x, y, w, pivots, raw, scaled_rotation)
    return (squares / raw[:, 0].clamp_min(torch.finfo(raw.dtype).tiny)).sqrt()  # 0 without any weight


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(x, y, w, centered):
        return _kernels.select_pairs(x, y, w).moments(x, y, w, centered)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, w, ctx.centered = inputs
        m, pivots = output
        ctx.mark_non_differentiable(pivots)  # whichever pair is the pivot, the moments are the same
        ctx.save_for_backward(x, y, w, pivots, m)
        ctx.save_for_forward(x, y, w, pivots, m)

    @staticmethod
    @backward_rule
    def backward(ctx, g, _):
        x, y, w, pivots, m = ctx.saved_tensors
        if not ctx.centered:  # then centroids are 0, whatever the points
            centroids = 2 * x.shape[-1]
            total, _, second = g.split((1, centroids, g.shape[-1] - 1 - centroids), -1)
            g = torch.cat((total, g.new_zeros(len(g), centroids), second), -1)
        backend = pairs_reference if _autograd.is_seen_through(g) else _kernels.select_pairs(x, y, w, g)
        return *backend.moments_gradient(x, y, w, pivots, m, g.contiguous()), None

    @staticmethod
    def vmap(info, in_dims, x, y, w, centered):
        size = info.batch_size
        x, y, w = _flattened(size, in_dims, (x, y, w))
        m, pivots = _autograd.pick(_Moments, _MomentsWithJvp).apply(x, y, w, centered)
        return (_of_each(m, size), _of_each(pivots, size)), (0, 0)


def _of_each(t: Tensor, size: int) -> Tensor:
    return parted(t, size, t.shape[0] // max(1, size))


def _flattened(size: int, in_dims, tensors) -> Any:
    """Merge the dimension of `vmap` into the batch of each tensor; one without it is repeated."""

    def flat(t, dim):
        return joined(t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)).contiguous()

    return [None if t is None else flat(t, dim) for t, dim in zip(tensors, in_dims, strict=False)]


class _MomentsWithJvp(_autograd.Eager, _Moments):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, tx, ty, tw, _):
        x, y, w, pivots, m = saved
        return pairs_reference.moments_tangent(x, y, w, pivots, m, ctx.centered, tx, ty, tw), None


class _Misfit(torch.autograd.Function):
    """Not differentiable; a Function for the sake of vmap."""

    @staticmethod
    def forward(x, y, w, pivots, m, scaled_rotation):
        rotation, m = scaled_rotation.contiguous(), m.contiguous()
        return _kernels.select_pairs(x, y, w, rotation, m).misfit(x, y, w, pivots, m, rotation)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, _):
        return (None,) * 6

    @staticmethod
    def vmap(info, in_dims, *tensors):
        found = _Misfit.apply(*_flattened(info.batch_size, in_dims, tensors))
        return _of_each(found, info.batch_size), 0


class _EagerMisfit(_autograd.Eager, _Misfit):
    pass
