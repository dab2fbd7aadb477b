# pyright: reportUndefinedVariable=false
"""CPU backend in numba: one SIMD loop per tile, threads for large batches. Contract: `svdrot.kernels`."""

import hashlib
import math
import os
import types
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core.types import void
from numba.extending import intrinsic
from torch import Tensor

from . import so3

LANES = 64  # matrices in a tile, always computed whole: a result does not depend on its place in the batch
ROWS_PER_THREAD = 8192

_SCALAR = {torch.float32: np.float32, torch.float64: np.float64}
# Neither nnan nor ninf: a NaN must stay in its own lane. The numpy error model, because a test for division
# by zero is a way out of the loop, and LLVM does not vectorise loops with such exits (measured: 6 times
# slower).
_OPTIONS = {"fastmath": {"contract", "nsz", "arcp", "reassoc", "afn"}, "error_model": "numpy"}


def special_orthogonalize(m: Tensor) -> Tensor:
    r = _empty(m)
    _run("project", m, r)
    return torch.from_numpy(r)


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    d = _empty(m)
    _run("differentiate", m, r.detach().numpy(), t.detach().numpy(), d, damping)
    return torch.from_numpy(d)


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    gap, g = _empty(m[:, 0, 0]), _empty(m)
    _run("measure_gap", m, gap, g)
    return torch.from_numpy(gap), torch.from_numpy(g)


def _empty(m: Tensor) -> np.ndarray:
    """From numpy, which asks Linux for huge pages: the page faults of a new torch tensor cost more than the
    projection itself (2^18 matrices, float32: 4.9 ms of 5.7 ms for a plain copy)."""
    return np.empty(m.shape, _SCALAR[m.dtype])


def _run(kernel: str, m: Tensor, *arguments: Any) -> None:
    """Call a compiled kernel on all rows of `m`, in as many threads as torch uses and the batch is worth."""
    function = _compiled(m.dtype)[kernel]
    arguments = (m.detach().numpy(), *arguments)
    rows = len(m)
    threads = min(torch.get_num_threads(), rows // ROWS_PER_THREAD)
    if threads < 2:
        function(*arguments, 0, rows)
        return
    tiles = -(-rows // LANES)
    bounds = [min(rows, LANES * (tiles * i // threads)) for i in range(threads + 1)]
    pool = _pool(threads - 1)
    others = [pool.submit(function, *arguments, *bounds[i : i + 2]) for i in range(1, threads)]
    function(*arguments, *bounds[:2])
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="svdrot")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: the child starts its own
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _compiled(dtype: torch.dtype) -> dict[str, Any]:
    """The formulas and the kernels below, compiled for one dtype; the kernels are cached on disk."""
    inline = numba.njit(forceinline=True, **_OPTIONS)
    scalar = _SCALAR[dtype]
    vocabulary: dict[str, Any] = {
        "__name__": __name__,
        "np": np,
        "LANES": LANES,
        "dtype": scalar,
        "sqrt": math.sqrt,
        "absolute": abs,
    }
    vocabulary |= {name: scalar(value) for name, value in so3.constants(dtype).items()}
    vocabulary["where"] = inline(_where)
    vocabulary["use_widest_vectors"] = use_widest_vectors
    so3.bind(vocabulary, inline)
    for helper in (read, write, columns, put):
        vocabulary[helper.__name__] = inline(types.FunctionType(helper.__code__, vocabulary, helper.__name__))
    for kernel in (project, differentiate, measure_gap):
        function = types.FunctionType(kernel.__code__, vocabulary, kernel.__name__)
        # numba keys its cache by this file and the function's name: an edit of the formulas it would miss.
        function.__qualname__ = f"{kernel.__name__}_{_fingerprint()}"
        vocabulary[kernel.__name__] = numba.njit(nogil=True, cache=True, **_OPTIONS)(function)
    return vocabulary


@cache
def _fingerprint() -> str:
    return hashlib.sha256(Path(so3.__file__).read_bytes()).hexdigest()[:12]


def _where(condition, x, y):
    return x if condition else y


@intrinsic
def use_widest_vectors(context):
    """Let LLVM use 512-bit registers in this function, which it otherwise avoids on CPUs that have them.

    Measured: 4,096 float32 projections take 75 us instead of 130. llvmlite does not know the attribute, but
    prints what it is given.
    """

    def generate(context, builder, signature, arguments):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return void(), generate


# The kernels. Like the formulas they are compiled against a vocabulary, never called as they stand.


def project(m, r, start, stop):
    use_widest_vectors()  # pyright: ignore
    x = np.zeros((9, LANES), dtype)
    for row in range(start, stop, LANES):
        read(m, row, stop, x)
        for i in range(LANES):
            a, b, c = columns(x, i)
            a, b, c = nearest_rotation(a, b, c)
            put(a, b, c, x, i)
        write(x, row, stop, r)


def differentiate(m, r, t, d, damping, start, stop):
    use_widest_vectors()  # pyright: ignore
    x, y, z = np.zeros((9, LANES), dtype), np.zeros((9, LANES), dtype), np.zeros((9, LANES), dtype)
    damping = dtype(damping)
    for row in range(start, stop, LANES):
        read(m, row, stop, x)
        read(r, row, stop, y)
        read(t, row, stop, z)
        for i in range(LANES):
            a, b, c = columns(x, i)
            e, f, g = columns(y, i)
            da, db, dc = columns(z, i)
            da, db, dc = nearest_rotation_differential(a, b, c, e, f, g, da, db, dc, damping)
            put(da, db, dc, z, i)
        write(z, row, stop, d)


def measure_gap(m, gap, g, start, stop):
    use_widest_vectors()  # pyright: ignore
    x, s = np.zeros((9, LANES), dtype), np.zeros(LANES, dtype)
    for row in range(start, stop, LANES):
        read(m, row, stop, x)
        for i in range(LANES):
            a, b, c = columns(x, i)
            s[i], a, b, c = gap_and_derivative(a, b, c)
            put(a, b, c, x, i)
        write(x, row, stop, g)
        for i in range(min(LANES, stop - row)):
            gap[row + i] = s[i]


def read(m, row, stop, x):
    """Transpose a tile: entries of rows `row`... of `m` into the lanes of `x`."""
    for i in range(min(LANES, stop - row)):
        for k in range(3):
            for j in range(3):
                x[3 * k + j, i] = m[row + i, k, j]


def write(x, row, stop, m):
    for i in range(min(LANES, stop - row)):
        for k in range(3):
            for j in range(3):
                m[row + i, k, j] = x[3 * k + j, i]


def columns(x, i):
    return (x[0, i], x[3, i], x[6, i]), (x[1, i], x[4, i], x[7, i]), (x[2, i], x[5, i], x[8, i])


def put(a, b, c, x, i):
    x[0, i], x[3, i], x[6, i] = a
    x[1, i], x[4, i], x[7, i] = b
    x[2, i], x[5, i], x[8, i] = c
