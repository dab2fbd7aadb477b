"""Medians of contestants that take turns: whatever else the machine does hits them alike."""

import statistics
from collections.abc import Callable
from time import perf_counter

import torch


def medians(
    calls: dict[str, Callable[[], object]],
    device: str,
    rounds: int,
    limit: float,
    clock: Callable[[], float] = perf_counter,
) -> tuple[dict[str, float], int]:
    """Time calls: median seconds of each over at most `rounds` rounds in which all take turns; and rounds.

    No round begins after `limit` seconds, but there are three. `clock` is that of a CPU: `process_time` does
    not see what else the machine does, and counts the time of all threads.
    """
    # A reading lasts 5 ms at least, after as long a run-up: what the others did to caches, branch predictors
    # and clock rates would cost a short call more than its own work.
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(5e-3 / max(seconds(call, device, 1, clock), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    start = perf_counter()
    done = 0
    while done < 3 or (done < rounds and perf_counter() - start < limit):
        for name, call in calls.items():
            if repeats[name] > 1:
                seconds(call, device, repeats[name], clock)
            times[name].append(seconds(call, device, repeats[name], clock))
        done += 1
    return {name: statistics.median(t) for name, t in times.items()}, done


def seconds(
    call: Callable[[], object], device: str, repeats: int, clock: Callable[[], float] = perf_counter
) -> float:
    if device == "cpu":
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats
