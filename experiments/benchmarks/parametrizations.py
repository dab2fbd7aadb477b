"""What does a step of a training cost whose weight stays orthogonal?

One square weight n x n: zero_grad, the weight, a loss that is linear in it, backward, and the optimizer's
step. Contestants are the three maps of `torch.nn.utils.parametrizations.orthogonal`, with trivialization, as
they are by default, and svdrot's: `Stiefel` and `SpecialOrthogonal` under the same optimizer, and a bare
parameter under `RiemannianSGD` or `RiemannianAdam`. Gradients are drawn anew for each of 16 steps, which
repeat; SGD takes steps of about 1 % of the weight, Adam a learning rate of 1e-3, or `--adam 0.01`. All
contestants take turns within each round; medians, of processor time on one thread and of wall time on more.
After that, how far the weight is from orthogonal.

Expected: at every n the step with `SpecialOrthogonal` is faster than that with the fastest map of torch. What
both spend outside of their maps, some 100 us, is most of it for n < 32; for n = 512 Cayley's map is one
elimination, two solutions and two products, forward and backward together the work of seven products, and
ours is that of four, five or seven.

    python -m experiments.benchmarks.parametrizations         three minutes

It makes the published results with --out experiments/results/benchmarks/parametrizations.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Settings, Threads
from experiments.shared.timing import medians

TORCH = ("cayley", "matrix_exp", "householder")
OURS = ("Stiefel", "SpecialOrthogonal")
BARE = "Riemannian"
OPTIMIZERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "SGD": (torch.optim.SGD, svdrot.optim.RiemannianSGD),
    "Adam": (torch.optim.Adam, svdrot.optim.RiemannianAdam),
}
GRADIENTS = 16


@dataclass(frozen=True)
class Config(Settings):
    sizes: tuple[Count, ...] = (3, 4, 8, 16, 32, 64, 128, 256, 512)
    """Rows and columns of the weight."""
    threads: tuple[Threads, ...] = (1,)
    """More say something on a machine of one's own alone: threads wait for each other."""
    sgd: Positive = 0.01
    """Learning rate, for gradients of spectral norm 1."""
    adam: Positive = 1e-3
    """Learning rate."""
    rounds: Count = 60
    """At most, for each cell."""
    seconds: Positive = 6.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/parametrizations")


def contestants(
    n: int, optimizer: str, lr: float
) -> dict[str, tuple[Callable[[], object], Callable[[], Tensor]]]:
    """Make a step and the weight of each."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(GRADIENTS, n, n, generator=generator) / (2 * n**0.5)  # of spectral norm about 1
    start = svdrot.special_orthogonalize(torch.randn(n, n, generator=generator))
    of_torch, riemannian = OPTIMIZERS[optimizer]
    found = {}
    for name in (*TORCH, *OURS, BARE):
        layer = nn.Linear(n, n, bias=False)
        with torch.no_grad():
            layer.weight.copy_(start)
        if name in TORCH:
            parametrizations.orthogonal(layer, "weight", name)
        elif name in OURS:
            svdrot.nn.orthogonal(layer, special=name == OURS[1])
        steps = (riemannian if name == BARE else of_torch)(layer.parameters(), lr=lr)
        found[name] = _step(layer, steps, gradients), lambda layer=layer: layer.weight.detach()
    return found


def _step(layer: nn.Linear, optimizer: torch.optim.Optimizer, gradients: Tensor) -> Callable[[], object]:
    turns = itertools.cycle(gradients)

    def step() -> None:
        optimizer.zero_grad()
        (layer.weight * next(turns)).sum().backward()
        optimizer.step()

    return step


def off(weight: Tensor) -> float:
    return (weight.mT @ weight - torch.eye(len(weight))).abs().max().item()


def run(config: Config) -> list[dict[str, Any]]:
    rows = []
    cells = list(itertools.product(config.threads, OPTIMIZERS, config.sizes))
    for threads, optimizer, n in tqdm(cells, unit="cell"):
        torch.set_num_threads(threads)
        made = contestants(n, optimizer, config.sgd if optimizer == "SGD" else config.adam)
        clock = process_time if threads == 1 else perf_counter
        calls = {name: step for name, (step, _) in made.items()}
        times, rounds = medians(calls, "cpu", config.rounds, config.seconds, clock)
        fastest = min(TORCH, key=lambda name: times[name])
        rows.append(
            {
                "n": n,
                "optimizer": optimizer,
                "threads": threads,
                "rounds": rounds,
                "seconds": times,
                "fastest": fastest,
                "ratio": {name: times[fastest] / times[name] for name in (*OURS, BARE)},
                "off": {name: off(weight()) for name, (_, weight) in made.items()},
            }
        )
    return rows


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Make a table for each optimizer and number of threads, in microseconds, and one of what is left."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        count = row["threads"]
        caption = f"{row['optimizer']}, {count} thread{'s' * (count > 1)}, microseconds for a step"
        line = {"n": row["n"]} | {name: 1e6 * t for name, t in row["seconds"].items()}
        line |= {f"torch's fastest over {name}": ratio for name, ratio in row["ratio"].items()}
        found.setdefault(caption, []).append(line)
        if count == min(r["threads"] for r in rows):
            caption = f"{row['optimizer']}: largest entry of |QᵀQ - I| in the end"
            found.setdefault(caption, []).append({"n": row["n"]} | row["off"])
    return found


def verdict(rows: list[dict[str, Any]]) -> str:
    text = ["Medians."]
    for threads in dict.fromkeys(row["threads"] for row in rows):
        own = [row for row in rows if row["threads"] == threads]
        behind = [f"n = {row['n']}, {row['optimizer']}" for row in own if row["ratio"][OURS[1]] < 1]
        least = min(row["ratio"][OURS[1]] for row in own)
        most = max(row["ratio"][OURS[1]] for row in own)
        holds = f"does not hold for {'; '.join(behind)}" if behind else "holds"
        text.append(
            f"On {threads} thread{'s' * (threads > 1)} the fastest map of torch takes {least:.3g} to "
            f"{most:.3g} times as long as `SpecialOrthogonal`, expected more than 1: **{holds}**."
        )
    return " ".join(text)


def figure(rows: list[dict[str, Any]]) -> Figure:
    panels = Figure(figsize=(10, 4), layout="constrained")
    axes = panels.subplots(1, len(OPTIMIZERS), sharey=True)
    first = min(row["threads"] for row in rows)
    for axis, optimizer in zip(axes, OPTIMIZERS, strict=True):
        own = [row for row in rows if row["optimizer"] == optimizer and row["threads"] == first]
        for color, name in zip(shared.figures.COLORS, (*TORCH, *OURS, BARE), strict=False):
            times = [1e6 * row["seconds"][name] for row in own]
            axis.loglog([row["n"] for row in own], times, "o-", color=color, label=name, markersize=4)
        axis.set(title=f"{optimizer}, {first} thread{'s' * (first > 1)}", xlabel="n")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("microseconds for a step")
    axes[0].legend(fontsize=8)
    return panels


def main(config: Config) -> None:
    rows = run(config)
    shared.results.write(config.out, config, tables(rows), figure(rows), verdict(rows), rows=rows)


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
