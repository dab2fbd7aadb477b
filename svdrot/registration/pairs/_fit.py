r"""The best transform of pairs of points, differentiable: from moments to rotation, scale and translation.

`composed` is made of differentiable functions, and is what `_Fit`, one Function around the kernels, does in
half the time and a third of the memory. What a backward of `_Fit` has to be differentiable for goes through
`composed`, too.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from svdrot import _autograd, _kernels
from svdrot._formulas.poses import ALIGNMENTS, MOST_PAIRS, POSES_ABOUT, pose
from svdrot._kernels.operations import pairs as pairs_reference
from svdrot._rules import backward_rule
from svdrot.engine import door
from svdrot.projection import orthogonalize, special_orthogonalize
from svdrot.registration.pairs._moments import moments


class Fit(NamedTuple):
    """Hold B transforms of d dimensions, in the type of the points; and in float64 what they come from."""

    rotation: Tensor  # (B, d, d)
    translation: Tensor  # (B, d)
    scale: Tensor  # (B,)
    covariance: Tensor  # (B, d, d)


def fit(x: Tensor, y: Tensor, w: Tensor | None, centered: bool, scaled: bool, reflection: bool) -> Fit:
    if x.shape[-1] == 3 and 0 < x.shape[1] <= MOST_PAIRS and not reflection:
        pairs = (x, y) if w is None else (x, y, w)
        best = ALIGNMENTS[int(x.shape[1]), w is not None, centered, scaled]  # a tensor in a trace
        rotation, translation, scale, covariance = best(*pairs)
        return Fit(rotation, translation, scale, covariance.double())
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if x.shape[-1] != 3 or reflection or transformed or not _kernels.in_memory(x, y, w):
        return composed(x, y, w, centered, scaled, reflection)
    return Fit(*_Fit.apply(x, y, w, centered, scaled))  # type: ignore[misc]


def fit_about(
    axis: Tensor, planar: bool, x: Tensor, y: Tensor, w: Tensor | None, centered: bool, scaled: bool
) -> Fit:
    """Fit motions that turn about axes alone, (B, 3) or (3,), and if `planar` do not go along them."""
    found = POSES_ABOUT[centered, scaled, planar](*moments(x, y, w, centered), axis)
    rotation, translation, scale = (part.to(x.dtype) for part in found[:3])
    return Fit(rotation, translation, scale, found[3])


def composed(x: Tensor, y: Tensor, w: Tensor | None, centered: bool, scaled: bool, reflection: bool) -> Fit:
    m, pivots = moments(x, y, w, centered)
    covariance = pairs_reference.split(m)[3].contiguous()
    nearest = orthogonalize(covariance) if reflection else special_orthogonalize(covariance)
    pose = pairs_reference.placed(m, pivots, nearest, centered, scaled, x.dtype)
    return Fit(*pose, covariance)


class _Fit(_autograd.Eager, torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, w, centered, scaled):
        m, pivots = _kernels.select_pairs(x, y, w).moments(x, y, w, centered)
        program = pose(centered, scaled, x.dtype)
        *transform, covariance, nearest = door.run(program, (), (m, pivots))
        ctx.program, ctx.how = program, (centered, scaled)
        ctx.save_for_backward(x, y, w, m, pivots, covariance, nearest)
        ctx.set_materialize_grads(False)
        return *transform, covariance

    @staticmethod
    @backward_rule
    def backward(ctx, *g):
        x, y, w, m, pivots, *found = ctx.saved_tensors
        given = [z for z in g if z is not None]
        if any(map(_autograd.is_seen_through, given)):
            return *_through(g, x, y, w, *ctx.how), None, None
        gradient = ctx.program.vjp((True, False), (*[z is not None for z in g], False), with_results=True)
        (of_m,) = door.run(gradient, (), (m, pivots, *found, *given))
        backend = _kernels.select_pairs(x, y, w, *given)
        return *backend.moments_gradient(x, y, w, pivots, m, of_m), None, None


def _through(g, x, y, w, centered, scaled):
    """Do the backward of `_Fit` in operations that autograd knows."""
    needed = [z for z in (x, y, w) if z is not None and z.requires_grad]
    with torch.enable_grad():
        outputs = zip(composed(x, y, w, centered, scaled, reflection=False), g, strict=True)
        of, along = zip(*((z, h) for z, h in outputs if h is not None and z.requires_grad), strict=True)
        found = iter(torch.autograd.grad(of, needed, along, create_graph=True, allow_unused=True))
    return [next(found) if z is not None and z.requires_grad else None for z in (x, y, w)]
