"""How long does ICP take beside Open3D and small_gicp, and where does it end?

Two pairs of scans, from the identity: two revolutions of a laser scanner 0.7 degrees and 0.5 m apart, and two
fragments of a kitchen 50 degrees and 1.5 m apart. Beside Open3D: the same clouds, as they are and averaged in
voxels, the same normals and distances, thirty iterations without a test of convergence. Beside small_gicp's
GICP: from the raw clouds, with the same voxel, distance, ten neighbors, tolerances (0.1 degrees, 1 mm) and
at most twenty iterations, all of the preparation included. All contestants take turns, in one process for
each number of threads, which has as many processors: part of Open3D asks the machine and not its caller.

Expected: no slower than Open3D in any case, and within three times small_gicp's time with one thread. Over
scales, ours at most 0.5 degrees and 2 cm from the truth of the kitchen, 0.3 degrees and 4 cm from that of the
scanner, whose own poses are no better than 0.2 degrees.

    python -m experiments.benchmarks.icp            five minutes on two cores

It makes the published results with --out experiments/results/benchmarks/icp.
"""

import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import svdrot
from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Settings, Threads
from experiments.shared.timing import medians
from svdrot.io.points import read_points
from svdrot.registration import Transform
from svdrot.registration.clouds.icp import METHODS, icp

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Config(Settings):
    root: Path = Path("data/registration")
    """The folders lidar_small_gicp and kitchen_3dmatch_0_1."""
    threads: tuple[Threads, ...] = (1, 2)
    iterations: Count = 30
    """Beside Open3D."""
    rounds: Count = 9
    """At most, for each case."""
    seconds: Positive = 12.0
    """After which no new round begins; there are at least three."""
    out: Out = Path("runs/benchmarks/icp")


@dataclass(frozen=True)
class Pair:
    name: str
    source: torch.Tensor
    target: torch.Tensor
    truth: Transform
    voxel: float
    distance: float
    scales: tuple[tuple[float, float, int], ...]


def pairs(root: Path) -> list[Pair]:
    """Read the LiDAR pair and the kitchen."""
    scanner, kitchen = root / "lidar_small_gicp", root / "kitchen_3dmatch_0_1"
    with shared.data.reading(root, "registration"):
        source, target = (read_points(scanner / f"{name}.ply") for name in ("source", "target"))
        with np.load(kitchen / "pair_voxel1cm.npz") as file:
            first, second = (torch.from_numpy(file[name]).double() for name in ("src", "ref"))
    return [
        Pair(
            "LiDAR",
            source,
            target,
            _truth(scanner / "T_target_source.txt"),
            0.25,
            1.0,
            ((1.0, 2.0, 20), (0.5, 1.0, 20), (0.25, 0.5, 20)),
        ),
        Pair(
            "kitchen",
            first,
            second,
            _truth(kitchen / "T_ref_src.txt"),
            0.05,
            0.3,
            ((0.1, 0.6, 30), (0.05, 0.3, 30), (0.025, 0.1, 20)),
        ),
    ]


def _truth(file: Path) -> Transform:
    matrix = torch.from_numpy(np.loadtxt(file))
    return Transform(svdrot.special_orthogonalize(matrix[:3, :3]), matrix[:3, 3], torch.ones(()).double())


def errors(matrix: Any, truth: Transform) -> str:
    """Measure the errors in degrees and centimeters."""
    found = torch.as_tensor(np.asarray(matrix))
    angle = svdrot.geodesic_distance(svdrot.special_orthogonalize(found[:3, :3]), truth.rotation)
    return f"{math.degrees(angle):.2f} deg, {100 * (found[:3, 3] - truth.translation).norm():.1f} cm"


def beside_open3d(pair: Pair, config: Config, threads: int) -> Rows:
    open3d = shared.run.peer("open3d")
    estimations = open3d.pipelines.registration
    peers = {
        "point_to_point": estimations.TransformationEstimationPointToPoint(),
        "point_to_plane": estimations.TransformationEstimationPointToPlane(),
    }
    raw = [
        open3d.geometry.PointCloud(open3d.utility.Vector3dVector(x.numpy()))
        for x in (pair.source, pair.target)
    ]
    rows = []
    for clouds, name in ((raw, "raw"), ([x.voxel_down_sample(pair.voxel) for x in raw], "voxels")):
        clouds[1].estimate_normals(open3d.geometry.KDTreeSearchParamKNN(20))
        arrays = (clouds[0].points, clouds[1].points, clouds[1].normals)
        source, target, normals = (torch.from_numpy(np.asarray(x).copy()) for x in arrays)
        for method, peer in peers.items():

            def ours(method: str = method, source=source, target=target, normals=normals) -> Any:
                return icp(
                    source,
                    target,
                    max_distance=pair.distance,
                    method=method,
                    max_iterations=config.iterations,
                    angle_tolerance=0,
                    length_tolerance=0,
                    target_normals=normals,
                )

            def theirs(peer: Any = peer, clouds=clouds) -> Any:
                criteria = estimations.ICPConvergenceCriteria(0, 0, config.iterations)
                return estimations.registration_icp(*clouds, pair.distance, np.eye(4), peer, criteria)

            calls: dict[str, Callable[[], object]] = {"ours": ours, "Open3D": theirs}
            times, _ = medians(calls, "cpu", config.rounds, config.seconds)
            rows.append(
                {
                    "pair": pair.name,
                    "clouds": f"{name}, {len(source):,}",
                    "method": method,
                    "threads": threads,
                    "ours ms": 1e3 * times["ours"],
                    "Open3D ms": 1e3 * times["Open3D"],
                    "Open3D / ours": times["Open3D"] / times["ours"],
                    "ours": errors(ours().transform.matrix, pair.truth),
                    "Open3D": errors(theirs().transformation, pair.truth),
                }
            )
    return rows


