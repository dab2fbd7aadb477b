"""Clouds: alignments of known pairs beside roma, ICP, and neighbors beside all distances."""

import torch
from torch import Tensor

import svdrot
from experiments.benchmarks import _device
from experiments.benchmarks._device import Call
from experiments.benchmarks._gpu import Report
from experiments.shared.timing import medians
from svdrot import registration

COST, COST_ON_CPU = 20, 6
PAIRS, OF_ROMA = 64, 10.0
ANGLE = 0.1  # radians, from which ICP starts


def stage(report: Report) -> None:
    for part in report.each((known, searched, iterated), "parts of clouds"):
        part(report)


def timed(report: Report, calls: dict[str, Call]) -> dict[str, float]:
    return medians(calls, report.config.device, report.sizes.rounds, report.sizes.pause)[0]


def moved(shape: tuple[int, ...], device: str, angle: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Points, their images, and the rotations: any, or of one angle."""
    x = torch.randn(*shape, 3, device=device)
    if angle is None:
        r = svdrot.special_orthogonalize(torch.randn(*shape[:-1], 3, 3, device=device))
    else:
        axis = torch.nn.functional.normalize(torch.randn(*shape[:-1], 3, device=device), dim=-1)
        r = svdrot.axis_angle_to_matrix(angle * axis)
    return x, x @ r.mT, r


def known(report: Report) -> None:
    """As they come, with what the host costs, as a user calls them; and as CUDA graphs."""
    x, y, r = moved((report.sizes.clouds, PAIRS), report.config.device, None)
    calls: dict[str, Call] = {"svdrot": lambda: registration.kabsch(x, y).rotation}
    if roma := _device.optional("roma"):
        calls["roma"] = lambda: roma.rigid_points_registration(x, y)
    off = (registration.kabsch(x, y).rotation - r).abs().max().item()
    for way in ("eager", "graph") if report.gpu else ("eager",):
        found = timed(report, _device.replays(calls) if way == "graph" else calls)
        row = {"clouds": len(x), "points": PAIRS, "way": way, "kabsch µs": 1e6 * found["svdrot"]}
        row["roma / svdrot"] = found["roma"] / found["svdrot"] if "roma" in found else "–"
        report.add("Alignment of pairs", **row, **{"error of rotations": off})
        if way == "eager" and "roma" in found:
            ratio = found["roma"] / found["svdrot"]
            name = f"kabsch beside roma, {len(x):,} clouds of {PAIRS} points, times as fast"
            report.judge(name, f"at least {OF_ROMA:g}", ratio, ratio >= OF_ROMA)


def searched(report: Report) -> None:
    n, device = report.sizes.points, report.config.device
    query, points = torch.randn(n, 3, device=device), torch.randn(4 * n, 3, device=device)

    def all_distances() -> object:
        return torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist").min(-1)

    calls: dict[str, Call] = {"svdrot": lambda: registration.nearest(query, points), "all": all_distances}
    found = timed(report, calls)
    distances, _ = registration.nearest(query, points)
    exact = torch.cdist(query.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    off = (distances - exact.min(-1).values).abs().max().item()
    row = {"queries": n, "points": 4 * n, "nearest ms": 1e3 * found["svdrot"]}
    row |= {"all distances / svdrot": found["all"] / found["svdrot"], "error": off}
    report.add("Neighbors", **row)


def iterated(report: Report) -> None:
    n, device = report.sizes.points, report.config.device
    for clouds, points in ((1, n), (max(report.sizes.clouds // 16, 1), max(n // 16, 32))):
        x, y, r = moved((clouds, points), device, ANGLE)

        def call(x: Tensor = x, y: Tensor = y) -> registration.Registration:
            return registration.icp(x, y, max_distance=0.5, method="point_to_point", max_iterations=30)

        found = timed(report, {"icp": call})
        off = svdrot.geodesic_distance(call().transform.rotation, r).max().item()
        row = {"clouds": clouds, "points": points, "ms": 1e3 * found["icp"], "worst angle, rad": off}
        report.add("ICP", **row)
