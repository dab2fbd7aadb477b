"""How the arrays of a call lie in memory, with no more batch dimensions than a kernel has."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .program import Shape


class Layout(NamedTuple):
    """Where the rows of a call are: row r of an array begins at (r // inner) strides of the outer batch
    dimension and (r % inner) of the inner one."""

    batch: torch.Size
    inner: int  # rows of the inner dimension
    arrays: list[Tensor]  # of the common batch shape
    strides: list[tuple[int, ...]]  # outer, inner, row and column of each, in numbers


def dense(shapes: Sequence[Shape], x: Sequence[Tensor]) -> torch.Size | None:
    """The batch shape of arrays that all have it and lie row after row; None for any others."""
    batch = None
    for t, shape in zip(x, shapes, strict=False):  # not `all`, of a generator: 0.4 us
        own = t.shape[: t.ndim - len(shape)]
        if batch is None:
            batch = own
        elif own != batch:
            return None
        if not t.is_contiguous():
            return None
    return batch


def strided(shapes: Sequence[Shape], x: Sequence[Tensor]) -> Layout:
    """The layout of arrays of any strides and of batch shapes that broadcast.

    Batch dimensions that no array needs apart are one; if more than two are left, arrays are copied.
    """
    batch = torch.broadcast_shapes(*[t.shape[: t.ndim - len(s)] for t, s in zip(x, shapes, strict=True)])
    if 0 in batch:  # nowhere to go, and no strides to tell of
        return Layout(batch, 1, [*x], [(0, 0, 0, 0)] * len(x))
    expanded = [t.expand((*batch, *s)) for t, s in zip(x, shapes, strict=True)]
    sizes, strides = _merged(batch, [t.stride()[: len(batch)] for t in expanded])
    if len(sizes) > 2:
        expanded = [t.contiguous() for t in expanded]
        sizes, strides = _merged(batch, [t.stride()[: len(batch)] for t in expanded])
    sizes, strides = ((1,) * (2 - len(sizes)) + sizes), [(0,) * (2 - len(s)) + s for s in strides]
    lie = [
        (outer, inner, *(0, 0, *t.stride()[len(batch) :])[-2:])
        for t, (outer, inner) in zip(expanded, strides, strict=True)
    ]
    return Layout(batch, max(1, sizes[1]), expanded, lie)


def _merged(
    batch: Sequence[int], strides: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Batch dimensions, as few as serve all arrays; those of size 1 are none."""
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for d, size in enumerate(batch):
        if size == 1:
            continue
        here = [s[d] for s in strides]
        if sizes and all(m[-1] == h * size for m, h in zip(merged, here, strict=True)):
            sizes[-1] *= size
            for m, h in zip(merged, here, strict=True):
                m[-1] = h
        else:
            sizes.append(size)
            for m, h in zip(merged, here, strict=True):
                m.append(h)
    return tuple(sizes), [tuple(m) for m in merged]