def beside_small_gicp(pair: Pair, config: Config, threads: int) -> Rows:
    small_gicp = shared.run.peer("small_gicp")
    source, target = pair.source.numpy(), pair.target.numpy()

    def ours() -> Any:
        return icp(
            pair.source,
            pair.target,
            scales=[(pair.voxel, pair.distance, 20)],
            method="generalized",
            neighbors=10,
            angle_tolerance=math.radians(0.1),
            length_tolerance=1e-3,
        )

    def theirs() -> Any:
        return small_gicp.align(
            target,
            source,
            downsampling_resolution=pair.voxel,
            max_correspondence_distance=pair.distance,
            num_threads=threads,
        )

    times, _ = medians({"ours": ours, "small_gicp": theirs}, "cpu", 4 * config.rounds, config.seconds)
    mine, other = ours(), theirs()
    return [
        {
            "pair": pair.name,
            "threads": threads,
            "ours ms": 1e3 * times["ours"],
            "small_gicp ms": 1e3 * times["small_gicp"],
            "ours / small_gicp": times["ours"] / times["small_gicp"],
            "ours": errors(mine.transform.matrix, pair.truth),
            "small_gicp": errors(other.T_target_source, pair.truth),
            "iterations": f"{mine.iterations}, {other.iterations + 1}",
        }
    ]


def over_scales(pair: Pair) -> Rows:
    rows = []
    for method in METHODS:
        result = icp(pair.source, pair.target, scales=pair.scales, method=method)
        rows.append(
            {
                "pair": pair.name,
                "method": method,
                "from the truth": errors(result.transform.matrix, pair.truth),
                "iterations": int(result.iterations),
                "fitness": result.fitness.item(),
                "rmse": result.rmse.item(),
                "ended": result.reasons[0],
            }
        )
    return rows


def measure(config: Config, threads: int) -> tuple[Rows, Rows]:
    torch.set_num_threads(threads)
    both = pairs(config.root)
    return (
        [row for pair in both for row in beside_open3d(pair, config, threads)],
        [row for pair in both for row in beside_small_gicp(pair, config, threads)],
    )


def on_processors(count: int) -> None:
    """Keep this process, and whatever threads its libraries start, on so many processors."""
    if hasattr(os, "sched_setaffinity"):  # on Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def run(config: Config) -> dict[str, Rows]:
    both = pairs(config.root)
    icps, gicps = [], []
    context = multiprocessing.get_context("spawn")
    for threads in config.threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # which Open3D reads when it is loaded
        with shared.run.deaf_to_interrupts():
            pool = context.Pool(1, on_processors, (threads,))
        with pool:
            found = pool.apply(measure, (config, threads))
        icps += found[0]
        gicps += found[1]
    return {
        "Iterations without a test of convergence, beside Open3D": icps,
        "GICP beside small_gicp, from raw clouds": gicps,
        "Ours over scales": [row for pair in both for row in over_scales(pair)],
    }


def figure(tables: dict[str, Rows]) -> Figure:
    drawing = Figure(figsize=(10, 4.2), layout="constrained")
    icps, gicps, _ = tables.values()
    left, right = drawing.subplots(1, 2, width_ratios=(2.4, 1))
    for axis, rows, peer in ((left, icps, "Open3D"), (right, gicps, "small_gicp")):
        names = ("pair", "clouds", "method")
        labels = [
            ", ".join([*(row[name] for name in names if name in row), f"threads: {row['threads']}"])
            for row in rows
        ]
        places = np.arange(len(rows))
        axis.barh(places - 0.2, [row["ours ms"] for row in rows], 0.4, color="#0072B2", label="svdrot")
        axis.barh(places + 0.2, [row[f"{peer} ms"] for row in rows], 0.4, color="#E69F00", label=peer)
        axis.set(
            xscale="log" if axis is left else "linear",
            xlabel="milliseconds",
            yticks=places,
            title=f"beside {peer}",
        )
        axis.set_yticklabels(labels, fontsize=6)
        axis.set_xlim(left=1 if axis is left else 0)
        axis.invert_yaxis()
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    return drawing


def verdict(tables: dict[str, Rows]) -> str:
    icps, gicps, _ = tables.values()
    ratios = [row["Open3D / ours"] for row in icps]
    slower = [row for row in icps if row["Open3D / ours"] < 1]
    single = max(row["ours / small_gicp"] for row in gicps if row["threads"] == 1)
    cases = "; ".join(f"{r['pair']}, {r['clouds']}, {r['method']}, {r['threads']} threads" for r in slower)
    return (
        f"ICP takes {min(ratios):.2g} to {max(ratios):.2g} times less than Open3D (expected: at least 1)"
        + (f", less than 1 in: {cases}. " if slower else ". ")
        + f"GICP takes at most {single:.2g} times small_gicp's time with one thread (expected: 3)."
    )


def main(config: Config) -> None:
    tables = run(config)
    shared.results.write(config.out, config, tables, figure(tables), verdict(tables))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
