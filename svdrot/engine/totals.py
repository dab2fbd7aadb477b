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
    rows = _rows(program, x)
    factor = 1 / rows if is_mean and rows else math.nan if is_mean else 1.0
    found, *gradients = door.run(program.total(wanted), (*scalars, factor), x)
    dtype = torch.float32 if all(t.dtype != torch.float64 for t in x) else torch.float64
    return [found.mul_(factor).to(dtype), *gradients]


def _rows(program, x) -> int:
    shape = program.graph.inputs
    if len(x) == 1 or all(
        t.ndim - len(s) == 1 and len(t) == len(x[0]) for t, s in zip(x, shape, strict=True)
    ):
        return x[0].numel() // math.prod(shape[0])
    return math.prod(_batch(program, x))


def _batch(program, x) -> torch.Size:
    shapes = program.graph.inputs
    return torch.broadcast_shapes(*[t.shape[: t.ndim - len(s)] for t, s in zip(x, shapes, strict=True)])


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
        # Handed out once: whoever gets them may write into them, and go backward a second time.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None or torch.is_grad_enabled() or door.is_legacy_batch(g):
            adjoints = _again(program, scalars, x, is_mean, wanted, g)
        else:
            # Of a loss itself the factor is 1, and the gradients are there.
            same = g.is_cpu and g.item() == 1
            adjoints = gradients if same else [g.to(d.dtype) * d for d in gradients]
        found = iter(adjoints)
        result: list[Tensor | None] = [None, None, None]
        for t, w in zip(x, wanted, strict=True):
            adjoint = next(found) if w else None
            if (
                adjoint is not None
            ):  # in the precision of the computation till here: g may be a scale for float16
                adjoint = adjoint if adjoint.shape == t.shape else adjoint.sum_to_size(t.shape)
                adjoint = adjoint if adjoint.dtype == t.dtype else adjoint.to(t.dtype)
            result.append(adjoint)
        return tuple(result)

    @classmethod
    def apply(cls, *arguments):  # see `door`
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]


def _again(program, scalars, x, is_mean, wanted, g) -> Sequence[Tensor]:
    """The gradients as functions of everything, for whoever asks for their derivatives."""
    batch = _batch(program, x)
    g = (g / math.prod(batch) if is_mean else g).expand(batch)
    return door.apply(program.vjp(wanted, (True,), False), scalars, (*x, g))
