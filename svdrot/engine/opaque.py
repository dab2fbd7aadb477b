"""Any map as one custom operator, which `torch.compile` takes as it is, without looking inside.

(Given the formula in torch operations instead, Inductor recomputes it for each entry of the result.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import door
from .program import find


@torch.library.custom_op("svdrot::map", mutates_args=())
def apply(name: str, x: list[Tensor], scalars: list[float]) -> list[Tensor]:
    """The outputs of a program, by its name."""
    return door.run(find(name), tuple(scalars), tuple(x))


@apply.register_fake
def _(name, x, scalars):
    found = find(name)
    shape = torch.broadcast_shapes(
        *[t.shape[: t.ndim - len(s)] for t, s in zip(x, found.graph.inputs, strict=True)]
    )
    *dtypes, _ = door.dtypes_of(found, x)
    return [
        x[0].new_empty(() if total else (*shape, *s), dtype=d)
        for s, d, total in zip(found.graph.shapes, dtypes, found.graph.summed, strict=True)
    ]


def _remember(ctx, inputs, output):
    ctx.name, x, ctx.scalars = inputs
    ctx.count = len(x)
    found = find(ctx.name)
    results = [output[i] for i in found.kept] if door.keeps_results(found, output) else ()
    ctx.with_results = bool(results)
    ctx.save_for_backward(*x, *results)


def _backward(ctx, g: Sequence[Tensor | None]):
    wanted = tuple(t.requires_grad for t in ctx.saved_tensors[: ctx.count])
    given = tuple(t is not None for t in g)
    derivative = find(ctx.name).vjp(wanted, given, ctx.with_results)
    found = iter(apply(derivative.name, [*ctx.saved_tensors, *[t for t in g if t is not None]], ctx.scalars))
    x = ctx.saved_tensors[: ctx.count]
    adjoints = [next(found).sum_to_size(t.shape) if w else None for t, w in zip(x, wanted, strict=True)]
    return None, adjoints, None if ctx.scalars else []  # an empty list counts as one of tensors


apply.register_autograd(_backward, setup_context=_remember)
