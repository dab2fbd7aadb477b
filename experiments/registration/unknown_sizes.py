"""Does `register(scale=True)` find how much larger the target is than the source, and when is it sure?

Two kinds of pairs, with factors from 0.001 to 1,000 and of a few per cent, by turns. "whole" and "70 %": two
samples of one object (meshes, blobs, assemblies, tubes) of 800 to 2,500 points, of which in the latter each
shows 70 % to the other. A size is right within 1 %, a rotation within 2 degrees. And pairs of the battery of
`verdict_battery`, of every kind but resized ones, which are no longer wrong: there a pose is right if the
source's points are within 3 % of the size of where they belong, modulo symmetries and free motions.

Expected: right in all whole pairs and at least 95 % of the others; of different and mirrored things, of
which a size more could fit by chance, none "aligned", and at most 1 % of all pairs "aligned" where the pose
is wrong.

    python -m experiments.registration.unknown_sizes --meshes data/meshes

makes the published results with --out experiments/results/registration/unknown_sizes.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.registration import _verdict_pairs as battery
from experiments.registration import _verdict_shapes as shapes
from experiments.registration._verdict_shapes import Array
from experiments.shared.settings import Amount, Count, Out, Settings
from svdrot.registration import GlobalRegistration, register

FACTORS = 1e-3, 1e-2, 0.3, 1.05, 0.95, 3.0, 25.4, 1e3
OVERLAPS = {"whole": 1.0, "70 %": 0.7}
NOISE = 0.0, 0.001, 0.003
SIZE, DEGREES, NEAR = 0.01, 2.0, 0.03


@dataclass(frozen=True)
class Config(Settings):
    objects: Count = 56
    """Pairs of each overlap."""
    pairs: Amount = 115
    """Of the battery."""
    first: Amount = 90_000
    """Number of the first of these."""
    meshes: Path = Path("data/meshes")
    """With meshes *.obj; may be missing."""
    out: Out = Path("runs/registration/unknown_sizes")

    @property
    def folder(self) -> Path | None:
        found = all((self.meshes / f"{name}.obj").is_file() for name in shapes.ALL)
        return self.meshes if found else None


def drawn(number: int, overlap: float, meshes: Path | None) -> tuple[str, Array, Array, Array, float]:
    """Draw a pair: the name of the shape, source, target, true rotation and factor."""
    random = np.random.default_rng([77, number])
    shape = shapes.thing(random, meshes)
    counts, noise = random.integers(800, 2500, 2), random.choice(NOISE)
    axis = random.normal(size=3)
    a, b = (shape.sample(6 * int(count), random) for count in counts)
    share = 0.5 * overlap / (1 - overlap / 2)
    border = np.quantile(b @ axis, (0.5 + share / 2, 0.5 - share / 2))
    seen = a[a @ axis <= border[0]], b[b @ axis >= border[1]]
    if overlap == 1:
        seen = a, b
    a, b = (x[random.permutation(len(x))[: int(n)]] for x, n in zip(seen, counts, strict=True))
    a, b = (x + noise * random.normal(size=x.shape) for x in (a, b))
    place, turn = shapes.random_rotation(random), shapes.random_rotation(random)
    factor = FACTORS[number % len(FACTORS)]
    return shape.name, a @ place.T / factor, b @ turn.T + random.uniform(-1, 1, 3), turn @ place.T, factor


def timed(source: Array, target: Array) -> tuple[GlobalRegistration, float]:
    begin = time.process_time()
    clouds = (torch.from_numpy(np.ascontiguousarray(x)) for x in (source, target))
    found = register(*clouds, scale=True)
    return found, time.process_time() - begin


def run(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each pair of objects, and for each of the battery."""
    torch.set_num_threads(1)
    objects = [
        of_object(number, name, config.folder)
        for name in OVERLAPS
        for number in tqdm(range(config.objects), desc=name, unit="pair")
    ]
    last = config.first + config.pairs
    numbers = [(i, kind) for i, kind in enumerate(battery.kinds(last)) if i >= config.first]
    others = [
        of_battery(i, kind, config.folder)
        for i, kind in tqdm(numbers, desc="battery", unit="pair")
        if kind != "scaled"
    ]
    return objects, others


