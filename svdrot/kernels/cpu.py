"""CPU backend: one SIMD loop per tile, threads for large batches. Contract: `svdrot.kernels`.

numba compiles the kernels once per machine. Their machine code is kept on disk, and other processes call it
without numba, whose import and set-up take longer than half a second.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import _threads, _tiles

NUMBERS_PER_THREAD = 32768  # at least: 3,641 matrices of 3 x 3, 40 us
NUMBERS_PER_CHUNK = 16384  # but full tiles


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
    if threads < 2:
        tiles = empty((scratch,), dtype)
        kernel(*pointers, tiles.data_ptr(), 0, rows)
        return
    # They take chunk after chunk, for not all may get a core at once.
    chunk = max(1, NUMBERS_PER_CHUNK // (tile * numbers or 1)) * tile
    tiles = empty((threads, scratch), dtype)
    size = tiles.itemsize * scratch
    _threads.run(kernel, pointers, tiles.data_ptr(), size, rows, chunk, threads)


@cache
def load(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A compiled kernel for one dtype."""
    from . import _machine_code  # llvmlite, which `import svdrot` does not load

    return _machine_code.load(name, dtype)
