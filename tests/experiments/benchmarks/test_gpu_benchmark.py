"""The GPU benchmark without a GPU: its reduced form, its way with errors and deadlines, and all its code on
a pretended GPU, so that no typing error waits for the day on which there is a real one."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import _calls, _device, _gpu, _maps, gpu
from experiments.benchmarks._gpu import accuracy, compilation, host, offsets, parity, speed, tests, tools
from svdrot.engine import cpu

pytest.importorskip("triton", reason="triton comes with CUDA builds of torch, and from PyPI on Linux")

ROOT = Path(__file__).resolve().parents[3]
SMALL = replace(
    _gpu.ON_CPU,
    matrices=64,
    portion=40,
    speeds=(16,),
    svd=16,
    rows=16,
    samples=50,
    maps=("axis_angle_to_matrix",),
    pause=0.001,
)


def config(folder, *stages, **options):
    return _gpu.Config(**{"device": "cpu", "stages": stages, "jobs": 1, "out": folder, **options})


def written(folder):
    return json.loads((folder / "results.json").read_text())


def test_without_a_gpu_there_is_a_reduced_form_and_it_says_so(tmp_path, capsys):
    stages = ("versions", "compilation", "tests", "accuracy", "offsets", "speed")
    gpu.main(config(tmp_path, *stages, seconds=1000.0), SMALL)
    assert "No GPU: " in capsys.readouterr().out
    found = written(tmp_path)
    assert set(found["tables"]) == {
        *("Versions", "Copy", "Compiled without a GPU", "Errors of projections", "Errors of maps", "Offsets"),
        *("Projections", "Polar factors", "Maps"),
    }, found["tables"].get("What failed")
    assert "No GPU" in found["verdict"] and "tests: it takes a GPU" in found["verdict"]
    assert [row["stage"] for row in found["details"]["Stages"]] == [s for s in stages if s != "tests"]
    for row in found["tables"]["Errors of projections"]:
        assert (
            0 < row["value, units"] <= accuracy.ALLOWED and 0 < row["derivative, units"] <= accuracy.ALLOWED
        )
        assert row["not finite"] == 0 and row["compared"] >= 0.9 * row["number"]
    for row in found["tables"]["Errors of maps"]:
        assert all(0 <= v <= accuracy.UNITS for k, v in row.items() if k != "map")
    (row,) = found["tables"]["Offsets"]
    assert row["rows that differ"] == row["gradients that differ"] == 0
    assert (tmp_path / "figure.png").stat().st_size > 1000 and (tmp_path / "table.md").exists()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler to pretend a GPU with")
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has a real CUDA")
def test_every_stage_runs_on_a_pretended_gpu(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    said = {
        "compute-sanitizer": "ERROR SUMMARY: 0 errors",
        "ncu": "dram__throughput 90",
        "nvidia-smi": "1, 2",
    }
    for name, line in said.items():
        (tools / name).write_text(f"#!/bin/sh\necho '{line}'\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, ROOT / "tests/support/gpu_benchmark_worker.py", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = written(tmp_path / "out")
    tables = found["tables"]
    assert "What failed" not in tables, tables["What failed"]
    assert [row["stage"] for row in found["details"]["Stages"]] == [*_gpu.STAGES]
    broken = {"Failed calls", "Not the same on both devices", "Captures that need a look", "Less precise"}
    broken |= {"What does not compile"}
    assert not broken & {*tables}, {name: tables[name] for name in broken & {*tables}}
    wrong = [row for row in tables["Checks"] if row["judged"] != "met"]
    assert [row["target"] for row in wrong] == ["tests of tests/svdrot/test_gpu.py"]
    assert tables["GPU tests that fail"] == [{"test": "ERROR: --require-gpu: torch finds no CUDA device"}]
    assert [row["exit"] for row in tables["Tools"]] == ["0", "0"]
    assert tables["Versions"][0]["driver and clocks"] == "1, 2"
    (captures,) = tables["Captures"]
    assert captures["captured"] == captures["functions"] >= 2 and captures["one kernel each way"] >= 1
    judged = {row["target"]: row["judged"] for row in tables["Targets"]}
    assert all(any(name.startswith(target) for name in judged) for target in _gpu.TARGETS)
    assert judged["polar factor 8 x 8"] == gpu.UNMEASURED  # these sizes do not come to it
    assert {*judged.values()} <= {"met", "NOT MET", gpu.UNMEASURED}
    expected = {
        "Copy",
        "Compilation",
        "GPU tests",
        "Errors of projections",
        "Errors of maps",
        "Offsets",
        "Parity",
    }
    expected |= {"Projections", "Polar factors", "Maps", "Alignment of pairs", "Neighbors", "ICP", "1 - X Xᵀ"}
    expected |= {"Newton-Schulz, five steps", "A step of Muon", "Peak memory", "Precision"}
    assert expected <= {*tables}
    costs = next(rows for name, rows in tables.items() if name.startswith("Cost of a call"))
    assert {row["way"] for row in costs} == {"eager", "graph", *host.WAYS}


BLOCKED = "tyro filelock tqdm rich matplotlib roma pytest hypothesis tensorboard torchmetrics".split()


def test_torch_triton_and_numpy_are_enough(tmp_path):
    """And what svdrot needs itself: the others are named, and nothing falls."""
    code = f"""