def of_object(number: int, overlap: str, meshes: Path | None) -> dict[str, Any]:
    name, source, target, rotation, factor = drawn(number, OVERLAPS[overlap], meshes)
    found, seconds = timed(source, target)
    assert found.verdict is not None
    turn = svdrot.geodesic_distance(found.transform.rotation, torch.from_numpy(rotation))
    return {
        "overlap": overlap,
        "shape": name,
        "factor": factor,
        "size": abs(found.transform.scale.item() / factor - 1),
        "degrees": math.degrees(turn.item()),
        "answer": found.verdict.answer,
        "seconds": seconds,
    }


def is_right(row: dict[str, Any]) -> bool:
    return row["size"] < SIZE and row["degrees"] < DEGREES


def of_battery(number: int, kind: str, meshes: Path | None) -> dict[str, Any]:
    pair = battery.make(kind, number, meshes)
    factor = FACTORS[number % len(FACTORS)]
    found, seconds = timed(pair.source / factor, pair.target)
    assert found.verdict is not None
    pose = found.transform.matrix.numpy()
    pose[:3, :3] /= factor  # of the source as it was
    answer = found.verdict.answer
    return {"kind": kind, "error": pair.error(pose), "answer": answer, "seconds": seconds}


def tables(objects: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_overlap, by_kind = [], []
    for overlap in OVERLAPS:
        rows = [row for row in objects if row["overlap"] == overlap]
        right = [row for row in rows if is_right(row)]
        by_overlap.append(
            {
                "overlap": overlap,
                "pairs": len(rows),
                "right": len(right),
                "right and aligned": sum(row["answer"] == "aligned" for row in right),
                "wrong and aligned": sum(row["answer"] == "aligned" and not is_right(row) for row in rows),
                "size off, median (%)": 100 * float(np.median([row["size"] for row in rows])),
                "rotation off, median (degrees)": float(np.median([row["degrees"] for row in rows])),
                "seconds": float(np.median([row["seconds"] for row in rows])),
            }
        )
    for kind in dict.fromkeys(row["kind"] for row in others):
        rows = [row for row in others if row["kind"] == kind]
        counts = Counter((row["error"] < NEAR, row["answer"]) for row in rows)
        by_kind.append(
            {"kind": kind, "pairs": len(rows)}
            | {
                f"{'right' if right else 'wrong'}, {answer}": counts[right, answer]
                for right in (True, False)
                for answer in ("aligned", "free", "ambiguous", "doubtful")
            }
        )
    return {"Objects": by_overlap, "Battery": by_kind}


def figure(objects: list[dict[str, Any]]) -> Figure:
    panels = Figure(figsize=(6, 4), layout="constrained")
    axis = panels.subplots()
    for overlap, color in zip(OVERLAPS, (shared.figures.BLUE, shared.figures.VERMILLION), strict=True):
        values = sorted(100 * max(row["size"], 1e-7) for row in objects if row["overlap"] == overlap)
        share = (np.arange(len(values)) + 0.5) / len(values)
        axis.semilogx(values, 100 * share, color=color, label=overlap)
    axis.axvline(100 * SIZE, color="black", lw=0.8)
    axis.set(xlabel="error of the size (%)", ylabel="pairs below (%)", ylim=(0, 102))
    axis.legend()
    return panels


def main(config: Config) -> None:
    with shared.run.alone_in(config.out):
        objects, others = run(config)
    whole, part = ([is_right(row) for row in objects if row["overlap"] == name] for name in OVERLAPS)
    sure = sum(row["answer"] == "aligned" and not row["error"] < NEAR for row in others)
    lost = sum(row["answer"] == "aligned" and row["kind"] in battery.WITHOUT for row in others)
    holds = all(whole) and np.mean(part) >= 0.95 and lost == 0 and sure <= 0.01 * len(others)
    said = (
        f"Right are {sum(whole)} of {len(whole)} whole pairs, and {sum(part)} of {len(part)} of which each "
        f"shows 70 % to the other. Of {len(others)} pairs of the battery {sure} are aligned and wrong. "
        f"{shared.statistics.holds(bool(holds))}"
    )
    if config.folder is None:
        said += " There were no meshes: objects are blobs, assemblies and tubes."
    shared.results.write(config.out, config, tables(objects, others), figure(objects), said)


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
