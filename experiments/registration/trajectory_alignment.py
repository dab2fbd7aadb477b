"""How far are two trajectories of KITTI 00 from the truth, and does it matter how they are aligned to it?

ORB-SLAM2 (stereo) and S-PTAM, 4,541 poses each, against the ground truth, as they come with the program `evo`
(https://github.com/MichaelGrupp/evo, folder test/data).

Expected, to the digits given: root mean square errors of position after the best rigid alignment of
1.3034497145650266 m and 3.738487907582613 m, and over pairs 10 m apart of 0.22626134 m and 0.27607109 m,
which `evo` publishes; over stretches of 100 to 800 m 0.6997 % and 0.2533 degrees per 100 m, 1.4870 % and
0.5577, by the development kit of KITTI. The best scale should be within a per cent of 1, these being stereo,
and change errors little; aligning the first poses alone, which here are equal as they come, should be several
times worse, for errors of an early orientation grow with the distance. The rotations of the files are rounded
to 7 digits or more: replacing them by the nearest ones should change nothing that is printed.

    python -m experiments.registration.trajectory_alignment

It makes the published results with --out experiments/results/registration/trajectory_alignment.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from experiments import shared
from experiments.shared.settings import Out, Positive, Settings
from svdrot.evaluation.trajectories import (
    KITTI_LENGTHS,
    PoseErrors,
    absolute_pose_error,
    align_origins,
    align_trajectories,
    kitti_segment_errors,
    move_trajectory,
    path_lengths,
    path_pairs,
    relative_pose_error,
    statistics,
)
from svdrot.io.trajectories import read_kitti
from svdrot.registration import Transform

ESTIMATES = {"ORB": "#0072B2", "SPTAM": "#D55E00"}  # and their colors
SEGMENTS = {"ORB": (0.6997, 0.2533), "SPTAM": (1.4870, 0.5577)}  # % and degrees per 100 m, computed elsewhere


@dataclass(frozen=True)
class Config(Settings):
    root: Path = Path("data/trajectories")
    """With KITTI_00_gt.txt, KITTI_00_ORB.txt, KITTI_00_SPTAM.txt and expected_*_stats.json."""
    delta: Positive = 10.0
    """Meters between the poses of a pair."""
    out: Out = Path("runs/registration/trajectory_alignment")


def alignments(estimate: Transform, reference: Transform) -> dict[str, Transform]:
    return {
        "first pose": align_origins(estimate, reference),
        "rigid": align_trajectories(estimate, reference),
        "with scale": align_trajectories(estimate, reference, scale=True),
    }


KINDS = ("ape", "rpe")


def load(root: Path) -> tuple[dict[str, Transform], dict[tuple[str, str], dict[str, float]]]:
    """Read the trajectories by their names, the reference as "gt", and the others' published statistics."""
    with shared.data.reading(root, "trajectories"):
        paths = {name: read_kitti(root / f"KITTI_00_{name}.txt") for name in ("gt", *ESTIMATES)}
        published = {
            (name, kind): json.loads((root / f"expected_{name.lower()}_{kind}_stats.json").read_text())
            for name in ESTIMATES
            for kind in KINDS
        }
    return paths, published


def run(config: Config) -> dict[str, Any]:
    paths, published = load(config.root)
    reference = paths["gt"]
    rows: dict[str, Any] = {
        "absolute": [],
        "published": [],
        "segments": [],
        "lengths": [{"length (m)": length} for length in KITTI_LENGTHS],
        "projection": [],
        "reference": reference,
        "aligned": {},
        "errors": {},
        "along": path_lengths(reference),
    }
    for name in ESTIMATES:
        estimate = paths[name]
        for way, alignment in alignments(estimate, reference).items():
            moved = move_trajectory(alignment, estimate)
            errors = absolute_pose_error(moved, reference)
            scale = {"scale": f"{alignment.scale.item():.5f}"}
            rows["absolute"].append({"estimate": name, "alignment": way} | scale | summary(errors))
            if way == "rigid":
                rows["aligned"][name], rows["errors"][name] = moved, errors
        pairs = path_pairs(estimate, config.delta)
        found = {
            "ape": rows["errors"][name].translation,
            "rpe": relative_pose_error(estimate, reference, pairs).translation,
        }
        for kind, errors in found.items():
            rows["published"] += compared(published[name, kind], name, kind, statistics(errors))
        segments = kitti_segment_errors(estimate, reference)
        ours = (segments.translation_percent, segments.rotation_degrees_per_100m)
        for of, value, wanted in zip(("%", "degrees per 100 m"), ours, SEGMENTS[name], strict=True):
            rows["segments"].append(
                {
                    "estimate": name,
                    "of": of,
                    "found": f"{value:.4f}",
                    "expected": f"{wanted:.4f}",
                    "stretches": len(segments.pairs),
                }
            )
        for row in rows["lengths"]:
            part = segments.of_length(row["length (m)"])
            row |= {
                f"{name} %": part.translation_percent,
                f"{name} degrees per 100 m": part.rotation_degrees_per_100m,
            }
        rows["projection"].append(projection(config.root, name, segments.rotation_degrees_per_100m))
    return rows


def summary(errors: PoseErrors) -> dict[str, float]:
    position, angle = statistics(errors.translation), statistics(errors.rotation.rad2deg())
    return {
        "rmse (m)": position.rmse.item(),
        "mean (m)": position.mean.item(),
        "median (m)": position.median.item(),
        "max (m)": position.max.item(),
        "mean (degrees)": angle.mean.item(),
        "median (degrees)": angle.median.item(),
    }


