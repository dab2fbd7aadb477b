"""How fast are the maps of one rotation at a time, and a head with its loss?

Conversions, the geodesic distance, and nearest rotation with geodesic distance and mean, forward and forward
+ backward, through the public functions with all their checks; against roma 1.8.0's functions, the same
compiled by `torch.compile` for each batch size (inductor; "roma, compiled"), ours under `torch.compile`, and
for few pairs of points `kabsch` against roma's registration. All contestants take turns within each round;
medians over the rounds, and ratios of medians. Also the time of compiling: what the first call of a map
costs, and how long `torch.compile` takes for roma's.

Expected, on two cores, against roma: conversions 6 to 60 times faster forward and 4 to 20 with backward, the
distance 1.2 to 5 and 1.3 to 3, the head with its loss 12 to 100; and faster than compiled roma everywhere.

    python -m experiments.benchmarks.maps            twenty minutes on two cores, most of it torch.compile
    python -m experiments.benchmarks.maps --no-compiled

It makes the published results with --out experiments/results/benchmarks/maps.
"""

import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import roma
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Settings
from experiments.shared.statistics import holds
from experiments.shared.timing import medians

PASSES = ("forward", "forward + backward")
OURS, ROMA = "svdrot", "roma"


@dataclass(frozen=True)
class Config(Settings):
    batches: tuple[Count, ...] = (1, 64, 4096, 65536)
    """Rotations in a call."""
    pairs: tuple[Count, ...] = (3, 4, 8)
    """Of points in a cloud."""
    clouds: Count = 65536
    """In a call."""
    compiled: bool = True
    """Whether roma compiled by torch.compile takes part: it takes 4 to 30 s for each cell."""
    rounds: Count = 100
    """At most, for each cell."""
    seconds: Positive = 2.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/maps")


def rotations(batch: int) -> Tensor:
    return svdrot.random_rotation(batch, generator=torch.Generator().manual_seed(batch))


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


def head_by_roma(raw: Tensor, truth: Tensor) -> Tensor:
    return roma.rotmat_geodesic_distance(roma.special_procrustes(raw.unflatten(-1, (3, 3))), truth).mean()


Case = tuple[Callable[[int], list[Tensor]], Callable[..., Tensor], Callable[..., Tensor]]
CASES: dict[str, Case] = {
    "geodesic_distance": (
        lambda n: [rotations(n), rotations(n).roll(1, 0)],
        svdrot.geodesic_distance,
        roma.rotmat_geodesic_distance,
    ),
    "quaternion_to_matrix": (
        lambda n: [torch.nn.functional.normalize(numbers(n, 4), dim=-1)],
        svdrot.quaternion_to_matrix,
        lambda q: roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(q)),
    ),
    "matrix_to_quaternion": (
        lambda n: [rotations(n)],
        svdrot.matrix_to_quaternion,
        lambda m: roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(m)),
    ),
    "axis_angle_to_matrix": (lambda n: [numbers(n, 3)], svdrot.axis_angle_to_matrix, roma.rotvec_to_rotmat),
    "matrix_to_axis_angle": (lambda n: [rotations(n)], svdrot.matrix_to_axis_angle, roma.rotmat_to_rotvec),
    "rotation_6d_to_matrix": (
        lambda n: [numbers(n, 6)],
        svdrot.rotation_6d_to_matrix,
        lambda x: roma.special_gramschmidt(x.unflatten(-1, (2, 3)).mT),
    ),
    "svd head, geodesic loss, mean": (
        lambda n: [numbers(n, 9), rotations(n)],
        svdrot.nn.RotationLoss("svd", "geodesic"),
        head_by_roma,
    ),
}


def contestants(case: Case, batch: int, which: str, compiled: bool) -> dict[str, Callable[[], object]]:
    make, ours, theirs = case
    functions = {OURS: ours, ROMA: theirs}
    if compiled:
        torch._dynamo.reset()
        functions["svdrot, compiled"] = torch.compile(ours, dynamic=False)
        if theirs is not head_by_roma:  # whose SVD inductor leaves as it is
            functions["roma, compiled"] = torch.compile(theirs, dynamic=False)
    inputs = make(batch)
    calls: dict[str, Callable[[], object]] = {}
    for name, f in functions.items():
        if which == "forward":
            calls[name] = lambda f=f: f(*inputs)
        else:
            x = [t.clone().requires_grad_() for t in inputs[: 1 if theirs is head_by_roma else None]]
            rest = inputs[len(x) :]
            weight = torch.ones_like(f(*inputs))
            calls[name] = lambda f=f, x=x, rest=rest, weight=weight: torch.autograd.grad(
                f(*x, *rest), x, weight
            )
    return calls


def run(config: Config) -> list[dict]:
    rows = []
    cells = [(name, batch, which) for name in CASES for batch in config.batches for which in PASSES]
    for name, batch, which in tqdm(cells, unit="cell"):
        calls = contestants(CASES[name], batch, which, config.compiled)
        first = {}
        for contestant, call in calls.items():
            start = perf_counter()
            call()
            first[contestant] = perf_counter() - start
        times, rounds = medians(calls, "cpu", config.rounds, config.seconds)
        rows.append(
            {
                "map": name,
                "batch": batch,
                "pass": which,
                "rounds": rounds,
                "seconds": times,
                "first call": first,
            }
        )
    return rows


