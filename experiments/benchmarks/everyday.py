"""How fast is everyday geometry: quaternions, exponentials, arcs, Euler angles, directions, cameras?

Forward and forward + backward, through the public functions with all their checks, against roma, kornia,
scipy (whose `Rotation` takes tensors of torch, and gradients, with SCIPY_ARRAY_API=1 in the environment),
and, of what these lack, against the textbook's formulas in torch operations, which are as exact only away
from singular places. pypose and pytorch3d take part in nothing; the result says whether they are installed.
"copy" is a copy of the same number of bytes, half of what is read and written, and "call" the conjugate of
one quaternion: what a call takes that computes nothing. All contestants take turns within each round;
medians, of processor time on one thread and of wall time on more.

Expected, the fastest of the others over ours, forward and with backward: products, inverses and images of
quaternions 2 and 1.5 at 1, 3 and 2 at 64, 8 and 5 at 4,096 and more; the others 5 and 4, 8 and 5, 15 and 10.

    SCIPY_ARRAY_API=1 python -m experiments.benchmarks.everyday       fifteen minutes on two cores

It makes the published results with --out experiments/results/benchmarks/everyday.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.benchmarks._everyday import OURS, PEERS, Case, arguments, cases
from experiments.shared.settings import Count, Out, Positive, Settings, Threads
from experiments.shared.timing import medians

PASSES = ("forward", "forward + backward")
COPY, CALL = "copy", "call"
LEAST = {1: 0, 64: 1, 4096: 2}  # place in EXPECTED of batches of so many and more
EXPECTED = {"algebra": ((2, 1.5), (3, 2), (8, 5)), "maps": ((5, 4), (8, 5), (15, 10))}


@dataclass(frozen=True)
class Config(Settings):
    batches: tuple[Count, ...] = (1, 64, 4096, 65536)
    """Elements in a call."""
    threads: tuple[Threads, ...] = (1, 2)
    rounds: Count = 100
    """At most, for each cell."""
    seconds: Positive = 0.6
    """After which no new round begins; there are at least three."""
    functions: tuple[str, ...] = tuple(cases())
    """By name."""
    out: Out = Path("runs/benchmarks/everyday")


def contestants(case: Case, batch: int, which: str) -> dict[str, Callable[[], object]]:
    """Make the calls of one cell; who has no gradient has no part in the backward pass."""
    calls: dict[str, Callable[[], object]] = {}
    moved = 0
    for name, f in case.functions.items():
        x = list(arguments(case, name, batch))
        results = _tensors(f(*x))
        if name == OURS:
            moved = sum(t.nbytes for t in (*x, *results))
        if which == PASSES[0]:
            calls[name] = lambda f=f, x=x: f(*x)
            continue
        x = [t.requires_grad_() for t in x]
        results = _tensors(f(*x))
        if not results or not all(isinstance(r, Tensor) and r.requires_grad for r in results):
            continue
        g = [torch.ones_like(r) for r in results]
        if name == OURS:  # the gradients of results are read, those of arguments are written
            moved += sum(t.nbytes for t in (*x, *x, *results))
        calls[name] = lambda f=f, x=x, g=g: torch.autograd.grad(_tensors(f(*x)), x, g)
    source, one = torch.zeros(max(1, moved // 8)), torch.ones(1, 4, requires_grad=which == PASSES[1])
    calls[COPY] = source.clone
    calls[CALL] = lambda: svdrot.quaternion_conjugate(one)
    if which == PASSES[1]:
        g = torch.ones(1, 4)
        calls[CALL] = lambda: torch.autograd.grad(svdrot.quaternion_conjugate(one), one, g)
    return calls


def _tensors(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple | list) else [found]


def run(config: Config) -> list[dict[str, Any]]:
    rows = []
    known = {name: cases()[name] for name in config.functions}
    cells = [
        (name, threads, batch, which)
        for threads in config.threads
        for name in known
        for batch in config.batches
        for which in PASSES
    ]
    for name, threads, batch, which in tqdm(cells, unit="cell"):
        torch.set_num_threads(threads)
        calls = contestants(known[name], batch, which)
        clock = process_time if threads == 1 else perf_counter
        times, rounds = medians(calls, "cpu", config.rounds, config.seconds, clock)
        least = max(place for size, place in LEAST.items() if size <= batch)
        wanted = EXPECTED[known[name].kind][least][PASSES.index(which)]
        others = {who: t for who, t in times.items() if who not in (OURS, COPY, CALL)}
        fastest = min(others, key=lambda who: others[who])
        rows.append(
            {
                "function": name,
                "threads": threads,
                "batch": batch,
                "pass": which,
                "rounds": rounds,
                "seconds": times,
                "fastest": fastest,
                "ratio": others[fastest] / times[OURS],
                "expected": wanted,
            }
        )
    return rows


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Make a table for each pass and number of threads, in microseconds."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    for row in rows:
        count = row["threads"]
        caption = f"{row['pass']}, {count} thread{'s' * (count > 1)}, microseconds"
        line = {"function": row["function"], "batch": row["batch"]}
        line |= {name: 1e6 * row["seconds"][name] if name in row["seconds"] else "–" for name in names}
        line |= {
            "fastest of the others": row["fastest"],
            "over ours": row["ratio"],
            "expected": row["expected"],
        }
        found.setdefault(caption, []).append(line)
    return found


def missed(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Make the table of the cells that are slower than expected, with what no call can be faster than."""
    lines = [
        {
            "function": row["function"],
            "pass": row["pass"],
            "threads": row["threads"],
            "batch": row["batch"],
            "over ours": row["ratio"],
            "expected": row["expected"],
        }
        | {name: 1e6 * row["seconds"][name] for name in (OURS, CALL, COPY)}
        for row in rows
        if row["ratio"] < row["expected"]
    ]
    return {"less than expected, microseconds": lines} if lines else {}


