"""From tensors on a GPU to a kernel of `_writer`: where they lie, and one launch for all rows."""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from svdrot._precision import is_autocast
from svdrot.engine import door, layout
from svdrot.engine.program import Program, Shape

from . import _writer as writer

WARPS = 2 if torch.version.hip else 4  # a thread for each lane of a program
WIDE = 2**31  # rows that an int32 cannot count


def run(program: Program, scalars: Sequence[float], x: Sequence[Tensor]) -> list[Tensor]:
    graph, device = program.graph, x[0].device
    batch = layout.dense(graph.inputs, x)
    if batch is not None:
        rows = math.prod(batch)
        plan, strides = _plan(program, x, (True,) * len(x), 1, torch.int64), []
    else:
        batch, inner, x, lie = layout.strided(graph.inputs, x)
        rows = math.prod(batch)
        levels = 1 if inner >= rows else 2
        index = torch.int32 if levels == 2 and rows < WIDE else torch.int64
        own = [n[2 - levels : 2] + n[4 - len(s) :] for n, s in zip(lie, graph.inputs, strict=True)]
        dense = tuple(n == _lie_dense(s, inner, levels) for n, s in zip(own, graph.inputs, strict=True))
        plan = _plan(program, x, dense, levels, index)
        strides = [inner] * (levels == 2) + [n for t, d in zip(own, dense, strict=True) if not d for n in t]
    programs = -(-rows // writer.BLOCK)
    results = [
        torch.empty((programs,) if total else (*batch, *shape), dtype=dtype, device=device)
        for shape, dtype, total in zip(graph.shapes, plan.dtypes, graph.summed, strict=True)
    ]
    if rows:
        words = [word for s in scalars for word in struct.unpack("=2i", struct.pack("=d", s))]
        with torch.cuda.device_of(x[0]):
            arguments = (*x, *results, *words, rows, *strides)
            plan.kernel[(programs,)](*arguments, num_warps=WARPS, enable_fp_fusion=True)
    if program.sums:
        results = [r.sum() if total else r for r, total in zip(results, graph.summed, strict=True)]
    return results


def _lie_dense(shape: Shape, inner: int, levels: int) -> tuple[int, ...]:
    """The strides of an array that lies row after row: of its batch dimensions, and within a row."""
    count, columns = math.prod(shape), shape[-1] if shape else 1
    return (inner * count, count)[2 - levels :] + (columns, 1)[2 - len(shape) :]


class _Plan(NamedTuple):
    kernel: Any
    dtypes: tuple[torch.dtype, ...]  # of the outputs; float64 where they are partial sums


def _plan(
    program: Program, x: Sequence[Tensor], dense: tuple[bool, ...], levels: int, index: torch.dtype
) -> _Plan:
    key: tuple = ("triton", dense, levels, index, *[t.dtype for t in x])
    if x[0].dtype.itemsize < 4 and is_autocast(x[0]):
        key = (*key, "autocast")
    plan = program.kernels.get(key)
    if plan is None:
        *dtypes, compute = door.dtypes_of(program, x)
        dtypes = [
            torch.float64 if total else dtype
            for dtype, total in zip(dtypes, program.graph.summed, strict=True)
        ]
        inputs = [t.dtype for t in x]
        kernel = writer.kernel(program.name, program.graph, inputs, dtypes, compute, dense, levels, index)
        plan = program.kernels[key] = _Plan(kernel, tuple(dtypes))
    return plan
