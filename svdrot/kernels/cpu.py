"""CPU backend: one SIMD loop per tile, threads for large batches. Contract: `svdrot.kernels`.

numba compiles the kernels once per machine. Their machine code is kept on disk, and other processes call it
without numba, whose import and set-up take longer than half a second.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _tiles

NUMBERS_PER_THREAD = 73728  # at least: 8,192 matrices of 3 x 3
NUMBERS_PER_CHUNK = 36864  # but full tiles


def special_orthogonalize(m: Tensor) -> Tensor:
    r = empty(m.shape, m.dtype)
    run("project", m, r)
    return r


def orthogonalize(m: Tensor) -> Tensor:
    """The nearest orthogonal matrices, of sides 2 and 3."""
    if m.shape[-1] == 2:
        return in_plane(m, either=True)
    q = empty(m.shape, m.dtype)
    run("project_either", m, q)
    return q


def in_plane(m: Tensor, either: bool) -> Tensor:
    """The nearest rotations of the plane, or `either` those or reflections."""
    r = empty(m.shape, m.dtype)
    run_rows("project_plane", m.dtype, len(m), 4, (m, r, int(either)), 1, 64)
    return r


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    d = empty(m.shape, m.dtype)
    run("differentiate", m, r, t, d, damping)
    return d


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    gap, g = empty(m.shape[:1], m.dtype), empty(m.shape, m.dtype)
    run("measure_gap", m, gap, g)
    return gap, g


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """From numpy, which asks Linux for huge pages: the page faults of a new torch tensor cost more than the
    projection itself (2^18 matrices, float32: 4.9 ms of 5.7 ms for a plain copy)."""
    return torch.from_numpy(np.empty(shape, _SCALAR[dtype]))


_SCALAR = {torch.float32: np.float32, torch.float64: np.float64}


def run(name: str, m: Tensor, *arguments: Tensor | float, scratch: int = _tiles.SCRATCH) -> None:
    """Call a compiled kernel on all rows of `m`, which go through it in full tiles of 64."""
    numbers = m.shape[-2] * m.shape[-1]
    run_rows(name, m.dtype, len(m), numbers, (m, *arguments), scratch, 64)


def run_rows(
    name: str,
    dtype: torch.dtype,
    rows: int,
    numbers: int,
    arguments: tuple[Tensor | float, ...],
    scratch: int,
    tile: int,
) -> None:
    """Call a kernel on rows of so many numbers, in as many threads as torch uses and the batch is worth."""
    kernel = load(name, dtype)
    pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    threads = min(torch.get_num_threads(), rows * numbers // NUMBERS_PER_THREAD)
    if threads < 2:  # nor what it takes to share: 5 us
        tiles = empty((scratch,), dtype)
        kernel(*pointers, tiles.data_ptr(), 0, rows)
        return
    chunk = max(1, NUMBERS_PER_CHUNK // (tile * numbers or 1)) * tile
    # They take chunk after chunk, for not all may get a core: the threads of torch spin on for a while.
    chunks = iter(range(0, rows, chunk))

    def work() -> None:
        tiles = empty((scratch,), dtype)
        for start in chunks:
            kernel(*pointers, tiles.data_ptr(), start, min(start + chunk, rows))

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        if not other.cancel():  # what did not even get a core has nothing left to do
            other.result()


def load(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A compiled kernel for one dtype."""
    from . import _machine_code  # llvmlite, which `import svdrot` does not load

    return _machine_code.load(name, dtype)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="svdrot")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: the child starts its own
    os.register_at_fork(after_in_child=_pool.cache_clear)
