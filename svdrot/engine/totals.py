"""Sums and means over all rows, with their gradients in the same pass over memory."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import door, memory
from .program import Program


def total(program: Program, scalars: Sequence[float], x: tuple[Tensor, ...], is_mean: bool) -> Tensor:
    """The sum, or the mean, of the only output of a program, in float32 or better."""
    if _is_plain(x):
        if door.is_constant(x):
            return _run(program, scalars, x, is_mean, (False,) * len(x))[0]
        return _Total.apply(program, scalars, is_mean, *x)  # pyright: ignore[reportReturnType]
    (values,) = door.apply(program, scalars, x)
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values.mean() if is_mean else values.sum()


def _is_plain(x: Sequence[Tensor]) -> bool:
    """Whether nothing is asked of torch but a value and perhaps a gradient."""
    transformed = forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
    return not transformed and memory.in_memory(*x) and not any(map(door.is_legacy_batch, x))


def _run(program, scalars, x, is_mean, wanted) -> list[Tensor]:
    rows = math.prod(
        torch.broadcast_shapes(*[t.shape[: t.ndim - len(s)] for t, s in _with_shapes(program, x)])
    )
    factor = 1 / rows if is_mean and rows else math.nan if is_mean else 1.0
    found, *gradients = door.run(program.total(wanted), (*scalars, factor), x)
    *_, dtype = door.dtypes_of(program, x)
    return [(found * factor).to(dtype), *gradients]


def _with_shapes(program, x):
    return zip(x, program.graph.inputs, strict=True)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, program, scalars, is_mean, *x):
        ctx.how = program, scalars, is_mean
        wanted = ctx.needs_input_grad[3:]
        value, *gradients = _run(program, scalars, x, is_mean, wanted)
        ctx.gradients, ctx.wanted = gradients, wanted
        ctx.save_for_backward(*x)
        return value

    @staticmethod
    def backward(ctx, g):
        program, scalars, is_mean = ctx.how
        x, wanted = ctx.saved_tensors, ctx.wanted
        if torch.is_grad_enabled() or door.is_legacy_batch(g):
            adjoints = _again(program, scalars, x, is_mean, wanted, g)
        else:
            adjoints = [g.to(gradient.dtype) * gradient for gradient in ctx.gradients]
        found = iter(adjoints)
        pairs = [(next(found), t) if w else (None, t) for t, w in zip(x, wanted, strict=True)]
        return None, None, None, *[a if a is None else a.sum_to_size(t.shape) for a, t in pairs]

    @classmethod
    def apply(cls, *arguments):  # see `door`
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]


def _again(program, scalars, x, is_mean, wanted, g) -> Sequence[Tensor]:
    """The gradients as functions of everything, for whoever asks for their derivatives."""
    batch = torch.broadcast_shapes(*[t.shape[: t.ndim - len(s)] for t, s in _with_shapes(program, x)])
    g = (g / math.prod(batch) if is_mean else g).expand(batch)
    return door.apply(program.vjp(wanted, (True,), False), scalars, (*x, g))
