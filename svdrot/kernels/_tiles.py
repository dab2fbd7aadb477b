# pyright: reportUndefinedVariable=false, reportPrivateImportUsage=false
"""The loops of the CPU backend, for numba: transpose a tile, one SIMD loop over its lanes, transpose back.

Like the formulas, the kernels and their helpers are compiled against a vocabulary, never called as such.
"""

import math
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch

from . import so3

LANES = 64  # matrices in a tile, always computed whole: a result does not depend on its place in the batch
SCRATCH = 28 * LANES  # numbers that a kernel needs for its tiles

# What each kernel takes: matrices by address, the damping, the scratch by address, and the rows from, to.
KERNELS = {
    "project": ("pointer", "pointer", "pointer", "intp", "intp"),
    "differentiate": ("pointer", "pointer", "pointer", "pointer", "double", "pointer", "intp", "intp"),
    "measure_gap": ("pointer", "pointer", "pointer", "pointer", "intp", "intp"),
}

# Vectors that a loop takes at a time: one computes while the other waits. 4,096 projections take 45 us, not
# 68, in float32, and 107, not 148, in float64; the differential gains nothing.
INTERLEAVE = {"project": 2}


def project(m, r, scratch, start, stop):
    use_widest_vectors()
    x = carray(scratch, (9, LANES))
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        for i in range(LANES):
            a, b, c = columns(x, i)
            a, b, c = nearest_rotation(a, b, c)
            put(a, b, c, x, i)
        write(scratch, 0, row, stop, r)


def differentiate(m, r, t, d, damping, scratch, start, stop):
    use_widest_vectors()
    tiles = carray(scratch, (3, 9, LANES))
    x, y, z = tiles[0], tiles[1], tiles[2]
    damping_ = dtype(damping)
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        read(r, row, stop, scratch, 1)
        read(t, row, stop, scratch, 2)
        for i in range(LANES):
            a, b, c = columns(x, i)
            e, f, g = columns(y, i)
            da, db, dc = columns(z, i)
            da, db, dc = nearest_rotation_differential(a, b, c, e, f, g, da, db, dc, damping_)
            put(da, db, dc, z, i)
        write(scratch, 2, row, stop, d)


def measure_gap(m, gap, g, scratch, start, stop):
    use_widest_vectors()
    tiles = carray(scratch, (10, LANES))
    x, s = tiles[:9], tiles[9]
    gaps = carray(gap, (stop,))
    for row in range(start, stop, LANES):
        read(m, row, stop, scratch, 0)
        for i in range(LANES):
            a, b, c = columns(x, i)
            s[i], a, b, c = gap_and_derivative(a, b, c)
            put(a, b, c, x, i)
        write(scratch, 0, row, stop, g)
        for i in range(min(LANES, stop - row)):
            gaps[row + i] = s[i]


def read(m, row, stop, scratch, tile):
    """Entries of the matrices from `row` on into the lanes of a tile, zeros into those past the last.

    (Not whatever is there: denormal numbers would make a batch of one take longer than one of 64.)
    """
    live = min(LANES, stop - row)
    if live == LANES:
        for i in range(0, LANES, WIDTH):
            gather(m, 9 * (row + i), scratch, 9 * LANES * tile + i)
    else:
        entries, x = carray(m, (stop, 9)), carray(scratch, (tile + 1, 9, LANES))[tile]
        for i in range(live):
            for k in range(9):
                x[k, i] = entries[row + i, k]
        for k in range(9):
            for i in range(live, LANES):
                x[k, i] = 0


def write(scratch, tile, row, stop, m):
    live = min(LANES, stop - row)
    if live == LANES:
        for i in range(0, LANES, WIDTH):
            scatter(scratch, 9 * LANES * tile + i, m, 9 * (row + i))
    else:
        entries, x = carray(m, (stop, 9)), carray(scratch, (tile + 1, 9, LANES))[tile]
        for i in range(live):
            for k in range(9):
                entries[row + i, k] = x[k, i]


def columns(x, i):
    return (x[0, i], x[3, i], x[6, i]), (x[1, i], x[4, i], x[7, i]), (x[2, i], x[5, i], x[8, i])


def put(a, b, c, x, i):
    x[0, i], x[3, i], x[6, i] = a
    x[1, i], x[4, i], x[7, i] = b
    x[2, i], x[5, i], x[8, i] = c


def where(condition, x, y):
    return x if condition else y


def compile(kernel: str, dtype: torch.dtype) -> tuple[str, str]:
    """The name that numba gives a kernel, and its LLVM code."""
    import numba  # 0.2 s that a process which finds the machine code on disk does not spend
    from numba.core.types import void
    from numba.extending import intrinsic

    from ._transpose import intrinsics

    # Neither nnan nor ninf: a NaN must stay in its own lane. The numpy error model, because a test for
    # division by zero is a way out of the loop, and LLVM vectorises no such loop (measured: 6 times slower).
    options: Any = {"fastmath": {"contract", "nsz", "arcp", "reassoc", "afn"}, "error_model": "numpy"}
    inline = numba.njit(forceinline=True, **options)

    @intrinsic
    def use_widest_vectors(context):
        """Let LLVM use 512-bit registers in this function, which it otherwise avoids on CPUs that have them.

        Measured: 4,096 float32 projections take 75 us instead of 130. llvmlite does not know the attribute,
        but prints what it is given.
        """

        def generate(context, builder, signature, arguments):
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return void(), generate

    scalar, number = {
        torch.float32: (numba.float32, np.float32),
        torch.float64: (numba.float64, np.float64),
    }[dtype]
    vocabulary: dict[str, Any] = {
        "__name__": __name__,
        "LANES": LANES,
        "dtype": scalar,
        "carray": numba.carray,
    }
    vocabulary |= {"sqrt": math.sqrt, "absolute": abs, "where": inline(where)}
    vocabulary |= {name: number(value) for name, value in so3.constants(dtype).items()}
    vocabulary["use_widest_vectors"] = use_widest_vectors
    vocabulary |= intrinsics(scalar, LANES)
    so3.bind(vocabulary, inline)
    for helper in (read, write, columns, put):
        vocabulary[helper.__name__] = inline(types.FunctionType(helper.__code__, vocabulary, helper.__name__))
    function = types.FunctionType(globals()[kernel].__code__, vocabulary, kernel)
    kinds = {"pointer": numba.types.CPointer(scalar), "double": numba.float64, "intp": numba.intp}
    with interleaving(INTERLEAVE.get(kernel, 0)):
        compiled = numba.cfunc(void(*(kinds[kind] for kind in KERNELS[kernel])), **options)(function)
    return compiled.native_name, compiled.inspect_llvm()


@contextmanager
def interleaving(vectors: int) -> Iterator[None]:
    """Let LLVM's vectoriser take so many vectors at a time, as many as it likes if 0."""
    llvm.set_option("", f"-force-vector-interleave={vectors}")
    try:
        yield
    finally:
        llvm.set_option("", "-force-vector-interleave=0")
