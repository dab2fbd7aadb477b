"""CPU backend: one SIMD loop per tile, threads for large batches. Contract: `svdrot.kernels`.

numba compiles the kernels once per machine. Their machine code is kept on disk, and other processes call it
without numba, whose import and set-up take longer than half a second.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _machine_code

ROWS_PER_THREAD = 8192  # at least
ROWS_PER_CHUNK = 4096


def special_orthogonalize(m: Tensor) -> Tensor:
    r = _empty(m)
    _run("project", m, r)
    return r


def special_orthogonalize_differential(m: Tensor, r: Tensor, t: Tensor, damping: float) -> Tensor:
    d = _empty(m)
    _run("differentiate", m, r, t, d, damping)
    return d


def projection_gap(m: Tensor) -> tuple[Tensor, Tensor]:
    gap, g = _empty(m[:, 0, 0]), _empty(m)
    _run("measure_gap", m, gap, g)
    return gap, g


def _empty(m: Tensor) -> Tensor:
    """From numpy, which asks Linux for huge pages: the page faults of a new torch tensor cost more than the
    projection itself (2^18 matrices, float32: 4.9 ms of 5.7 ms for a plain copy)."""
    return torch.from_numpy(np.empty(m.shape, _SCALAR[m.dtype]))


_SCALAR = {torch.float32: np.float32, torch.float64: np.float64}


def _run(name: str, m: Tensor, *arguments: Tensor | float) -> None:
    """Call a compiled kernel on all rows of `m`, in as many threads as torch uses and the batch is worth."""
    kernel = _machine_code.load(name, m.dtype)
    pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in (m, *arguments)]
    rows = m.shape[0]
    threads = min(torch.get_num_threads(), rows // ROWS_PER_THREAD)
    # They take chunk after chunk, for not all may get a core: the threads of torch spin on for a while.
    chunks = iter(range(0, rows, ROWS_PER_CHUNK))

    def work() -> None:
        tiles = m.new_empty(_machine_code.SCRATCH)
        for start in chunks:
            kernel(*pointers, tiles.data_ptr(), start, min(start + ROWS_PER_CHUNK, rows))

    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="svdrot")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: the child starts its own
    os.register_at_fork(after_in_child=_pool.cache_clear)
