"""Several threads for a batch: those of torch, which are awake.

To wake a sleeping thread takes longer than most batches do: a pool of Python's costs 100 us. The OpenMP that
torch brings keeps its threads spinning for a while, and is asked for them directly. Where it is not found the
pool serves. Neither survives a fork: before one, OpenMP is asked to end its threads, and begins anew.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

HARD = 2  # omp_pause_hard


def share(entry: int, work: Callable[[int], None], address: int, threads: int) -> None:
    """Call a function from this many threads at once, each with the same address: of C by its address, or of
    Python by `work`. It returns when there is nothing left to do."""
    library = _openmp()
    if library is not None:
        library[0](entry, address, threads, 0)
        return
    others = [_pool(threads - 1).submit(work, address) for _ in range(threads - 1)]
    work(address)
    for other in others:
        if not other.cancel():  # what did not even get a core has nothing left to do
            other.result()


def stay_in_one() -> None:
    """Let torch's operations take no other threads in the thread of Python that calls this.

    Only in that one: `torch.set_num_threads` would also tell those that begin later. Where torch has no
    OpenMP that is found, they take what they take.
    """
    torch.get_num_threads()  # the first call in a thread sets its number, and would set it again
    library = _openmp()
    if library is not None:
        library[2](1)


@cache
def _openmp() -> tuple[Any, Any, Any] | None:
    """Find the OpenMP library that torch has loaded, if there is one.

    Returns its GOMP_parallel(function, data, threads, flags), what ends the threads, and what limits those
    of a thread.
    """
    own = Path(torch.__file__).parent / "lib"
    names = [*map(str, own.glob("libgomp*")), "libgomp.so.1", "libiomp5.so", "libomp.so"]
    for name in names if hasattr(os, "RTLD_NOLOAD") else []:
        try:
            library = ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
            parallel, rest = library.GOMP_parallel, library.omp_pause_resource_all
            limit = library.omp_set_num_threads
        except (OSError, AttributeError):
            continue
        parallel.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
        parallel.restype = None
        return parallel, rest, limit
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="svdrot")


def _rest() -> None:
    """Let OpenMP end its threads: a forked process has none of them, and torch's operations would wait."""
    if _openmp.cache_info().currsize and (library := _openmp()) is not None:
        library[1](HARD)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_rest, after_in_child=_pool.cache_clear)  # the child starts its own
