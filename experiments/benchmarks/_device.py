"""What only a GPU can show of a call: its kernels, its waits, its memory, and itself as a CUDA graph."""

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

Call = Callable[[], object]


def optional(name: str) -> Any:
    """Import a package that may be missing; None then."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


@contextlib.contextmanager
def told_of_waits(found: list[str]) -> Iterator[None]:
    """Collect what torch warns of where the host waits for the device."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found += [str(w.message) for w in told if "called a synchronizing" in str(w.message)]


def waits(call: Call) -> int:
    found: list[str] = []
    with told_of_waits(found):
        call()
    return len(found)


def launches(call: Call) -> int:
    """Count kernels, copies and fills that torch's profiler sees."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in profile.events() or ())


def captured(call: Callable[[], Any]) -> tuple[Any, Any]:
    """Return a CUDA graph of a call, and the result that its replays write."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # compiles, and what it allocates is there
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def replays(calls: dict[str, Call]) -> dict[str, Call]:
    """Replace calls by replays of their graphs, which the host does not slow down, where they have one."""
    found: dict[str, Call] = {}
    for name, call in calls.items():
        found[name] = call
        if waits(call):
            continue
        try:
            graph, result = captured(call)
        except RuntimeError:  # of a library that waits without a word
            torch.cuda.synchronize()
        else:
            found[name] = lambda graph=graph, result=result: graph.replay()
    return found


def peak(call: Call) -> tuple[int, int]:
    """Return the bytes that a call has at most beyond what was there, and those of its result."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    most, kept = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    del result
    return most, kept
