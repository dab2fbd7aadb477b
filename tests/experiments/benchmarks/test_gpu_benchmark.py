"""The benchmark of GPU kernels: what it does without a GPU, and what is left of a run that is killed."""

import json
from dataclasses import asdict

import pytest
import torch

from experiments.benchmarks import _maps, gpu
from svdrot.engine import cpu

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

NAMES = ("axis_angle_to_matrix", "geodesic_distance")


@pytest.fixture
def config(tmp_path):
    return gpu.Config(device="cpu", maps=NAMES, seconds=1000, out=tmp_path)


def test_without_a_gpu_there_are_errors_and_it_says_so(config, capsys):
    gpu.main(config)
    assert capsys.readouterr().out.startswith("No GPU: ")
    found = json.loads((config.out / "results.json").read_text())
    assert set(found["tables"]) == {"Versions", "Errors"} and "No GPU" in found["verdict"]
    rows = found["tables"]["Errors"]
    assert [row.pop("map") for row in rows] == [*NAMES]
    for row in rows:
        columns = [f"{which}, {dtype}" for which in ("value", "gradient") for dtype in ("float32", "float64")]
        assert sorted(row) == sorted(columns)
        assert all(0 <= units <= gpu.UNITS for units in row.values())
    assert (config.out / "figure.png").stat().st_size > 1000


def test_a_killed_run_leaves_what_it_had(config, monkeypatch):
    def killed(*arguments):
        before = json.loads((config.out / "results.json").read_text())
        assert list(before["tables"]) == ["Versions"]
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "parity", killed)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(config)
    assert json.loads((config.out / "results.json").read_text())["verdict"] == "Unfinished."


def test_what_there_is_no_time_for_is_left_out_and_named(config):
    report = gpu.Report(gpu.Config(**asdict(config) | {"seconds": 1e-9}))
    assert not list(report.maps("errors", 0.5)) and report.left_out == [f"errors of {name}" for name in NAMES]
    assert "Left out for want of time: errors of axis_angle_to_matrix" in gpu.verdict(report)


def test_a_wrong_error_is_seen(monkeypatch):
    from svdrot.engine import gpu as kernels

    program = _maps.maps()["mrp_to_matrix"].program
    for factor, units in ((1.0, 4.0), (1.0 + 1e-5, 1e3)):
        monkeypatch.setattr(kernels, "run", lambda *a, factor=factor: [factor * t for t in cpu.run(*a)])
        found = gpu.units(program, torch.float32, "cpu", 200)
        assert found < units if factor == 1 else 20 < found < units


def test_an_unknown_map_is_refused():
    with pytest.raises(ValueError, match=r"`maps` must be among .*; got matrix_to_nothing"):
        gpu.Config(maps=("matrix_to_nothing",))


def test_times_are_taken_of_all_contestants(config):
    """As on a GPU, with the kernels of the CPU."""
    small = gpu.Config(**asdict(config) | {"batches": (16,), "rounds": 3})
    report = gpu.Report(small)
    gpu.times(report)
    rows = report.tables["Times"]
    assert [(row["map"], row["pass"]) for row in rows] == [
        (name, which) for name in NAMES for which in gpu.PASSES
    ]
    assert all(row["roma / svdrot"] > 0 and row["of the copy's speed"] > 0 for row in rows)
