"""The one door to all maps: from tensors to kernels and back, for every mode that torch has.

    plain call                           the kernel of the device, or torch operations where it has none
    autograd, torch.func, forward mode   a Function; its derivatives are programs that come through here
    torch.compile                        one operator (`opaque`)
    export, tracing                      torch operations, whose own derivatives are right (`Operation`)

A derivative of a derivative is one more program; from the third order on autograd looks through torch
operations.
"""

import sys
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from svdrot._precision import is_autocast
from svdrot._rules import is_legacy_batch, unwrapped

from . import memory, operations
from .program import COMPUTED, Follows, Program

ONE = (True,)
# Looked up once: each takes less time than to find it does.
is_compiling = torch.compiler.is_compiling
is_tracing, modes, EARLY = torch._C._is_tracing, torch._C._len_torch_dispatch_stack, memory.BEFORE_AUTOGRAD
transforms = torch._C._are_functorch_transforms_active
is_batch = torch._C._functorch.is_legacy_batchedtensor  # pyright: ignore
Parameter = torch.nn.Parameter
is_recorded_early = torch._C._dispatch_tls_is_dispatch_key_included
MOST_ORDERS = 2  # of kernels: the graph of each order is some three times as large as the one before


def apply(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a program, with derivatives for whoever asks for them."""
    if is_recorded():
        return run(program, scalars, x)
    if is_constant(x):
        return run(program, scalars, x)
    if program.order >= MOST_ORDERS or any(map(is_legacy_batch, x)):
        return operations.run(program.name, scalars, x, dtypes_of(program, x), differentiable=True)
    transformed = forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
    found = (_Transformed.apply if transformed else _MAPPED)(program, scalars, *x)
    return [found] if isinstance(found, Tensor) else list(found)  # pyright: ignore


def at_once(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor] | None:
    """The outputs, if the call is a plain one of shapes that came before; None if it is not.

    Plain are calls of tensors on the CPU that lie row after row, with nobody who differentiates, records,
    batches or looks on. All that is asked elsewhere one after the other is asked here in one go: half of the
    time of a small call is such questions.
    """
    if is_compiling():  # which must not look into plans
        return None
    wanted, key = torch.is_grad_enabled(), []
    for t in x:
        kind = type(t)
        if (kind is not Tensor and kind is not Parameter) or (wanted and t.requires_grad) or not t.is_cpu:
            return None
        if not t.is_contiguous() or t.is_neg() or t._is_zerotensor() or is_batch(t):
            return None
        key += (t.dtype, t.shape)
    plan = program.plans.get(tuple(key))
    if plan is None or not plan.is_plain or len(scalars) != plan.scalars:
        return None
    if is_tracing() or modes() or transforms() or is_recorded_early(EARLY):
        return None
    if forward_ad._current_level >= 0 or memory.is_exporting():
        return None
    return plan.call(scalars, x)


def plan_key(x: Sequence[Tensor]) -> tuple[Any, ...]:
    """What plans are remembered by."""
    key: list[Any] = []
    for t in x:
        key += (t.dtype, t.shape)
    return tuple(key)


def written_down(name: str, scalars: Sequence[float], x: Sequence[Tensor], results: int) -> list[Tensor]:
    """The outputs of a formula, by its name, for Dynamo, which sees what is done with tensors and nothing
    else.
    """
    *dtypes, compute = _dtypes_of_values(x, len(x))
    if memory.is_exporting():
        recorded = memory.is_differentiable_record()
        return operations.run(name, scalars, x, (*dtypes * results, compute), recorded=recorded)
    # The operator below has no forward mode, and its tangents would be zero without a word.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        if operations.has_own_derivatives(name):
            # Dynamo inlines a Function there and drops its derivative without a word (pytorch#192985).
            raise NotImplementedError(
                "torch.func transforms and forward mode of svdrot functions inside torch.compile: compile "
                "without them."
            )
        return operations.run(name, scalars, x, (*dtypes * results, compute))
    from . import opaque

    if x[0].dtype.itemsize < 4 and is_autocast(x[0]):  # here, for compiled graphs run without autocast
        x = [t.float() if t.dtype.itemsize < 4 else t for t in x]
    return opaque.apply(name, list(x), list(scalars))


def is_recorded() -> bool:
    """Whether operations are written down for a program that knows no autograd: exported or traced."""
    return memory.is_exporting() or (not torch.compiler.is_compiling() and torch._C._is_tracing())


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


class _Map(torch.autograd.Function):
    """A program with its derivatives."""

    @staticmethod
    def forward(ctx, program, scalars, *x):
        found = _run_in_function(program, scalars, x)
        _remember(ctx, program, scalars, x, found)
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def backward(ctx, *g):
        program, scalars, with_results = ctx.made
        x = _saved(ctx)
        wanted = ctx.needs_input_grad[2:]
        given = ONE if len(g) == 1 else tuple([t is not None for t in g])
        if not any(given):
            return (None,) * (2 + len(wanted))
        derivative = program.vjp(wanted, given, with_results)
        there = g if len(g) == 1 else [t for t in g if t is not None]
        found = iter(_backwards(derivative, scalars, (*x, *there)))
        adjoints: list[Any] = [None, None]
        for t, w in zip(x, wanted, strict=False):
            adjoint = next(found) if w else None
            if adjoint is not None and adjoint.shape != t.shape:  # the sum of what its copies would have
                adjoint = adjoint.sum_to_size(t.shape)
            adjoints.append(adjoint)
        return tuple(adjoints)


# Function.apply first looks for transforms, and binds the arguments to the signature of forward, which takes
# longer than a projection (12 us). Looked up here: Dynamo, which comes by after a graph break, has no words
# for a lookup by `super`, and for a call of this it leaves the frame to Python.
_MAPPED: Any = super(torch.autograd.Function, _Map).apply  # type: ignore[misc]


class _Transformed(torch.autograd.Function):
    """The same for transforms and forward mode."""

    @staticmethod
    def forward(program, scalars, *x):
        found = _run_in_function(program, scalars, x)
        return found[0] if len(found) == 1 else tuple(found)

    @staticmethod
    def setup_context(ctx, inputs, output):
        program, scalars, *x = inputs
        saved = _remember(ctx, program, scalars, x, [output] if isinstance(output, Tensor) else [*output])
        ctx.save_for_forward(*saved)

    backward = _Map.backward

    @staticmethod
    def jvp(ctx, _, __, *tangents):
        given = tuple(t is not None for t in tangents)
        program, scalars, with_results = ctx.made
        derivative = program.jvp(given, with_results)
        # torch turns forward mode off here, and with it all levels around this one, which torch operations
        # would then take for constants. So it is on, and the tangents of this level are put aside.
        with forward_ad._set_fwd_grad_enabled(True):
            x = [forward_ad.unpack_dual(t).primal for t in _saved(ctx)]
            found = apply(derivative, scalars, (*x, *[t for t in tangents if t is not None]))
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
        shapes = program.graph.inputs
        ranks = [t.ndim - len(s) - (d is not None) for t, s, d in zip(x, shapes, dims, strict=True)]
        moved = []
        for t, rank, dim in zip(x, ranks, dims, strict=True):
            if dim is not None:
                t = t.movedim(dim, 0)
                t = t[(slice(None), *[None] * (max(ranks) - rank))]
            moved.append(t)
        found = apply(program, scalars, tuple(moved))
        return (found[0], 0) if len(found) == 1 else (tuple(found), (0,) * len(found))


def _remember(ctx: Any, program: Program, scalars: Sequence[float], x: Sequence[Tensor], found: list[Tensor]):
    with_results = keeps_results(program, found)
    ctx.made = program, scalars, with_results
    saved = (*x, *[found[i] for i in program.kept]) if with_results else x
    ctx.save_for_backward(*saved)
    if len(found) > 1:
        ctx.set_materialize_grads(False)
    return saved


def _backwards(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    """`apply`, without a look at each tensor where autograd wants numbers and nothing else."""
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return apply(program, scalars, x)
    if torch._C._are_functorch_transforms_active() or is_legacy_batch(x[-1]):
        return apply(program, scalars, x)
    return _run_in_function(program, scalars, x, False)


def _run_in_function(
    program: Program, scalars: Sequence[float], x: Sequence[Tensor], is_forward: bool = True
) -> list[Tensor]:
    """`run` where autograd has turned gradients off, and calls are plain ones again."""
    found = at_once(program, scalars, x)
    return run(program, scalars, x, is_forward) if found is None else found


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    """Without the wrappers of transforms that are over, as of `torch.func.vjp` when its function is
    called.
    """
    return tuple(map(unwrapped, ctx.saved_tensors))


def keeps_results(program: Program, results: Sequence[Tensor]) -> bool:
    """Whether derivatives may use the saved results: half precision would have rounded them."""
    if not program.keeps_results:
        return False
    for t in results:
        if t.dtype.itemsize < 4:
            return False
    return True


# The kernels of a device -----------------------------------------------------------------------------------


def run(
    program: Program, scalars: Sequence[float], x: Sequence[Tensor], in_function: bool = False
) -> list[Tensor]:
    """The outputs of a program, without derivatives but for those of what is recorded (`memory`)."""
    x = memory.with_signs(x)
    if memory.in_memory(*x):
        kernels = _kernels(x)
        if kernels is not None:
            return kernels.run(program, scalars, x)
    recorded = memory.is_differentiable_record(in_function)
    return operations.run(program.name, scalars, x, dtypes_of(program, x), recorded=recorded)


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
        tell_of_no_triton(error, 6)
        return None
    return gpu


def tell_of_no_triton(error: ImportError, stacklevel: int) -> None:
    """Warn of what takes torch operations on a GPU, and say what to install."""
    install = "triton-windows" if sys.platform == "win32" else "triton"
    message = f"No GPU kernels, falling back to torch operations: {error}. Install `{install}`."
    warnings.warn(message, RuntimeWarning, stacklevel=stacklevel + 1)


def dtypes_of(program: Program, x: Sequence[Tensor]) -> tuple[torch.dtype, ...]:
    """Dtype of the outputs, and the one to compute in.

    Half precision is a storage format here: it is computed in float32 and leaves as it came, but for
    autocast, whose rule for such functions is float32.
    """
    common, compute = _dtypes_of_values(x, program.primals)
    followed = [_followed(i, common, compute, x) for i in program.follows]
    if program.sums:
        summed = program.graph.summed
        followed = [torch.float64 if total else d for d, total in zip(followed, summed, strict=True)]
    return *followed, compute


def _followed(what: Follows, common: torch.dtype, compute: torch.dtype, x: Sequence[Tensor]) -> torch.dtype:
    if isinstance(what, int):
        return compute if what == COMPUTED else x[what].dtype
    return common if what is None else what


def _dtypes_of_values(x: Sequence[Tensor], primals: int) -> tuple[torch.dtype, torch.dtype]:
    common, double = x[0].dtype, False
    for i, t in enumerate(x):
        double = double or t.dtype == torch.float64
        if i < primals and t.dtype != common:
            common = torch.promote_types(common, t.dtype)
    if common.itemsize < 4 and is_autocast(x[0]):
        common = torch.float32
    return common, torch.float64 if double else torch.float32
