"""Experiments and benchmarks as commands: wrong input is told in a line, and published results are kept."""

import errno
import importlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from experiments import shared

ROOT = Path(shared.run.__file__).parents[2]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("rotation", "registration", "orthogonalization", "benchmarks")
    for path in sorted((ROOT / "experiments" / folder).glob("[a-z]*.py"))
}
READERS = [name for name, path in FILES.items() if "\n    root: Path" in path.read_text()]  # of data
NEEDS = {"evaluate": ["--clouds", "none", "--rotations", "none.npy"]}  # options without a default


@pytest.fixture(params=FILES, ids=lambda name: name.removeprefix("experiments."))
def experiment(request):
    try:
        return importlib.import_module(request.param)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def refuse(monkeypatch, tmp_path, capsys):
    """The line that a command ends with, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def refuse(experiment, *arguments, code=shared.run.REFUSED):
        name = experiment.__name__.rpartition(".")[2]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *NEEDS.get(name, []), *arguments])
        body = experiment.main if hasattr(experiment, "main") else experiment.run
        default = experiment.Config if name in NEEDS else experiment.Config()
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            shared.run.main(body, default, experiment.__doc__)
        told = capsys.readouterr().err
        told = "".join(line for line in told.splitlines(keepends=True) if "\r" not in line)  # of progress
        assert end.value.code == code and told.count("\n") == 1 and told.startswith(f"{name}: "), told
        assert "Error" not in told
        return told

    return refuse


def wrong(kind: Any) -> list[Any]:
    """What no setting of this type may be; empty if the type says nothing of that."""
    assert kind not in (int, float), "this type allows any number"
    arguments = get_args(kind)
    if kind == shared.settings.Out:
        return []
    if get_origin(kind) is Annotated:
        return {int: [-1], float: [math.nan]}.get(arguments[0], ["tpu"])
    if get_origin(kind) is Literal:
        return ["nothing"]
    if get_origin(kind) is UnionType:
        return wrong(arguments[0])
    if get_origin(kind) is tuple:
        return [one for inner in arguments if inner is not ... for one in wrong(inner)]
    return []


def test_settings_without_a_meaning_are_refused_by_name(experiment, refuse):
    kinds = get_type_hints(experiment.Config, include_extras=True)
    given = {name: wrong(kinds[name]) for name in (field.name for field in fields(experiment.Config))}
    given = {name: values for name, values in given.items() if values}
    required = {"clouds": Path(), "rotations": Path()} if experiment.__name__.endswith("evaluate") else {}
    for name, values in given.items():
        value = tuple(values) if get_origin(kinds[name]) is tuple else values[0]
        if get_origin(kinds[name]) is tuple and get_origin(get_args(kinds[name])[0]) is tuple:
            value = (value,)
        with pytest.raises(ValueError, match=f"`{name}` must be .*; got {values[0]}"):
            experiment.Config(**required | {name: value})
    for name in list(given)[:1]:
        option = f"--{name.replace('_', '-')}"
        line = refuse(experiment, option, *map(str, given[name]))
        assert option in line and str(given[name][0]) in line
    assert "--tests-0" in refuse(experiment, "--tests-0")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("experiment", READERS, indirect=True)
def test_missing_data_are_told_with_their_option_and_source(experiment, refuse):
    more = ["--data", "planes"] if hasattr(experiment.Config, "data") else []
    assert re.search(r"--root must name .* no folder data/\w+. Get .*https://", refuse(experiment, *more))
    Path("data").mkdir()
    assert "no folder elsewhere" in refuse(experiment, "--root", "elsewhere", *more)
    assert [path.name for path in Path().iterdir()] == ["data"]


# One meaning of --out.

RESULTS = ROOT / "experiments/results"


def test_out_is_the_folder_of_the_results_everywhere(experiment):
    if experiment.__name__.endswith(".evaluate"):
        return  # it prints, and leaves nothing
    _, folder, name = experiment.__name__.split(".")
    assert get_type_hints(experiment.Config, include_extras=True)["out"] == shared.settings.Out
    assert experiment.Config().out == Path("runs", folder, name)
    for preset in [experiment.FULL] if hasattr(experiment, "FULL") else []:
        assert (
            preset.out == Path("runs", folder, f"{name}-full") and getattr(preset, "run_folder", None) is None
        )
    published = re.findall(r"--out\s(experiments/results/\S+\w)", experiment.__doc__)
    assert published, "how its published results are made"
    for out in published:
        assert re.fullmatch(rf"experiments/results/{folder}/({name}\w*|NAME)", out)
        assert "NAME" in out or (ROOT / out).is_dir()


def test_results_lie_where_their_commands_put_them():
    for file in RESULTS.rglob("*.*"):
        folder, name, *below = file.relative_to(RESULTS).parts
        assert any(name.startswith(key.split(".")[2]) for key in FILES if key.split(".")[1] == folder), file
        assert len(below) == 1, file
    for file in RESULTS.rglob("results.json"):
        made, place = json.loads(file.read_text()), file.parent.relative_to(ROOT).as_posix()
        words = made["command"].split()
        assert words[words.index("--out") + 1] == made["config"]["out"] == place
        module = words[words.index("-m") + 1]
        assert module in FILES and module.split(".")[1] == file.parts[-3]
        assert file.with_name("table.md").read_text().startswith(f"`{made['command']}`\n")
        assert made["tables"] and made["verdict"] and file.with_name("figure.png").exists()


@pytest.fixture
def noise():
    return importlib.import_module("experiments.rotation.noise_svd_vs_gs")


def test_a_device_that_is_not_there_is_refused(refuse, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sanity = importlib.import_module("experiments.rotation.sanity_autoencoder")
    assert "--device must be cpu where torch finds no CUDA device; got cuda" in refuse(
        sanity, "--device", "cuda"
    )
    assert "--device" in refuse(sanity, "--device", "foo")
    assert f"--threads must be from 1 to {shared.settings.MOST}" in refuse(sanity, "--threads", "100000")


def test_folders_that_cannot_be_written_are_refused_before_the_work(noise, refuse, monkeypatch):
    monkeypatch.setattr(noise, "main", lambda config: pytest.fail("it has begun"))
    Path("file").touch()
    assert "--out must be a folder" in refuse(noise, "--out", "file/below")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "--out must be a folder" in refuse(noise, "--out", "new/below")


def test_a_folder_in_use_is_told(refuse, tmp_path):
    sanity = importlib.import_module("experiments.rotation.sanity_autoencoder")
    with shared.run.alone_in(tmp_path / "run"):
        line = refuse(sanity, "--out", "run")
    assert "run is in use by" in line and "take another folder" in line


def test_mistakes_of_ours_keep_their_traceback(noise, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for ours in (ValueError, KeyError, RuntimeError, FloatingPointError):
        monkeypatch.setattr(sys, "argv", ["noise_svd_vs_gs.py"])

        def fails(config, ours=ours):
            raise ours

        with pytest.raises(ours):
            shared.run.main(fails, noise.Config(), noise.__doc__)


def test_an_interruption_is_told_with_what_is_left(noise, refuse, monkeypatch):
    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(noise, "main", interrupted)
    assert refuse(noise, code=shared.run.INTERRUPTED).endswith("interrupted. Nothing was written.\n")


@pytest.mark.skipif(os.name == "nt", reason="this system has no groups of processes")
def test_ctrl_c_ends_all_processes_in_a_line(tmp_path):
    options = f"--out {tmp_path} --heads svd 6d --checkpoint-every 5 --jobs 2"
    command = [sys.executable, "-m", "experiments.rotation.sanity_autoencoder", *options.split()]
    # Processes in the background, as the tests may be, ignore it, and so do those that they start.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and not list(tmp_path.glob("checkpoints/*.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=300)  # returns when the last process has closed its end
    assert process.returncode == shared.run.INTERRUPTED, told
    assert told.count("sanity_autoencoder: interrupted.") == 1 and "Traceback" not in told, told
    assert told.endswith(
        f"Checkpoints are kept in {tmp_path}: give the same command again to go on from them.\n"
    )


def test_a_full_disk_is_told_with_the_file(noise, refuse):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # bytes: the picture is larger
    try:
        line = refuse(noise, "--draws", "1000", "--sigmas", "0.1", "--noises", "normal", "--out", "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"here/figure.png cannot be written: {os.strerror(errno.EFBIG)}. Make room" in line
    assert not list(Path().rglob(".*"))  # nor half a file
