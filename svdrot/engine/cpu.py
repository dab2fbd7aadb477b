"""From tensors on a CPU to a kernel of `vectors`: where they lie, in how many threads."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from svdrot._checks import is_autocast

from . import door, layout, threads
from .program import Program, Shape

DENSE, STRIDED, SAME = range(3)  # how an input lies: row after row, with other strides, the same for all rows
WORTH_A_THREAD = 40_000  # nanoseconds
BLOCK = 64  # rows in a chunk, or a multiple
HALVES = (torch.float16, torch.bfloat16)


def run(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    plan = _plan(program, x)
    batch = layout.dense(program.graph.inputs, x)
    if batch is not None:
        rows = x[0].numel() // plan.counts[0]
        inner = rows
        arrays = [
            number for t, dense in zip(x, plan.dense, strict=False) for number in (t.data_ptr(), *dense)
        ]
    else:
        batch, inner, x, arrays = _strided(program.graph.inputs, x)
        rows = math.prod(batch)
    results, places = [], []
    for shape, dtype, total in zip(program.graph.shapes, plan.dtypes, program.graph.summed, strict=False):
        if total:
            result = empty((-(-rows // plan.kernel.wide),), torch.float64)
        else:
            result = empty((*batch, *shape), dtype)
        results.append(result)
        places.append(result.data_ptr())
    if rows:
        count = min(torch.get_num_threads(), int(rows * plan.nanoseconds) // WORTH_A_THREAD)
        if count < 2:
            plan.kernel.rows(plan.kernel.pack(0, 0, rows, inner, *scalars, *arrays, *places), 0, rows)
        else:
            chunk = -(-rows // (4 * count * BLOCK)) * BLOCK
            words = bytearray(plan.kernel.pack(0, chunk, rows, inner, *scalars, *arrays, *places))
            address = ctypes.addressof(ctypes.c_char.from_buffer(words))
            threads.share(plan.kernel.entry, plan.kernel.share, address, count)
    if program.sums:
        results = [r.sum() if total else r for r, total in zip(results, program.graph.summed, strict=False)]
    return results


class _Plan(NamedTuple):
    kernel: Any
    dtypes: tuple[torch.dtype, ...]  # of the outputs
    counts: tuple[int, ...]  # numbers of a row of each input
    dense: tuple[tuple[int, ...], ...]  # how an input lies row after row
    nanoseconds: float  # of a row


def _plan(program: Program, x: Sequence[Tensor]) -> _Plan:
    key: tuple = tuple([t.dtype for t in x])
    if key[0].itemsize < 4 and is_autocast(x[0]):
        key = (*key, "autocast")
    plan = program.kernels.get(key)
    if plan is None:
        plan = program.kernels[key] = _made(program, x)
    return plan


def _made(program: Program, x: Sequence[Tensor]) -> _Plan:
    from .vectors import Kernel  # llvmlite, which `import svdrot` does not load

    graph = program.graph
    *dtypes, compute = door.dtypes_of(program, x)
    counts = tuple(math.prod(shape) for shape in graph.inputs)
    dense = tuple(
        (DENSE, 0, count, shape[-1] if shape else 1, 1)
        for count, shape in zip(counts, graph.inputs, strict=True)
    )
    numbers = sum(counts) + sum(map(math.prod, graph.shapes))
    # As measured on AVX-512: 45 operations a nanosecond, and 20 bytes to and from memory.
    nanoseconds = compute.itemsize * max(program.cost / 180, numbers / 20)
    kernel = Kernel(graph, [t.dtype for t in x], dtypes, compute)
    return _Plan(kernel, tuple(dtypes), counts, dense, nanoseconds)


def _strided(shapes: Sequence[Shape], x: Sequence[Tensor]) -> tuple[torch.Size, int, list[Tensor], list[int]]:
    """The common batch shape, the rows of its inner dimension, the arrays, and how each lies."""
    batch, inner, x, strides = layout.strided(shapes, x)
    arrays = []
    for t, (outer_stride, inner_stride, *within) in zip(x, strides, strict=True):
        lies = SAME if outer_stride == inner_stride == 0 else STRIDED
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