import importlib.util, sys
sys.modules.update(dict.fromkeys({BLOCKED}))
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {BLOCKED} else find(name, package)
from experiments.benchmarks import gpu, _calls
from experiments.benchmarks._gpu import ON_CPU
from dataclasses import replace
assert _calls.functions(("svdrot.slerp",)) == [("svdrot.slerp", 3)]
sizes = replace(ON_CPU, speeds=(16,), svd=16, rows=16, pause=0.001, clouds=2, maps=("axis_angle_to_matrix",))
stages = ["versions", "speed"]
gpu.main(gpu.parsed(["--device", "cpu", "--out", {str(tmp_path)!r}, "--stages", *stages]), sizes)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = written(tmp_path)
    assert "What failed" not in found["tables"] and "the figure, which takes matplotlib" in found["left_out"]
    assert "roma / svdrot" not in found["tables"]["Projections"][0]
    assert (tmp_path / "table.md").exists() and not (tmp_path / "figure.png").exists()


# Errors and deadlines -------------------------------------------------------------------------------------


def test_a_killed_run_leaves_what_it_had(tmp_path, monkeypatch):
    def killed(report):
        assert [*written(tmp_path)["tables"]] == ["Versions", "Copy"]
        raise KeyboardInterrupt

    monkeypatch.setattr(offsets, "stage", killed)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(config(tmp_path, "versions", "offsets"), SMALL)
    assert written(tmp_path)["verdict"] == "Unfinished, after versions."


def test_a_stage_that_fails_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    def fails(report):
        raise ValueError("of some kind")

    monkeypatch.setattr(offsets, "stage", fails)
    gpu.main(config(tmp_path, "offsets", "versions"), SMALL)
    found = written(tmp_path)
    assert found["tables"]["What failed"] == [{"stage": "offsets", "error": "ValueError: of some kind"}]
    assert "Versions" in found["tables"] and "Failed: offsets." in found["verdict"]


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="this system has no such clock")
def test_a_stage_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(offsets, "COST_ON_CPU", -2.4)  # twice of which and five seconds are 0.2
    monkeypatch.setattr(offsets, "stage", lambda report: time.sleep(60))
    report = _gpu.Report(config(tmp_path, "offsets"), SMALL)
    assert _gpu.run(report, "offsets")
    assert "TimeoutError" in report.tables["What failed"][0]["error"] and report.elapsed() < 30


def test_what_there_is_no_time_for_is_left_out_and_named(tmp_path):
    report = _gpu.Report(config(tmp_path, "accuracy", seconds=11.0), SMALL)
    assert _gpu.run(report, "accuracy") and report.left_out == ["accuracy: it would end too late"]
    report.end = report.elapsed() - 1
    assert not list(report.each([("a", 3), ("b", 4)], "things"))
    assert report.left_out[1] == "2 of 2 things, from a 3 on, for want of time"
    assert "2 of 2 things" in gpu.verdict(report)


