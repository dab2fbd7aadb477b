"""How far do methods without learning come where networks for the registration of objects are tested?

The protocols of DCP, PRNet and RPM-Net (`datasets.registration_pairs.PROTOCOLS`), and RPM-Net's partial one
with rotations drawn uniformly, on points of the surfaces of meshes instead of ModelNet40, in the unit ball.
Local methods start from the identity. Every method gets the same clouds, of about 1,000 points, and the same
distance of neighboring points, from which radii and voxels follow; open3d's global ones are refined by its
ICP on planes, as ours is by its own.

Expected. Fits to the true matches, which no method knows, are exact without noise of its own for each cloud,
and at about 0.1 degrees with it. Iterated closest points from the identity succeed in a part of the pairs
only, of clouds turned by up to 75 degrees, and are worst where parts are missing; planes in place of points
do not help them find, but are more accurate where they do. Features and a robust fit find nearly all pairs of
clean points; independent noise of 0.01, where points are 0.06 apart, spoils normals and so features, and
partial overlap takes a further share. What is found is then refined to a few tenths of a degree, as noise and
sampling allow whatever the angle was, so that rotations without limit should cost a global method nothing,
and a local one nearly everything. One of the meshes, a wing nut, looks almost the same after half a turn.

    python -m experiments.registration.registration_objects
    python -m experiments.registration.registration_objects --full

The first makes the published results with --out experiments/results/registration/registration_objects.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import svdrot
from datasets.registration_pairs import PROTOCOLS, ObjectPair, object_pairs
from experiments import shared
from experiments.shared.settings import Count, Out, Positive, Seed, Settings, Threads
from svdrot.evaluation.poses import (
    chamfer_distance,
    pose_recall,
    recall_curve,
    rotation_error,
    translation_error,
)
from svdrot.registration import Transform, kabsch
from svdrot.registration.clouds.global_registration import register
from svdrot.registration.clouds.icp import icp

open3d, kiss_matcher = shared.run.peer("open3d"), shared.run.peer("kiss_matcher")
peer = open3d.pipelines.registration
Cloud = Any


@dataclass(frozen=True)
class Config(Settings):
    pairs: Count = 64
    """Of each protocol."""
    spacing: Positive = 0.07
    """About the distance of neighboring points: 1,000 on a surface of area 5. Radii are multiples of it."""
    distance: Positive = 0.5
    """Of paired points in iterated closest points from the identity."""
    iterations: Count = 50
    rotation_limit: Positive = 5.0
    """Degrees; a pair is registered if both errors are below their limits."""
    translation_limit: Positive = 0.05
    seed: Seed = 0
    jobs: Threads = 2
    """Processes."""
    root: Path = Path("data/meshes")
    """With any number of meshes, *.obj."""
    out: Out = Path("runs/registration/registration_objects")


FULL = Config(pairs=600, out=Path("runs/registration/registration_objects-full"))
SHARE = 8  # pairs that a process takes at a time

Align = Callable[[ObjectPair, Config], Transform | NDArray]
"""The transform that a method finds, or its matrix (4, 4)."""


def true_matches(pair: ObjectPair, config: Config) -> Transform:
    i, j = pair.matches.unbind(1)
    return kabsch(pair.source[i], pair.target[j])


def identity(pair: ObjectPair, config: Config) -> Transform:
    return Transform.identity(dtype=torch.float64)


def _clouds(pair: ObjectPair, spacing: float) -> tuple[Cloud, Cloud]:
    """Give source and target normals."""
    vectors = open3d.utility.Vector3dVector
    source, target = (open3d.geometry.PointCloud(vectors(x.numpy())) for x in (pair.source, pair.target))
    for cloud in (source, target):
        cloud.estimate_normals(open3d.geometry.KDTreeSearchParamHybrid(2.5 * spacing, 30))
    return source, target


def _open3d_icp(method: str) -> Align:
    def align(pair: ObjectPair, config: Config) -> NDArray:
        source, target = _clouds(pair, config.spacing)
        criteria = peer.ICPConvergenceCriteria(max_iteration=config.iterations)
        found = peer.registration_icp(
            source, target, config.distance, np.eye(4), OPEN3D_ICP[method](), criteria
        )
        return found.transformation

    return align


OPEN3D_ICP = {
    "points": peer.TransformationEstimationPointToPoint,
    "planes": peer.TransformationEstimationPointToPlane,
}


def _features(source: Cloud, target: Cloud, spacing: float) -> tuple[Any, Any]:
    radius = open3d.geometry.KDTreeSearchParamHybrid(5 * spacing, 100)
    fpfh: Any = peer.compute_fpfh_feature  # open3d 0.20 declares an argument that may be left out as required
    return fpfh(source, radius), fpfh(target, radius)


def _refined(source: Cloud, target: Cloud, found: NDArray, config: Config) -> NDArray:
    criteria = peer.ICPConvergenceCriteria(max_iteration=config.iterations)
    near = 1.5 * config.spacing
    return peer.registration_icp(source, target, near, found, OPEN3D_ICP["planes"](), criteria).transformation


def open3d_ransac(pair: ObjectPair, config: Config) -> NDArray:
    """Run RANSAC as in open3d's tutorial: three points, edges alike to 0.9, 100,000 draws, 0.999 sure."""
    open3d.utility.random.seed(config.seed)
    source, target = _clouds(pair, config.spacing)
    of_source, of_target = _features(source, target, config.spacing)
    near = 1.5 * config.spacing
    checks = [
        peer.CorrespondenceCheckerBasedOnEdgeLength(0.9),
        peer.CorrespondenceCheckerBasedOnDistance(near),
    ]
    criteria = peer.RANSACConvergenceCriteria(100_000, 0.999)
    found = peer.registration_ransac_based_on_feature_matching(
        source, target, of_source, of_target, True, near, OPEN3D_ICP["points"](), 3, checks, criteria
    )
    return _refined(source, target, found.transformation, config)


