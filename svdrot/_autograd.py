"""Autograd of the projections of any size: backward and jvp are one function, the differential.

(For 2x2 and 3x3 they are formulas, of which the engine makes its own.) R(M) is the gradient of the convex
function M -> max over rotations of tr(RᵀM), so its Jacobian is symmetric: the product with it from the left
(backward) and from the right (jvp) are the same. Saved are M and R, nothing else."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from svdrot._kernels.operations import any_size
from svdrot._rules import backward_rule, forward_rule, is_legacy_batch, joined, parted
from svdrot.engine.door import is_recorded as is_recorded


def special_orthogonalize(m: Tensor, damping: float | None) -> Tensor:
    if is_constant(m) or is_recorded():
        return any_size.special_orthogonalize(m, damping)
    return pick(_SpecialOrthogonalize, _SpecialOrthogonalizeWithJvp).apply(m, damping)


def orthogonalize(m: Tensor) -> Tensor:
    if is_constant(m) or is_recorded():
        return any_size.orthogonalize(m)
    return pick(_Orthogonalize, _OrthogonalizeWithJvp).apply(m)


def projection_gap(m: Tensor) -> Tensor:
    if is_recorded():
        return any_size.projection_gap(m)[0]
    return pick(_ProjectionGap, _ProjectionGapWithJvp).apply(m)[0]


def is_constant(m: Tensor) -> bool:
    """Whether nobody asks for a derivative, and a Function would take its 5 us for nothing."""
    if torch.compiler.is_compiling() or forward_ad._current_level >= 0 or _is_wrapped(m):
        return False
    return not (m.requires_grad and torch.is_grad_enabled())


def pick(plain, with_jvp):
    if not torch.compiler.is_compiling():
        return with_jvp
    # Dynamo rejects a Function that defines `jvp` (torch 2.13: "Unsupported custom jvp"), and where it does
    # not, as inside functorch transforms, inlines the forward and drops the derivative without a word
    # (pytorch#192985).
    if torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "torch.func transforms of svdrot functions inside torch.compile: compile without them."
        )
    return plain


def is_seen_through(t: Tensor) -> bool:
    """Whether a backward or jvp that got `t` must be made of operations that autograd knows."""
    # Grad mode is on in a backward exactly when it must itself be differentiable (create_graph).
    return torch.is_grad_enabled() or (not torch.compiler.is_compiling() and _is_wrapped(t))


def _is_wrapped(t: Tensor) -> bool:
    """Whether `t` may be a batch in disguise (`vmap`, `is_grads_batched`), without memory of its own."""
    return torch._C._are_functorch_transforms_active() or is_legacy_batch(t)


def _batched(function, in_dims, m, *arguments):
    """One more batch dimension is one more batch."""
    m = m.movedim(in_dims[0], 0)
    return parted(function(joined(m).contiguous(), *arguments), *m.shape[:2]), 0


class Eager:
    @classmethod
    def apply(cls, *arguments):
        # Function.apply first binds the arguments to the signature of forward, which takes longer than a
        # projection (12 us); outside functorch transforms that is all it does before handing over.
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)  # type: ignore[misc]
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]


class _SpecialOrthogonalize(torch.autograd.Function):
    @staticmethod
    def forward(m, damping):
        return any_size.special_orthogonalize(m, damping, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        m, ctx.damping = inputs
        ctx.save_for_backward(m, output)
        ctx.save_for_forward(m, output)

    @staticmethod
    @backward_rule
    def backward(ctx, g):
        m, r = ctx.saved_tensors
        return any_size.special_orthogonalize_differential(m, r, g, ctx.damping), None

    @staticmethod
    def vmap(info, in_dims, m, damping):
        return _batched(special_orthogonalize, in_dims, m, damping)


class _SpecialOrthogonalizeWithJvp(Eager, _SpecialOrthogonalize):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t, _):
        m, r = saved
        return any_size.special_orthogonalize_differential(m, r, t, ctx.damping)


class _Orthogonalize(torch.autograd.Function):
    @staticmethod
    def forward(m):
        return any_size.orthogonalize(m, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        (m,) = inputs
        ctx.save_for_backward(m, output)
        ctx.save_for_forward(m, output)

    @staticmethod
    @backward_rule
    def backward(ctx, g):
        m, q = ctx.saved_tensors
        return any_size.orthogonalize_differential(m, q, g)

    @staticmethod
    def vmap(info, in_dims, m):
        return _batched(orthogonalize, in_dims, m)


class _OrthogonalizeWithJvp(Eager, _Orthogonalize):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t):
        m, q = saved
        return any_size.orthogonalize_differential(m, q, t)


class _ProjectionGap(torch.autograd.Function):
    @staticmethod
    def forward(m):
        return any_size.projection_gap(m, True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, gradient = output
        ctx.mark_non_differentiable(gradient)
        ctx.save_for_backward(*inputs, gradient)
        ctx.save_for_forward(*inputs, gradient)

    @staticmethod
    @backward_rule
    def backward(ctx, g, _):
        m, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = _Once.apply(gradient, m)
        return g[:, None, None] * gradient

    @staticmethod
    def vmap(info, in_dims, m):
        m = m.movedim(in_dims[0], 0)
        gap, gradient = pick(_ProjectionGap, _ProjectionGapWithJvp).apply(joined(m).contiguous())
        return (parted(gap, *m.shape[:2]), parted(gradient, *m.shape[:2])), (0, 0)


class _ProjectionGapWithJvp(Eager, _ProjectionGap):
    @staticmethod
    @forward_rule
    def jvp(ctx, saved, t):
        m, gradient = saved
        return (_Once.apply(gradient, m) * t).sum((-2, -1)), None


class _Once(torch.autograd.Function):
    """`value`, as a function of `m` without a derivative: asking for one is an error, not zero."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value, m):
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    @backward_rule
    def backward(ctx, g):
        raise NotImplementedError("projection_gap is differentiable once")

    @staticmethod
    def jvp(ctx, *tangents):
        raise NotImplementedError("projection_gap is differentiable once")
