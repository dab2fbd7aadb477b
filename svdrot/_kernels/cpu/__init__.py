"""Calls of the compiled loops of a CPU, in threads for large batches.

numba compiles the kernels once per machine. Their machine code is kept on disk, and other processes call it
without numba, whose import and set-up take longer than half a second.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from svdrot.engine.cpu import empty as empty
from svdrot.engine.cpu.threads import stay_in_one

from .compiler import threads as _threads

NUMBERS_PER_THREAD = 32768  # at least: 3,641 matrices of 3 x 3, 40 us
NUMBERS_PER_CHUNK = 16384  # but full tiles
_here = threading.local()
T = TypeVar("T")


def run_rows(
    name: str,
    dtype: torch.dtype,
    rows: int,
    numbers: int,
    arguments: tuple[Tensor | float, ...],
    scratch: int,
    tile: int,
) -> None:
    """Call a kernel on rows of so many numbers, in as many threads as torch uses and the batch is worth.

    Raises:
        NotImplementedError: where torch.jit.trace would record what the kernel writes as a constant, and has
            tensors for sizes.
    """
    if torch._C._is_tracing() and not torch._C._dispatch_tls_is_dispatch_key_excluded("Tracer"):
        raise NotImplementedError(f"{name} is computed in memory, which torch.jit.trace cannot record.")
    kernel = load(name, dtype)
    pointers = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    threads = min(torch.get_num_threads(), rows * numbers // NUMBERS_PER_THREAD)
    if threads < 2 or getattr(_here, "is_alone", False):
        tiles = empty((scratch,), dtype)
        kernel(*pointers, tiles.data_ptr(), 0, rows)
        return
    # They take chunk after chunk, for not all may get a core at once.
    chunk = max(1, NUMBERS_PER_CHUNK // (tile * numbers or 1)) * tile
    tiles = empty((threads, scratch), dtype)
    size = tiles.itemsize * scratch
    _threads.run(kernel, pointers, tiles.data_ptr(), size, rows, chunk, threads)


@contextmanager
def alone() -> Iterator[None]:
    """Call kernels in this thread only.

    A thread that has done its share looks out for the next for some milliseconds, at the cost of a processor:
    for many short calls with other work between them that is more than what it helps.
    """
    before, _here.is_alone = getattr(_here, "is_alone", False), True
    try:
        yield
    finally:
        _here.is_alone = before


def each(work: Callable[[int], T], count: int) -> list[T]:
    """Return work(0), work(1), ..., in as many threads as torch uses, each of which calls kernels alone.

    For work of milliseconds and more, most of it in kernels and numpy, which hold no lock of Python's.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < 2 or getattr(_here, "is_alone", False):
        with alone():
            return [work(i) for i in range(count)]
    found: dict[int, T] = {}
    turns = itertools.count()  # whose next is one step for Python's lock

    def take() -> None:
        stay_in_one()
        with alone():
            while not failed and (i := next(turns)) < count:
                try:
                    found[i] = work(i)
                except BaseException:
                    failed.append(i)
                    raise

    failed: list[int] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="svdrot-each") as pool:
        shares = [pool.submit(take) for _ in range(threads)]
        try:
            for share in shares:
                share.result()
        except BaseException:  # Ctrl-C among them, which comes to this thread
            failed.append(-1)
            raise
    return [found[i] for i in range(count)]


@cache
def load(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """A compiled kernel for one dtype."""
    from .compiler import machine_code  # llvmlite, which `import svdrot` does not load

    return machine_code.load(name, dtype)
