"""The one door to all maps: from tensors to kernels and back, for every mode that torch has.

    plain call                           the kernel of the device, or torch operations where it has none
    autograd, torch.func, forward mode   one Function; its derivatives are programs that come through here
    torch.compile                        one operator (`opaque`)
    export, tracing                      torch operations

A derivative of a derivative is one more program; from the third order on autograd looks through torch
operations.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
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
        found = apply(derivative, ctx.scalars, (*ctx.saved_tensors, *[t for t in tangents if t is not None]))
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def vmap(info, in_dims, program, scalars, *x):
        """One more batch dimension, in front of all others."""
        dims = in_dims[2:]
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
        kernels = _kernels(x)
        if kernels is not None:
            return kernels.run(program, scalars, x)
    return operations.run(program.name, scalars, x, dtypes_of(program, x))


def _kernels(x: Sequence[Tensor]) -> ModuleType | None:
    """What has kernels for the device that all tensors are on; torch refuses or moves what is on several."""
    if x[0].is_cpu:
        from . import cpu

        for t in x:  # not `all`, of a generator: 0.4 us
            if not t.is_cpu:
                return None
        return cpu
    if x[0].is_cuda and all(t.device == x[0].device for t in x):
        return _of_gpus()
    return None


@cache
def _of_gpus() -> ModuleType | None:
    """Imported when needed: a CPU install has no Triton."""
    try:
        from . import gpu
    except ImportError as error:
        install = "triton-windows" if sys.platform == "win32" else "triton"
        message = f"No GPU kernels, falling back to torch operations: {error}. Install `{install}`."
        warnings.warn(message, RuntimeWarning, stacklevel=6)
        return None
    return gpu


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
    return *(common if i is None else x[i].dtype for i in program.follows), compute