def test_all_stages_fit_into_the_time():
    modules = [__import__(f"{_gpu.__name__}.{name}", fromlist=["stage"]) for name in _gpu.STAGES]
    assert sum(m.COST for m in modules) + _gpu.WRITING <= _gpu.Config().seconds == 480
    files = {path.stem for path in Path(_gpu.__file__).parent.glob("[a-z]*.py")}
    assert files == {*_gpu.STAGES}


def test_a_lost_device_is_begun_anew_with_the_other_stages(tmp_path, monkeypatch):
    def lost(*_):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(offsets, "stage", lambda report: report.add("Offsets", matrices=1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "lost")
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda *_: None)
    begun = []

    def execv(program, arguments):
        begun.append(arguments)
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        gpu.main(config(tmp_path, "offsets", "parity", "memory", device="cuda"), SMALL)
    (arguments,) = begun
    again = gpu.parsed(arguments[3:])
    assert (
        again.resume
        and again.stages == ("parity", "memory")
        and again.out == tmp_path
        and again.seconds < 480
    )
    report = _gpu.Report(again, SMALL)
    gpu.resume(report)
    assert (
        report.tables["Offsets"] == [{"matrices": 1}]
        and "illegal" in report.tables["What failed"][0]["error"]
    )


def test_calls_in_several_processes(tmp_path):
    """Of a device that is not there: each is a row that says so."""
    report = _gpu.Report(config(tmp_path, "compilation", jobs=2), SMALL)
    todo = [("svdrot.slerp", 3, "float32")] * 5
    rows = [*_calls.in_parallel(compilation.called, todo, report)]
    assert len(rows) == 5 and {row[:3] for row in rows} == {todo[0]} and not report.left_out
    assert all(row[4] for row in rows) or torch.cuda.is_available()
    report.end = report.elapsed() - 1
    rows = [*_calls.in_parallel(time.sleep, [(3,)] * 9, report)]
    assert not rows and report.left_out == ["3 of 3 portions of calls: for want of time"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this device refuses nothing")
def test_what_a_device_refuses_is_a_row(tmp_path):
    row = parity.both_sides("svdrot.slerp", 3, "float32")
    assert row["difference"] == float("inf") and "Error" in row["note"]
    report = _gpu.Report(config(tmp_path, "host"), SMALL)

    def refused(x):
        if torch.compiler.is_compiling():
            raise ValueError("not this")
        return x

    host.compiled(report, "refused", "compiled, fullgraph", refused, [torch.ones(2)])
    assert report.tables["What does not compile"][0]["function"] == "refused"


def test_programs_that_take_too_long_or_are_missing_are_named(tmp_path, monkeypatch):
    def late(command, *_, **__):
        raise subprocess.TimeoutExpired(command, 1.0, output=b"FAILED test_a\nhalf a line")

    report = _gpu.Report(config(tmp_path, "tests"), SMALL)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ncu" else name)
    monkeypatch.setattr(subprocess, "run", late)
    monkeypatch.setattr(_gpu.results, "record", lambda *_, **__: None)
    tests.stage(report)
    assert [row["exit"][:10] for row in report.tables["GPU tests"]] == ["none after"] * 2
    assert report.tables["GPU tests that fail"][0]["test"] == "FAILED test_a"
    tools.stage(report)
    assert report.tables["Tools"][0]["exit"].startswith("none after")
    assert report.left_out == ["ncu, which is not installed"]


def test_the_deadline_ends_the_program_whatever_it_does(tmp_path, monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    report = _gpu.Report(config(tmp_path, "offsets"), SMALL, running="offsets")
    gpu.give_up(report)
    assert ended == [1] and written(tmp_path)["verdict"].startswith("Ended at its deadline, in offsets.")
    assert "see" in capsys.readouterr().err


# What is judged -------------------------------------------------------------------------------------------


def test_targets_are_met_or_not_or_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "none")
    report = _gpu.Report(config(tmp_path, "speed", device="cuda"), SMALL)
    report.judge(f"{_gpu.TARGETS[0]} alone", "at least 85%", 0.9, True)
    report.judge(f"{_gpu.TARGETS[1]} alone", "at least 85%", 0.5, False)
    gpu.name_unmeasured(report)
    assert [row["judged"] for row in report.tables["Targets"]] == ["met", "NOT MET", *["not measured"] * 6]
    said = gpu.verdict(report)
    assert "Targets: 1 of 8 met." in said and "Not met: projection, backward alone." in said
    assert "Not measured: projection beside torch SVD; polar factor 4 x 4;" in said
    speed.judged(report, speed.TELLING, (0.9, 0.9), {"torch SVD": 99.0, "svdrot": 1.0})
    assert report.tables["Targets"][-1]["judged"] == "NOT MET"
    assert report.tables["Targets"][-1]["target"].startswith(_gpu.TARGETS[2])
    on_cpu = _gpu.Report(config(tmp_path, "speed"), SMALL)
    on_cpu.judge("anything", "0", 0.0, True)
    gpu.name_unmeasured(on_cpu)
    assert not on_cpu.tables


def test_a_wrong_error_is_seen(monkeypatch):
    from svdrot.engine import gpu as kernels

    program = _maps.maps()["mrp_to_matrix"].program
    for factor, units in ((1.0, 4.0), (1.0 + 1e-5, 1e3)):
        monkeypatch.setattr(kernels, "run", lambda *a, factor=factor: [factor * t for t in cpu.run(*a)])
        found = accuracy.units(program, torch.float32, "cpu", 200)
        assert found < units if factor == 1 else 20 < found < units


@pytest.mark.parametrize("kind", accuracy.KINDS)
@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_wrong_rotations_and_derivatives_are_seen(kind, dtype, monkeypatch):
    """By the kernels of the CPU, which keep the contract in each dtype."""

    def projected(m, w, value=1.0, slope=1.0):
        x = m.clone().requires_grad_()
        r = gpu_free(x)
        return value * r.detach(), slope * torch.autograd.grad(r, x, w)[0]

    from svdrot import special_orthogonalize as gpu_free

    wrong = 1 + 1e3 * torch.finfo(getattr(torch, dtype)).eps
    for value, slope in ((1.0, 1.0), (wrong, 1.0), (1.0, wrong)):
        monkeypatch.setattr(accuracy, "projected", lambda m, w, v=value, s=slope: projected(m, w, v, s))
        row = accuracy.projections(kind, dtype, 3000, 2000, "cpu")
        assert row["not finite"] == 0 and row["compared"] >= 0.99 * 3000
        assert (row["value, units"] <= accuracy.ALLOWED) == (value == 1), row
        assert (row["derivative, units"] <= accuracy.ALLOWED) == (slope == 1), row


def test_a_row_that_is_not_in_its_place_is_seen():
    base = torch.randn(8, 3, 3)
    found = offsets.spread(base, 27)
    assert found.shape == (27, 3, 3) and offsets.differing(found, base) == 0
    assert torch.equal(found[24:], base[:3])
    found[25, 2, 2] += 1
    found[3, 0, 0] = float("nan")
    assert offsets.differing(found, base) == 2


# The command ----------------------------------------------------------------------------------------------


def test_the_command_line(capsys, tmp_path):
    read = gpu.parsed(["--out", str(tmp_path), "--stages", "speed", "host", "--seconds", "100"])
    assert asdict(read) == asdict(_gpu.Config(stages=("speed", "host"), seconds=100.0, out=tmp_path))
    for wrong in (["--seconds", "-1"], ["--stages", "nothing"], ["--tests", "0"]):
        with pytest.raises(SystemExit):
            gpu.parsed(wrong)
    assert "must be positive" in capsys.readouterr().err


def test_a_package_that_is_missing_is_none():
    assert _device.optional("no_such_package") is None and _device.optional("json") is json
