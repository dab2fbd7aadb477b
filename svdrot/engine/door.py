"""The one door to all maps: from tensors to kernels and back, for every mode that torch has.

    plain call                           the kernel of the device, or torch operations where it has none
    autograd, torch.func, forward mode   one Function; its derivatives are programs that come through here
    torch.compile                        one operator (`opaque`)
    export, tracing                      torch operations

A derivative of a derivative is one more program; from the third order on autograd looks through torch
operations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

from svdrot._checks import is_autocast

from . import memory, operations
from .program import Program

MOST_ORDERS = 2  # of kernels: the graph of each order is some three times as large as the one before


def apply(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a program, with derivatives for whoever asks for them."""
    if is_recorded():
        return run(program, scalars, x)
    if torch.compiler.is_compiling():
        return _compiled(program, scalars, x)
    if is_constant(x):
        return run(program, scalars, x)
    if program.order >= MOST_ORDERS or any(map(is_legacy_batch, x)):
        return operations.run(program.name, scalars, x, dtypes_of(program, x))
    found = _Map.apply(program, scalars, *x)
    return [found] if isinstance(found, Tensor) else list(found)  # pyright: ignore


def _compiled(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    from . import opaque

    if torch._C._are_functorch_transforms_active():
        # Dynamo inlines a Function there and drops its derivative without a word (pytorch#192985).
        raise NotImplementedError(
            "torch.func transforms of svdrot functions inside torch.compile: compile without them."
        )
    if x[0].dtype.itemsize < 4 and is_autocast(x[0]):  # here, for compiled graphs run without autocast
        x = [t.float() if t.dtype.itemsize < 4 else t for t in x]
    return opaque.apply(program.name, list(x), list(scalars))


def is_recorded() -> bool:
    """Whether operations are written down for a program that knows no autograd: exported or traced."""
    return memory.is_exporting() or torch.jit.is_tracing()  # pyright: ignore


def is_constant(x: Sequence[Tensor]) -> bool:
    """Whether nobody asks for a derivative: an autograd Function takes 5 us."""
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return False
    if torch.is_grad_enabled():
        for t in x:
            if t.requires_grad:
                return False
    for t in x:
        if is_legacy_batch(t):
            return False
    return True


def is_legacy_batch(t: Tensor) -> bool:
    """Whether `t` is a batch in disguise, as of `is_grads_batched`, without memory of its own."""
    return torch._C._functorch.is_legacy_batchedtensor(t)  # pyright: ignore


class _Map(torch.autograd.Function):
    """A program with its derivatives."""

    @staticmethod
    def forward(program, scalars, *x):
        found = run(program, scalars, x)
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.program, ctx.scalars, *x = inputs
        results = (output,) if isinstance(output, Tensor) else output
        ctx.with_results = keeps_results(ctx.program, results)
        ctx.count = len(x)
        saved = (*x, *results) if ctx.with_results else x
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *g):
        x = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        given = tuple(t is not None for t in g)
        if not any(given):
            return (None,) * (2 + ctx.count)
        derivative = ctx.program.vjp(wanted, given, ctx.with_results)
        x = unwrap_dead_wrappers(x)  # of `torch.func.vjp`, whose level may have ended
        found = iter(apply(derivative, ctx.scalars, (*x, *[t for t in g if t is not None])))
        adjoints = [next(found) if w else None for w in wanted]
        # An input that was broadcast has the sum of what its copies would have.
        adjoints = [
            a if a is None or a.shape == t.shape else a.sum_to_size(t.shape)
            for a, t in zip(adjoints, x, strict=False)
        ]
        return None, None, *adjoints

    @staticmethod
    def jvp(ctx, _, __, *tangents):
        given = tuple(t is not None for t in tangents)
        derivative = ctx.program.jvp(given, ctx.with_results)
        # torch turns forward mode off here, and with it all levels around this one, which torch operations
        # would then take for constants. So it is on, and the tangents of this level are put aside.
        with forward_ad._set_fwd_grad_enabled(True):
            x = [forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]
            found = apply(derivative, ctx.scalars, (*x, *[t for t in tangents if t is not None]))
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def vmap(info, in_dims, program, scalars, *x):
        """One more batch dimension, in front of all others."""
        dims = in_dims[2:]
        if program.sums:  # each of its own
            parts = []
            for k in range(info.batch_size):
                part = [t if d is None else t.select(d, k) for t, d in zip(x, dims, strict=True)]
                parts.append(apply(program, scalars, part))
            found = [torch.stack(each) for each in zip(*parts, strict=True)]
            return (found[0], 0) if len(found) == 1 else (tuple(found), (0,) * len(found))
        ranks = [
            t.ndim - len(s) - (d is not None) for t, s, d in zip(x, program.graph.inputs, dims, strict=True)
        ]
        moved = []
        for t, rank, dim in zip(x, ranks, dims, strict=True):
            if dim is not None:
                t = t.movedim(dim, 0)
                t = t[(slice(None), *[None] * (max(ranks) - rank))]
            moved.append(t)
        found = apply(program, scalars, tuple(moved))
        return (found[0], 0) if len(found) == 1 else (tuple(found), (0,) * len(found))

    @classmethod
    def apply(cls, *arguments):
        # Function.apply first binds the arguments to the signature of forward, which takes longer than a
        # projection (12 us); outside functorch transforms that is all it does before handing over.
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)
        return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]


def keeps_results(program: Program, results: Sequence[Tensor]) -> bool:
    """Half precision would round what a derivative is made of."""
    return program.keeps_results and all(t.dtype in (torch.float32, torch.float64) for t in results)


# The kernels of a device -----------------------------------------------------------------------------------


def run(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a program, without derivatives."""
    if memory.in_memory(*x):
        if on_cpu(x):
            from . import cpu

            return cpu.run(program, scalars, x)
        # CUDA: the Triton writer comes here
    if torch.compiler.is_compiling():
        operations.ready()
    return operations.run(program.name, scalars, x, dtypes_of(program, x))


def on_cpu(x: Sequence[Tensor]) -> bool:
    for t in x:
        if not t.is_cpu:
            return False
    return True


def dtypes_of(program: Program, x: Sequence[Tensor]) -> tuple[torch.dtype, ...]:
    """Of the outputs; and what to compute in.

    Half precision is a storage format here: it is computed in float32 and leaves as it came, but for
    autocast, whose rule for such functions is float32.
    """
    common, double = x[0].dtype, False
    for i, t in enumerate(x):
        double = double or t.dtype == torch.float64
        if i < program.primals and t.dtype != common:
            common = torch.promote_types(common, t.dtype)
    compute = torch.float64 if double else torch.float32
    if common.itemsize < 4 and is_autocast(x[0]):
        common = torch.float32
    followed = [common if i is None else x[i].dtype for i in program.follows]
    if program.sums:
        summed = program.graph.summed
        followed = [torch.float64 if total else d for d, total in zip(followed, summed, strict=True)]
    return *followed, compute
