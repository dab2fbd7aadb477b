"""Many calls: in a process, its threads or its forks, or with little memory; and one that watches over it."""

import argparse
import contextlib
import faulthandler
import json
import mmap
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import svdrot

from .calls import Campaign
from .laws import Finding, findings

WARMING = 10**9  # number of the first of the calls that load every kernel


class Report:
    """Findings by kind: how many, and the number of the first call of each."""

    def __init__(self) -> None:
        self.kinds: dict[str, list[Any]] = {}

    def add(self, number: int, finding: Finding) -> None:
        kind = re.sub(r"-?\d[\d.e+-]*", "#", finding.what.split(":")[0])
        self.merge({f"{finding.law} | {finding.subject} | {kind}": [1, number, finding.what]})

    def merge(self, kinds: dict[str, list[Any]]) -> None:
        for key, (count, number, what) in kinds.items():
            known = self.kinds.setdefault(key, [0, number, what])
            known[0] += count

    def __str__(self) -> str:
        rows = [
            f"{count:6} times, first in call {n}: {key}\n{'':13}{what}"
            for key, (count, n, what) in sorted(self.kinds.items())
        ]
        return "\n".join(rows)


def supervise(options: argparse.Namespace) -> int:
    """A process for the calls, and another one behind each call that one dies of; 1 if there is a finding."""
    report, at, last, start = Report(), options.first, options.first + options.calls, time.perf_counter()
    print(f"{svdrot.__file__}, seed {options.seed}, calls {at} to {last}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        state, found = Path(folder, "state"), Path(folder, "report")
        while at < last:
            state.write_bytes(bytes(8))
            found.unlink(missing_ok=True)
            given = [
                f"--{name}={getattr(options, name)}"
                for name in ("seed", "threads", "memory", "block", "patience")
            ]
            given += [f"--first={at}", f"--calls={last - at}", f"--state={state}", f"--report={found}"]
            child = subprocess.Popen(
                [sys.executable, "-m", str(__package__), *given, *(["--fork"] if options.fork else [])]
            )
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(60)
                number = int.from_bytes(state.read_bytes(), "little")
                print(f"{time.perf_counter() - start:7.0f} s: call {number}", flush=True)
            told = json.loads(found.read_text()) if found.exists() else {"next": at, "kinds": {}}
            report.merge(told["kinds"])
            if child.returncode == 0:
                break
            number = int.from_bytes(state.read_bytes(), "little")
            print(f"Call {number}: the process ended with {child.returncode}.", flush=True)
            report.merge({f"a process lives | {child.returncode}": [1, number, f"call {number}"]})
            at = max(number, told["next"]) + 1
    print(report)
    print(f"{len(report.kinds)} kinds of findings in {options.calls} calls.")
    return int(bool(report.kinds))


def work(options: argparse.Namespace) -> None:
    """The calls from `--first` on, in this process; the number of the last one begun goes to `--state`."""
    campaign, report = Campaign(options.threads > 1), Report()
    with Path(options.state).open("r+b") as file:
        state = mmap.mmap(file.fileno(), 8)
    warnings.simplefilter("default")
    warnings.showwarning = lambda message, category, filename, line, *_: report.add(
        int.from_bytes(state[:], "little"),
        Finding("no warning", f"{Path(filename).name}:{line}", str(message)[:160]),
    )

    def one(number: int) -> None:
        state[:] = number.to_bytes(8, "little")
        for finding in findings(campaign.call(options.seed, number)):
            report.add(number, finding)

    def block(numbers: range) -> None:
        faulthandler.dump_traceback_later(options.patience, exit=True)
        if options.threads > 1:
            list(pool.map(one, numbers))
        else:
            for number in numbers:
                one(number)

    last = options.first + options.calls
    blocks = [range(at, min(at + options.block, last)) for at in range(options.first, last, options.block)]
    if options.threads > 1 or options.fork or options.memory:
        for number in range(WARMING, WARMING + 2000):  # kernels are loaded and compiled in one thread
            findings(campaign.call(options.seed, number))
    with ThreadPoolExecutor(options.threads) as pool:
        for numbers in blocks:
            if options.fork or options.memory:
                report.merge(_in_a_child(block, numbers, report, options.memory, state))
            else:
                block(numbers)
            Path(options.report).write_text(json.dumps({"next": numbers.stop, "kinds": report.kinds}))
    faulthandler.cancel_dump_traceback_later()


def _in_a_child(
    block: Callable[[range], None], numbers: range, report: Report, memory: int, state: mmap.mmap
) -> dict[str, list[Any]]:
    """The findings of calls in a fork of this process, with so many MiB more than it has, if that is told."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        report.kinds.clear()
        if memory:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + memory * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with contextlib.suppress(MemoryError):
            block(numbers)
        with os.fdopen(theirs, "w") as file:
            json.dump(report.kinds, file)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        said = file.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return json.loads(said)
    number = int.from_bytes(state[:], "little")
    return {f"a process lives | in a child | status {status}": [1, number, f"status {status}"]}