def clouds(config: Config) -> list[dict]:
    """Time the weighted alignment of many clouds of few points."""
    rows = []
    for pairs in tqdm(config.pairs, unit="cloud size"):
        shape = config.clouds, pairs
        x, y = numbers(*shape, 3), numbers(*shape, 3).roll(1, 0)
        w = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        given = numbers(config.clouds, 3, 3), numbers(config.clouds, 3)
        z = [t.clone().requires_grad_() for t in (x, y, w)]

        def ours(x, y, w):
            found = svdrot.registration.kabsch(x, y, w)
            return found.rotation, found.translation

        functions = {OURS: ours, ROMA: roma.rigid_points_registration}
        forward = {name: lambda f=f, v=(x, y, w): f(*v) for name, f in functions.items()}
        backward = {
            name: lambda f=f, z=z, g=given: torch.autograd.grad(f(*z), z, g) for name, f in functions.items()
        }
        for which, calls in zip(PASSES, (forward, backward), strict=True):
            times, rounds = medians(calls, "cpu", config.rounds, config.seconds)
            rows.append(
                {"pairs": pairs, "clouds": config.clouds, "pass": which, "rounds": rounds, "seconds": times}
            )
    return rows


STARTUP = """
import time, torch
start = time.perf_counter()
import svdrot
m = torch.randn(64, {sides}, requires_grad=True)
imported = time.perf_counter()
r = svdrot.{function}(m)
first = time.perf_counter()
r.sum().backward()
print(imported - start, first - imported, time.perf_counter() - first)
"""


def startup() -> dict[str, dict[str, float]]:
    """Time a new process, with torch loaded, until its first calls are done, in seconds; nothing of them
    is on disk.
    """
    found = {}
    for function, sides in (
        ("special_orthogonalize", "3, 3"),
        ("quaternion_to_matrix", "4"),
        ("axis_angle_to_matrix", "3"),
    ):
        command = [sys.executable, "-c", STARTUP.format(function=function, sides=sides)]
        runs = [
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout for _ in range(5)
        ]
        times = zip(*(map(float, line.split()) for line in runs), strict=True)
        found[function] = dict(zip(("import", "first call", "first backward"), map(min, times), strict=True))
    return found


def tables(
    rows: list[dict[str, Any]], few: list[dict[str, Any]], start: dict[str, dict[str, float]]
) -> dict[str, list[dict[str, Any]]]:
    """Make tables of the maps for each pass, of the clouds, and of new processes."""
    found: dict[str, list[dict[str, Any]]] = {f"{which}, microseconds": [] for which in PASSES}
    for row in rows:
        line = {"map": row["map"], "batch": row["batch"]} | _times(row["seconds"], 1e6)
        found[f"{row['pass']}, microseconds"].append(line)
    batch = f"{few[0]['clouds']:,} " if few else ""
    found[f"weighted alignment of {batch}clouds, milliseconds"] = [
        {"pairs": row["pairs"], "pass": row["pass"]} | _times(row["seconds"], 1e3) for row in few
    ]
    found["a new process with torch loaded, milliseconds"] = [
        {"function": function} | {name: 1e3 * t for name, t in times.items()}
        for function, times in start.items()
    ]
    return {caption: table for caption, table in found.items() if table}


def _times(seconds: dict[str, float], scale: float) -> dict[str, float]:
    """Return the times of all in other units, and how many times faster svdrot is than the others."""
    ratios = {f"{name} / {OURS}": t / seconds[OURS] for name, t in seconds.items() if name != OURS}
    return {name: scale * t for name, t in seconds.items()} | ratios


# Times faster than roma: the least that was expected, forward and with backward.
EXPECTED = {"conversions": (6, 4), "geodesic_distance": (1.2, 1.3), "svd head, geodesic loss, mean": (12, 12)}


def verdict(rows: list[dict[str, Any]]) -> str:
    text = ["Medians; the ratios say how many times faster svdrot is."]
    text += [f"{torch.get_num_threads()} threads; {', '.join(f'{k} {v}' for k, v in versions().items())}."]
    for kind, least in EXPECTED.items():
        for which, wanted in zip(PASSES, least, strict=True):
            ratios = [
                row["seconds"][ROMA] / row["seconds"][OURS]
                for row in rows
                if row["pass"] == which and kind == (row["map"] if row["map"] in EXPECTED else "conversions")
            ]
            between = f"{min(ratios):.3g} to {max(ratios):.3g}"
            text.append(
                f"{kind}, {which}: {between} times faster than roma, {wanted} at least expected."
                f" {holds(min(ratios) >= wanted)}"
            )
    compiled = [row["seconds"] for row in rows if "roma, compiled" in row["seconds"]]
    ahead = sum(times["roma, compiled"] < times[OURS] for times in compiled)
    if compiled:
        text.append(
            f"Compiled roma is ahead in {ahead} of {len(compiled)} cells, none expected. {holds(not ahead)}"
        )
    return " ".join(text)


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "roma", "llvmlite", "numpy")}


def figure(rows: list[dict[str, Any]]) -> Figure:
    panels = Figure(figsize=(11, 4), layout="constrained")
    axes = panels.subplots(1, 2, sharey=True)
    for axis, which in zip(axes, PASSES, strict=True):
        for name in CASES:
            points = [
                (row["batch"], row["seconds"][ROMA] / row["seconds"][OURS])
                for row in rows
                if (row["map"], row["pass"]) == (name, which)
            ]
            axis.loglog(*zip(*points, strict=True), "o-", label=name, markersize=4)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_title(which)
        axis.set_xlabel("rotations in the batch")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("times faster than roma")
    axes[1].legend(fontsize=7)
    return panels


def main(config: Config) -> None:
    warnings.filterwarnings("ignore", module="torch")
    start, few, rows = startup(), clouds(config), run(config)
    exact = {"threads": torch.get_num_threads(), "versions": versions(), "startup": start, "rows": rows}
    shared.results.write(
        config.out, config, tables(rows, few, start), figure(rows), verdict(rows), **exact, clouds=few
    )


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