def open3d_fgr(pair: ObjectPair, config: Config) -> NDArray:
    source, target = _clouds(pair, config.spacing)
    of_source, of_target = _features(source, target, config.spacing)
    option = peer.FastGlobalRegistrationOption(maximum_correspondence_distance=0.5 * config.spacing)
    found = peer.registration_fgr_based_on_feature_matching(source, target, of_source, of_target, option)
    return _refined(source, target, found.transformation, config)


def by_kiss_matcher(pair: ObjectPair, config: Config) -> NDArray:
    """Match by KISS-Matcher, with its voxel at the distance of neighbors, and refine by open3d's ICP."""
    matcher = kiss_matcher.KISSMatcher(kiss_matcher.KISSMatcherConfig(config.spacing))
    found = matcher.estimate(*(x.float().numpy() for x in (pair.source, pair.target)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.array(found.rotation), np.array(found.translation).ravel()
    return _refined(*_clouds(pair, config.spacing), matrix, config)


def _ours(method: str) -> Align:
    def align(pair: ObjectPair, config: Config) -> Transform:
        found = icp(
            pair.source,
            pair.target,
            max_distance=config.distance,
            method=method,
            max_iterations=config.iterations,
        )
        return found.transform

    return align


def ours_global(pair: ObjectPair, config: Config) -> Transform:
    return register(pair.source, pair.target, voxel=config.spacing, verdict=False).transform


METHODS: dict[str, Align] = {
    "nothing": identity,
    "Kabsch, true matches": true_matches,
    "open3d ICP, points": _open3d_icp("points"),
    "open3d ICP, planes": _open3d_icp("planes"),
    "ours ICP, points": _ours("point_to_point"),
    "ours ICP, planes": _ours("point_to_plane"),
    "open3d FPFH + RANSAC": open3d_ransac,
    "open3d FPFH + FGR": open3d_fgr,
    "KISS-Matcher + ICP": by_kiss_matcher,
    "ours, global": ours_global,
}
COLORS = dict(
    zip(
        METHODS,
        "#BBBBBB #000000 #56B4E9 #0072B2 #009E73 #117733 #E69F00 #CC79A7 #882255 #D55E00".split(),
        strict=True,
    )
)


def as_transform(found: Transform | NDArray) -> Transform:
    """Read a result; a method that returns nothing finite is taken to have left the source where it was."""
    if not isinstance(found, Transform):
        found = Transform.from_matrix(torch.tensor(found, dtype=torch.float64))
    finite = found.rotation.isfinite().all() and found.translation.isfinite().all()
    still = Transform.identity(dtype=torch.float64)
    found = found if finite else still
    return Transform(svdrot.special_orthogonalize(found.rotation), found.translation, still.scale)


def stacked(transforms: list[Transform]) -> Transform:
    fields = ((t.rotation, t.translation, t.scale) for t in transforms)
    return Transform(*(torch.stack(field) for field in zip(*fields, strict=True)))


def run(config: Config) -> dict[str, Any]:
    meshes = sorted(config.root.glob("*.obj"))
    with shared.data.reading(config.root, "meshes"):
        if not meshes:
            raise FileNotFoundError(f"no meshes *.obj in {config.root.resolve()}")
    rows: dict[str, Any] = {"summary": {name: [] for name in PROTOCOLS}, "errors": {}}
    found = everything(config)
    for protocol in PROTOCOLS:
        pairs = pairs_of(config, protocol, range(config.pairs))
        truth = stacked([pair.truth for pair in pairs])
        for name in METHODS:
            transforms = [found[protocol, name, k] for k in range(config.pairs)]
            chamfer = torch.stack([modified_chamfer(*both) for both in zip(pairs, transforms, strict=True)])
            errors = rotation_error(stacked(transforms), truth).rad2deg()
            rows["errors"][protocol, name] = errors
            row = summary(stacked(transforms), truth, errors, chamfer, config)
            rows["summary"][protocol].append({"method": name} | row)
    rows["meshes"] = by_mesh(rows, [mesh.stem for mesh in meshes], config)
    return rows


def everything(config: Config) -> dict[tuple[str, str, int], Transform]:
    """Collect what each method finds for each pair of each protocol, from a number of processes."""
    tasks = [(protocol, k) for protocol in PROTOCOLS for k in range(0, config.pairs, SHARE)]
    found: dict[tuple[str, str, int], Transform] = {}
    with closing(shared.run.in_parallel(partial(work, config), tasks, config.jobs)) as parts:
        for part in tqdm(parts, total=len(tasks), unit="share"):
            found |= {key: as_transform(matrix) for key, matrix in part.items()}
    return found


def work(config: Config, task: tuple[str, int]) -> Iterator[dict[tuple[str, str, int], NDArray]]:
    """Return matrices, of the `SHARE` pairs from one on: tensors would need a file handle each."""
    torch.set_num_threads(1)
    protocol, first = task
    found = {}
    indices = range(first, min(first + SHARE, config.pairs))
    for k, pair in zip(indices, pairs_of(config, protocol, indices), strict=True):
        for name, align in METHODS.items():
            found[protocol, name, k] = as_transform(align(pair, config)).matrix.numpy()
    yield found


def pairs_of(config: Config, protocol: str, indices: range) -> list[ObjectPair]:
    meshes = sorted(config.root.glob("*.obj"))
    return object_pairs(meshes, PROTOCOLS[protocol], indices, seed=config.seed)


def modified_chamfer(pair: ObjectPair, found: Transform) -> Tensor:
    whole = pair.surface
    return chamfer_distance(
        found.apply(pair.source), pair.target, found.apply(whole), pair.truth.apply(whole)
    )


def summary(
    found: Transform, truth: Transform, degrees: Tensor, chamfer: Tensor, config: Config
) -> dict[str, Any]:
    """Return isotropic errors, then those by axis of DCP, of Euler angles, R = Rx Ry Rz, not wrapped."""
    turn, step = math.radians(config.rotation_limit), config.translation_limit
    recall = pose_recall(found, truth, rotation=turn, translation=step).item()
    euler = [svdrot.matrix_to_euler(t.rotation, "XYZ").rad2deg() for t in (found, truth)]
    shift = translation_error(found, truth)
    return {
        "recall (%)": 100 * recall,
        "± (%)": 100 * math.sqrt(recall * (1 - recall) / len(degrees)),
        "median (degrees)": degrees.quantile(0.5).item(),
        "90 % (degrees)": degrees.quantile(0.9).item(),
        "mean (degrees)": degrees.mean().item(),
        "mean shift": shift.mean().item(),
        "by axis: MAE (degrees)": (euler[0] - euler[1]).abs().mean().item(),
        "RMSE (degrees)": (euler[0] - euler[1]).square().mean().sqrt().item(),
        "MAE of shift": (found.translation - truth.translation).abs().mean().item(),
        "Chamfer / 1e-3": 1e3 * chamfer.mean().item(),
    }


def by_mesh(rows: dict[str, Any], names: list[str], config: Config) -> list[dict[str, Any]]:
    """Return the share of angles below the limit for each mesh, in the last protocol."""
    last = list(PROTOCOLS)[-1]
    index = torch.arange(config.pairs) % len(names)
    table = []
    for name in METHODS:
        below = (rows["errors"][last, name] < config.rotation_limit).double()
        table.append(
            {"method": name} | {mesh: 100 * below[index == k].mean().item() for k, mesh in enumerate(names)}
        )
    return table


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(13, 7.6), layout="constrained")
    axes = panels.subplots(2, 3, sharex=True, sharey=True)
    degrees = torch.logspace(-2, math.log10(180), 300, dtype=torch.float64)
    for axis, protocol in zip(axes.flat, PROTOCOLS, strict=True):
        for name, color in COLORS.items():
            curve = 100 * recall_curve(rows["errors"][protocol, name], degrees)
            axis.semilogx(
                degrees, curve, color=color, lw=1.3, ls="-" if "open3d" not in name else "--", label=name
            )
        axis.set(title=protocol, xlim=(0.01, 180), ylim=(0, 102))
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("threshold (degrees)")
    for axis in axes[:, 0]:
        axis.set_ylabel("pairs below (%)")
    axes[0, 0].legend(fontsize=8, loc="upper left")
    return panels


def verdict(rows: dict[str, Any]) -> str:
    of = {(name, row["method"]): row for name, table in rows["summary"].items() for row in table}
    recall = {key: row["recall (%)"] for key, row in of.items()}
    clean, _, prnet, noisy, part, anyhow = PROTOCOLS
    local = [name for name in METHODS if "ICP" in name]
    found = ["open3d FPFH + RANSAC", "open3d FPFH + FGR", "ours, global"]
    own = [of[name, "Kabsch, true matches"]["mean (degrees)"] for name in (prnet, noisy, part, anyhow)]
    exact = max(of[name, "Kabsch, true matches"]["mean (degrees)"] for name in list(PROTOCOLS)[:2])
    medians = [of[name, method]["median (degrees)"] for name in (noisy, part) for method in found]

    def listed(methods: list[str], protocol: str) -> str:
        return ", ".join(f"{recall[protocol, name]:.0f}" for name in methods)

    worst = all(recall[part, name] == min(recall[p, name] for p in list(PROTOCOLS)[:5]) for name in local)
    lower = all(recall[clean, name] >= recall[noisy, name] >= recall[part, name] for name in found)
    free = max(recall[part, name] - recall[anyhow, name] for name in found)
    return (
        f"True matches give {exact:.0e} degrees without own noise ({_met(exact < 1e-6)}, exact), and"
        f" {min(own):.2f} to {max(own):.2f} with it ({_met(0.05 < min(own) and max(own) < 0.2)}, about 0.1)."
        f" From the identity, {'; '.join(local)} register {listed(local, clean)} % of clean pairs"
        f" ({_met(max(recall[clean, name] for name in local) < 90)}, a part only), {listed(local, noisy)} %"
        f" with noise and {listed(local, part)} % where parts are missing ({_met(worst)}, fewest), and"
        f" {listed(local, anyhow)} % of any rotation"
        f" ({_met(max(recall[anyhow, name] for name in local) < 10)}, hardly any). Globally,"
        f" {'; '.join(found)} register {listed(found, clean)} % of clean pairs"
        f" ({_met(min(recall[clean, name] for name in found) > 95)}, nearly all), {listed(found, noisy)} %"
        f" with noise and {listed(found, part)} % where parts are missing ({_met(lower)}, each time fewer or"
        f" as many), and {listed(found, anyhow)} % of any rotation: {free:.0f} points fewer at most"
        f" ({_met(free < 15)}, no cost, as far as {len(rows['errors'][part, found[0]])} pairs tell). Their"
        f" medians with noise and in part are {min(medians):.2f} to {max(medians):.2f} degrees"
        f" ({_met(max(medians) < 0.6)}, a few tenths)."
    )


def _met(holds: bool) -> str:
    return "as expected" if holds else "**not** as expected"


def main(config: Config) -> None:
    rows = run(config)
    limits = f"{config.rotation_limit:g} degrees and {config.translation_limit:g}"
    tables = {
        f"{name}: {config.pairs} pairs, recall below {limits}": table
        for name, table in rows["summary"].items()
    } | {
        f"{list(PROTOCOLS)[-1]}: angles below {config.rotation_limit:g} degrees (%), by mesh": rows["meshes"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__, {"--full": FULL})
