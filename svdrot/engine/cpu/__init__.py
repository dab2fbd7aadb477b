"""From tensors on a CPU to a kernel of `_vectors`: where they lie, in how many threads."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from svdrot._precision import is_autocast
from svdrot.engine import door, layout, operations
from svdrot.engine.program import Program, Shape

from . import threads

FIELDS = ADDRESS, LIES, OUTER, INNER_STRIDE, ROW, COLUMN = range(6)  # words of an input
DENSE, STRIDED, SAME = range(3)  # how an input lies: row after row, with other strides, the same for all rows
WORTH_A_THREAD = 40_000  # nanoseconds
BLOCK, MOST_ROWS = 64, 2048  # a chunk has a multiple of so many rows, and at most so many
MOST_TO_COPY = 16384  # numbers: to copy them takes less than to find out how they lie
ONE_PART = 16384  # numbers that torch adds in one thread
MOST_PLANS = 4096  # shapes to remember


def run(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    plan = _plan(program, x)
    if plan.kernel is None:
        return operations.run(program.name, scalars, x, door.dtypes_of(program, x))
    batch, rows = plan.batch, plan.rows
    dense = plan.is_dense and _are_contiguous(x)
    if not dense and rows <= plan.most_to_copy:
        x, dense = _copied(plan, x), True
    if dense and plan.is_simple:
        return plan.call(scalars, x)
    if dense:
        words = plan.words(scalars, x)
    else:
        batch, inner, x, arrays = _strided(program.graph.inputs, x)
        words = [0, 0, rows, inner, *scalars, *arrays]
    kernel = plan.kernel
    results = []
    for shape, dtype, total in plan.outputs:
        result = empty((-(-rows // kernel.wide),), torch.float64) if total else empty((*batch, *shape), dtype)
        results.append(result)
        words.append(result.data_ptr())
    if rows:
        count = int(rows * plan.nanoseconds) // WORTH_A_THREAD
        if count >= 2:
            count = min(torch.get_num_threads(), count)
        if count < 2:
            kernel.rows(kernel.pack(*words), 0, rows)
        else:
            words[1] = min(MOST_ROWS, -(-rows // (4 * count * BLOCK)) * BLOCK)
            shared = bytearray(kernel.pack(*words))
            address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
            threads.share(kernel.entry, kernel.share, address, count)
    if program.sums:
        results = [_sum(r) if total else r for r, (*_, total) in zip(results, plan.outputs, strict=True)]
    return results


def _sum(parts: Tensor) -> Tensor:
    """Always in the same order: torch adds many in as many parts as there are threads."""
    return parts.sum() if len(parts) < ONE_PART else torch.tensor(parts.numpy().sum())


class _Plan(NamedTuple):
    """What is known from the shapes and dtypes of the inputs."""

    kernel: Any  # None if this CPU cannot convert what it would read or write
    outputs: tuple[tuple[Shape, torch.dtype, bool], ...]  # shape of a row, dtype, whether it is summed
    head: tuple[int, ...]  # the first words of a call, when inputs lie row after row
    arrays: tuple[int, ...]  # the words of the inputs, but for their addresses
    nanoseconds: float  # of a row
    batch: torch.Size  # that of all inputs, or what they broadcast to
    rows: int
    is_dense: bool  # whether all inputs have the same batch shape
    shapes: tuple[Shape, ...]  # of the inputs, with the whole batch
    most_to_copy: int  # rows that are copied rather than taken from where they lie
    is_simple: bool  # whether one thread is enough, and nothing is summed
    is_plain: bool  # whether `door.at_once` may call it: nothing depends on autocast, either
    scalars: int
    made: tuple[tuple[Shape, torch.dtype], ...]  # shapes of the outputs with the batch, and dtypes

    def words(self, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Any]:
        """What a kernel is told, but for the addresses of the outputs, of inputs that lie row after row."""
        words = [*self.head, *scalars, *self.arrays]
        place = len(self.head) + len(scalars)
        for t in x:
            words[place] = t.data_ptr()
            place += len(FIELDS)
        return words

    def call(self, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of a simple one, of inputs that lie row after row."""
        words, results = self.words(scalars, x), []
        for shape, dtype in self.made:
            result = empty(shape, dtype)
            results.append(result)
            words.append(result.data_ptr())
        if self.rows:
            self.kernel.rows(self.kernel.pack(*words), 0, self.rows)
        return results