def verdict(rows: list[dict[str, Any]]) -> str:
    text = ["Medians; ratios are the fastest of the others over ours."]
    for count in dict.fromkeys(row["threads"] for row in rows):
        own = [row for row in rows if row["threads"] == count]
        met = sum(row["ratio"] >= row["expected"] for row in own)
        least = min(row["ratio"] for row in own)
        text.append(
            f"On {count} thread{'s' * (count > 1)} {met} of {len(own)} cells are as expected; the least "
            f"ratio is {least:.3g}."
        )
    return " ".join([*text, ", ".join(f"{k} {v}" for k, v in versions().items()) + "."])


def versions() -> dict[str, str]:
    found = {}
    for name in ("torch", *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def figure(rows: list[dict[str, Any]]) -> Figure:
    panels = Figure(figsize=(11, 5), layout="constrained")
    axes = panels.subplots(1, 2, sharey=True)
    first = min(row["threads"] for row in rows)
    for axis, which in zip(axes, PASSES, strict=True):
        chosen = [row for row in rows if row["pass"] == which and row["threads"] == first]
        names = list(dict.fromkeys(row["function"] for row in chosen))
        for k, name in enumerate(names):
            points = [(row["batch"], row["ratio"]) for row in chosen if row["function"] == name]
            style = shared.figures.DASHES[k // len(shared.figures.COLORS)]
            color = shared.figures.COLORS[k % len(shared.figures.COLORS)]
            axis.loglog(*zip(*points, strict=True), f"o{style}", color=color, label=name, markersize=4)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(f"{which}, {first} thread{'s' * (first > 1)}")
        axis.set_xlabel("elements in the batch")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("times faster than the fastest of the others")
    lines = axes[0].get_legend_handles_labels()
    panels.legend(*lines, loc="outside lower center", ncols=6, fontsize=8, handlelength=3)
    return panels


def main(config: Config) -> None:
    rows = run(config)
    shared.results.write(
        config.out,
        config,
        tables(rows) | missed(rows),
        figure(rows),
        verdict(rows),
        versions=versions(),
        rows=rows,
    )


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