def compared(published: dict[str, float], name: str, kind: str, found: Any) -> list[dict[str, Any]]:
    """Put every published statistic beside ours."""
    rows = []
    for statistic, value in published.items():
        ours = getattr(found, statistic).item()
        rows.append(
            {"estimate": name, "error": kind.upper(), "statistic": statistic}
            | {"found": f"{ours:.13g}", "published": f"{value:.13g}", "relative difference": ours / value - 1}
        )
    return rows


def projection(root: Path, name: str, before: float) -> dict[str, Any]:
    """Measure what the nearest rotations change, of estimate and reference."""
    estimate, reference = (read_kitti(root / f"KITTI_00_{who}.txt") for who in (name, "gt"))
    nearest = [read_kitti(root / f"KITTI_00_{who}.txt", project=True) for who in (name, "gt")]
    off = (estimate.rotation.mT @ estimate.rotation - torch.eye(3, dtype=torch.float64)).abs().max()
    plain, projected = absolute_pose_error(estimate, reference), absolute_pose_error(*nearest)
    return {
        "estimate": name,
        "largest entry of R^T R - I": off.item(),
        "largest change of an angle (degrees)": (projected.rotation - plain.rotation)
        .abs()
        .max()
        .rad2deg()
        .item(),
        "change of degrees per 100 m": kitti_segment_errors(*nearest).rotation_degrees_per_100m - before,
    }


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(12, 8.4), layout="constrained")
    axes = panels.subplots(2, 2)
    path, errors, turns, drift = axes.flat
    truth, along = rows["reference"].translation, rows["along"]
    path.plot(truth[:, 0], truth[:, 2], color="#000000", lw=1.2, label="ground truth")
    for name, color in ESTIMATES.items():
        moved = rows["aligned"][name].translation
        path.plot(moved[:, 0], moved[:, 2], color=color, lw=0.9, label=name)
        found = rows["errors"][name]
        errors.plot(along, found.translation, color=color, lw=0.9, label=name)
        turns.plot(along, found.rotation.rad2deg(), color=color, lw=0.9, label=name)
        lengths = [row["length (m)"] for row in rows["lengths"]]
        drift.plot(
            lengths, [row[f"{name} %"] for row in rows["lengths"]], "o-", color=color, label=f"{name}, %"
        )
        degrees = [row[f"{name} degrees per 100 m"] for row in rows["lengths"]]
        drift.plot(lengths, degrees, "s--", color=color, label=f"{name}, degrees per 100 m")
    path.set(xlabel="x (m)", ylabel="z (m)", title="Paths from above, aligned rigidly", aspect="equal")
    errors.set(
        xlabel="along the path (m)",
        ylabel="error of position (m)",
        ylim=0,
        title="Positions, aligned rigidly",
    )
    turns.set(xlabel="along the path (m)", ylabel="error of orientation (degrees)", ylim=0)
    turns.set_title("Orientations after that alignment")
    drift.set(xlabel="length of the stretch (m)", ylabel="drift", ylim=0, title="Drift by length")
    for axis in axes.flat:
        axis.legend(fontsize=8)
    return panels


def verdict(rows: dict[str, Any]) -> str:
    published, relative = (
        max(abs(row["relative difference"]) for row in rows["published"] if row["error"] == kind)
        for kind in ("APE", "RPE")
    )
    off = max(abs(float(row["found"]) - float(row["expected"])) for row in rows["segments"])
    rmse = {(row["estimate"], row["alignment"]): row["rmse (m)"] for row in rows["absolute"]}
    turn = {(row["estimate"], row["alignment"]): row["mean (degrees)"] for row in rows["absolute"]}
    scale = {row["estimate"]: row["scale"] for row in rows["absolute"] if row["alignment"] == "with scale"}
    worse = {name: rmse[name, "first pose"] / rmse[name, "rigid"] for name in ESTIMATES}
    scaled = {name: rmse[name, "with scale"] / rmse[name, "rigid"] for name in ESTIMATES}
    turned = max(row["largest change of an angle (degrees)"] for row in rows["projection"])
    near_one = all(abs(float(value) - 1) < 0.01 for value in scale.values())
    each = "; ".join(
        f"{name}: aligned by the first pose alone, errors are {worse[name]:.2f} times those of the best rigid"
        f" alignment; the best scale is {scale[name]} and makes them {scaled[name]:.3f} times those; the mean"
        f" error of orientation goes from {turn[name, 'first pose']:.3f} to {turn[name, 'rigid']:.3f} degrees"
        " when positions are aligned"
        for name in ESTIMATES
    )
    return (
        f"Absolute errors agree with the published ones to {published:.0e} ({_met(published < 1e-8)}, 8"
        f" digits), relative ones to {relative:.0e}: their norm is taken here where rotations that are off by"
        f" their rounding do not enter. Drift agrees in 4 decimals ({_met(off < 5e-5)}). {each}. That the"
        f" first pose alone is several times worse is {_met(min(worse.values()) > 2)}, that scales are within"
        f" a per cent of 1 {_met(near_one)}, that they change errors little"
        f" {_met(min(scaled.values()) > 0.9)}: over 3.7 km a few parts in a thousand are much of what is left"
        f" of the error. The nearest rotations change no angle by more than {turned:.0e} degrees"
        f" ({_met(turned < 1e-4)})."
    )


def _met(holds: bool) -> str:
    return "as expected" if holds else "**not** as expected"


def main(config: Config) -> None:
    rows = run(config)
    tables = {
        "Errors of the poses, by alignment": rows["absolute"],
        f"Published: rigid alignment, and pairs {config.delta:g} m apart": rows["published"],
        "Drift over 100 to 800 m": rows["segments"],
        "Drift by length": rows["lengths"],
        "The nearest rotations in place of those of the files": rows["projection"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