def _plan(program: Program, x: Sequence[Tensor]) -> _Plan:
    key: tuple = door.plan_key(x)
    if x[0].dtype.itemsize < 4 and is_autocast(x[0]):
        key = (*key, "autocast")
    plan = program.plans.get(key)
    if plan is None:
        plan = _planned(program, x)
        if len(program.plans) < MOST_PLANS:
            program.plans[key] = plan
    return plan


def _planned(program: Program, x: Sequence[Tensor]) -> _Plan:
    graph = program.graph
    *dtypes, compute = door.dtypes_of(program, x)
    kernel_key = "cpu", tuple(t.dtype for t in x), tuple(dtypes)
    if kernel_key not in program.kernels:
        from . import machine  # llvmlite, which `import svdrot` does not load
        from ._vectors import Kernel

        ins = [t.dtype for t in x]
        can = torch.float16 not in (*ins, *dtypes) or machine.converts_half()
        program.kernels[kernel_key] = Kernel(graph, ins, dtypes, compute) if can else None
    counts = [math.prod(shape) for shape in graph.inputs]
    arrays = [
        word
        for count, shape in zip(counts, graph.inputs, strict=True)
        for word in (0, DENSE, 0, count, shape[-1] if shape else 1, 1)
    ]
    numbers = sum(counts) + sum(map(math.prod, graph.shapes))
    # As measured on AVX-512: 90 operations a nanosecond, and 20 bytes to and from memory.
    kernel = program.kernels[kernel_key]
    nanoseconds = compute.itemsize * max(kernel.operations / 360, numbers / 20) if kernel else 0.0
    batches = [t.shape[: t.ndim - len(s)] for t, s in zip(x, graph.inputs, strict=True)]
    is_dense = all(batch == batches[0] for batch in batches)
    batch = batches[0] if is_dense else torch.broadcast_shapes(*batches)
    rows, outputs = math.prod(batch), tuple(zip(graph.shapes, dtypes, graph.summed, strict=True))
    shapes, most_to_copy = tuple((*batch, *s) for s in graph.inputs), MOST_TO_COPY // max(1, sum(counts))
    head = 0, 0, rows, rows
    is_simple = kernel is not None and is_dense and not program.sums
    is_simple = is_simple and rows * nanoseconds < 2 * WORTH_A_THREAD
    is_plain = is_simple and min(t.dtype.itemsize for t in x) >= 4
    known = kernel, outputs, head, tuple(arrays), nanoseconds, batch, rows, is_dense, shapes, most_to_copy
    made = tuple(((*batch, *shape), dtype) for shape, dtype, _ in outputs)
    return _Plan(*known, is_simple, is_plain, graph.scalars, made)


def _are_contiguous(x: Sequence[Tensor]) -> bool:
    for t in x:  # not `all`, of a generator: 0.4 us
        if not t.is_contiguous():
            return False
    return True


def _copied(plan: _Plan, x: Sequence[Tensor]) -> list[Tensor]:
    if not plan.is_dense:
        x = [t.expand(shape) for t, shape in zip(x, plan.shapes, strict=True)]
    return [t.contiguous() for t in x]


def _strided(shapes: Sequence[Shape], x: Sequence[Tensor]) -> tuple[torch.Size, int, list[Tensor], list[int]]:
    """The common batch shape, the rows of its inner dimension, the arrays, and how each lies."""
    batch, inner, x, strides = layout.strided(shapes, x)
    arrays = []
    for t, (outer_stride, inner_stride, *within) in zip(x, strides, strict=True):
        # One that lies row after row is read as such, though others are broadcast.
        lies = DENSE if t.is_contiguous() else SAME if outer_stride == inner_stride == 0 else STRIDED
        arrays += [t.data_ptr(), lies, outer_stride, inner_stride, *within]
    return batch, inner, x, arrays


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """From numpy, which asks Linux for huge pages: the page faults of a new torch tensor cost more than the
    projection itself (2^18 matrices, float32: 4.9 ms of 5.7 ms for a plain copy)."""
    scalar = _SCALAR.get(dtype)
    if scalar is None:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.from_numpy(np.empty(shape, scalar))


_SCALAR = {torch.float32: np.float32, torch.float64: np.float64}
