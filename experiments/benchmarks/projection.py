"""How fast is the nearest rotation, and how far from what the machine allows?

Forward, and forward + backward, of (B, 3, 3) batches: `svdrot.special_orthogonalize`; roma 1.8.0's
`special_procrustes`, as it comes, by its SVD, which is faster for small batches, and compiled by
torch.compile, of which the fastest counts; autograd through `torch.linalg.svd`; and the floor, a copy of the
same bytes between two existing tensors (one matrix in and one out for the forward; three in and one out more
for the backward). All contestants take turns within each round, so that whatever else the machine does hits
them alike; medians over the rounds, and ratios of medians. roma as it comes computes in float64 whatever it
gets, and its float32 results are nearer for it: the tables of float64 compare at equal precision. On a GPU
the times are those of the device, and bfloat16 is there too.

Expected, on a CPU: at least 20, 40 and 80 times faster than roma at 64, 4,096 and 262,144 matrices forward,
and 12, 30 and 60 times with backward. On a GPU: 70 % of the speed of the copy for 2^22 float32 matrices.

    python -m experiments.benchmarks.projection            a few minutes on two cores

It makes the published results with --out experiments/results/benchmarks/projection.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import roma
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.shared.settings import Count, Device, Out, Positive, Settings
from experiments.shared.statistics import holds
from experiments.shared.timing import medians

PASSES = ("forward", "forward + backward")
ROMA = ("roma", "roma, SVD", "roma, compiled")
COLORS = {
    "svdrot": "#0072B2",
    "roma": "#D55E00",
    "roma, SVD": "#E69F00",
    "roma, compiled": "#CC79A7",
    "torch SVD": "#009E73",
    "copy": "#999999",
}


@dataclass(frozen=True)
class Config(Settings):
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    batches: tuple[Count, ...] = (1, 8, 64, 512, 4096, 32768, 262144, 1048576)
    """Matrices in a call; on a GPU 2^22 is added."""
    dtypes: tuple[Literal["float32", "float64"], ...] = ("float32", "float64")
    """Of the matrices; on a GPU bfloat16 is added."""
    rounds: Count = 200
    """At most, for each batch size."""
    seconds: Positive = 4.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/projection")


def by_svd(m: Tensor) -> Tensor:
    """Project as people write it: U diag(1, 1, det UVᵀ) Vᵀ by autograd, to which the sign is a constant."""
    u, _, vh = torch.linalg.svd(m)
    ones = torch.ones_like(m[..., 0, :2])
    sign = torch.linalg.det((u @ vh).detach())
    return u * torch.cat((ones, sign[..., None]), -1)[..., None, :] @ vh


PROJECTIONS: dict[str, Callable[[Tensor], Any]] = {
    "svdrot": svdrot.special_orthogonalize,
    "roma": roma.special_procrustes,
    "roma, SVD": partial(roma.special_procrustes, method="svd"),
    "roma, compiled": torch.compile(roma.special_procrustes, dynamic=True),
    "torch SVD": by_svd,
}


def contestants(m: Tensor, which: str) -> dict[str, Callable[[], object]]:
    weight = torch.randn_like(m)
    copies = 1 if which == "forward" else 3  # (1 + 1) and (1 + 1) + (3 + 1) matrices read and written
    source = m.repeat(copies, 1, 1)
    target = torch.empty_like(source)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: target.copy_(source)}
    for name, project in PROJECTIONS.items():
        if m.dtype == torch.bfloat16 and name in ("torch SVD", "roma, SVD"):
            continue  # torch has no half-precision SVD
        x = m.clone().requires_grad_(which != "forward")
        if which == "forward":
            calls[name] = lambda project=project, x=x: project(x)
        else:
            calls[name] = lambda project=project, x=x: torch.autograd.grad(project(x), x, weight)
    return calls


def run(config: Config) -> list[dict]:
    on_gpu = config.device != "cpu"
    dtypes = (*config.dtypes, *(("bfloat16",) if on_gpu else ()))
    batches = (*config.batches, *((1 << 22,) if on_gpu else ()))
    cells = [(dtype, batch, which) for dtype in dtypes for batch in batches for which in PASSES]
    rows = []
    generator = torch.Generator(config.device).manual_seed(0)
    for dtype, batch, which in tqdm(cells, unit="cell"):
        m = torch.randn(batch, 3, 3, device=config.device, generator=generator).to(getattr(torch, dtype))
        times, rounds = medians(contestants(m, which), config.device, config.rounds, config.seconds)
        rows.append({"dtype": dtype, "batch": batch, "pass": which, "rounds": rounds, "seconds": times})
    return rows


STARTUP = """
import time
start = time.perf_counter()
import torch
torch_ = time.perf_counter()
import svdrot.nn
imported = time.perf_counter()
m = torch.randn(64, 3, 3, requires_grad=True)
svdrot.special_orthogonalize(m).sum().backward()
first = time.perf_counter()
print(imported - torch_, first - imported)
"""


def startup() -> dict[str, float]:
    """Time what a new process waits for, in seconds: the import, and its first forward and backward on a CPU,
    whose kernels it compiles.
    """
    # Byte code is kept, whatever this machine's habit, as it is after an installation.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-c", STARTUP]
    runs = [
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
        for _ in range(4)
    ]
    imports, calls = zip(*(map(float, output.split()) for output in runs), strict=True)
    return {"import": min(imports), "first call with backward": min(calls)}


def readable(time: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if time >= size:
            return f"{time / size:.3g} {unit}"
    return f"{time / 1e-6:.3g} µs"


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Make a table for each dtype and pass, with a row for each batch."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        times = row["seconds"]
        cells = {name: readable(times[name]) for name in COLORS if name in times}
        peers = {"fastest roma": fastest_roma(times)} | {
            n: times[n] for n in ("torch SVD", "copy") if n in times
        }
        ratios = {f"{name} / svdrot": time / times["svdrot"] for name, time in peers.items()}
        caption = f"{row['dtype']}, {row['pass']}"
        found.setdefault(caption, []).append({"batch": row["batch"]} | cells | ratios)
    return found


def fastest_roma(times: dict[str, float]) -> float:
    return min(times[name] for name in ROMA if name in times)


# Times faster than roma, by its fastest way, on a CPU, by batch.
EXPECTED = {
    "forward": {64: 20, 4096: 40, 262_144: 80},
    "forward + backward": {64: 12, 4096: 30, 262_144: 60},
}


def verdict(rows: list[dict[str, Any]], start: dict[str, float], config: Config) -> str:
    text = ["Medians; the ratios say how many times faster svdrot is."]
    text += [f"{torch.get_num_threads()} threads; {', '.join(f'{k} {v}' for k, v in versions().items())}."]
    for which, least in EXPECTED.items():
        ratios = {
            row["batch"]: fastest_roma(row["seconds"]) / row["seconds"]["svdrot"]
            for row in rows
            if (row["dtype"], row["pass"]) == ("float32", which) and row["batch"] in least
        }
        if config.device == "cpu" and ratios:
            told = ", ".join(f"{ratio:.3g} times at {batch:,}" for batch, ratio in ratios.items())
            yes = all(ratio >= least[batch] for batch, ratio in ratios.items())
            text.append(f"Faster than roma in float32, {which}: {told}. {holds(yes)}")
    text.append("A new process: " + "; ".join(f"{name} {readable(t)}" for name, t in start.items()) + ".")
    return " ".join(text)


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "roma", "llvmlite", "numpy")}


def figure(rows: list[dict[str, Any]]) -> Figure:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    panels = Figure(figsize=(10, 3.6 * len(dtypes)), layout="constrained")
    axes = panels.subplots(len(dtypes), 2, sharex=True, sharey=True, squeeze=False)
    for line, dtype in zip(axes, dtypes, strict=True):
        for axis, which in zip(line, PASSES, strict=True):
            chosen = [row for row in rows if (row["dtype"], row["pass"]) == (dtype, which)]
            for name, color in COLORS.items():
                points = [
                    (row["batch"], row["seconds"][name] / row["batch"] * 1e9)
                    for row in chosen
                    if name in row["seconds"]
                ]
                if points:
                    axis.loglog(*zip(*points, strict=True), "o-", color=color, label=name, markersize=4)
            axis.set_title(f"{which}, {dtype}")
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("matrices in the batch")
    for axis in axes[:, 0]:
        axis.set_ylabel("nanoseconds per matrix")
    panels.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(COLORS))
    return panels


def main(config: Config) -> None:
    rows = run(config)
    start = startup()
    exact = {"threads": torch.get_num_threads(), "versions": versions(), "startup": start, "rows": rows}
    said = verdict(rows, start, config)
    shared.results.write(config.out, config, tables(rows), figure(rows), said, **exact)


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
