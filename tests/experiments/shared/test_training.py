"""The training loop on a small experiment: it resumes, shares batches, keeps others out, and stops early.

The processes are those of `training_worker`, where `training_worker.py kills FOLDER 20` is the
same with more kills.
"""

import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import training_worker as worker
from training_worker import Config, prepare

from experiments import shared
from experiments.shared.optimizers import relative_rate

ROOT = Path(shared.training.__file__).resolve().parents[2]

# Of losses and errors near 1 after 30 steps in float64: sums over half batches round differently (measured:
# 2e-15), and AdamW, which divides small gradients by their size, may make more of it. Batches that are shared
# wrongly show at once.
ROUNDING = 1e-12


def command(*arguments: str, fails: bool = False, **environment: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr


def train(folder: Path, config: Config, variant: str = "svd") -> dict:
    results = shared.training.run(config, folder, [variant], prepare, data="none", free=())
    return results[variant, 0]


# Processes.


@pytest.mark.parametrize("what", [("kills", "3"), ("two",)], ids=["killed", "interleaved"])
def test_runs_that_are(what, tmp_path):
    command(worker.__file__, what[0], str(tmp_path), *what[1:])


OPTIMIZERS = ("adamw", "muon")
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", worker.__file__, "run")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """Folders of 30 steps by two processes, by optimizer."""

    @cache
    def folder(optimizer: str) -> Path:
        folder = tmp_path_factory.mktemp("two") / optimizer
        command(*LAUNCH, "30", str(folder))
        return folder

    return folder


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """The same by one process, for both optimizers."""
    folder = tmp_path_factory.mktemp("one")
    command(worker.__file__, "run", "30", *(str(folder / optimizer) for optimizer in OPTIMIZERS))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_processes_of_torchrun_end_as_one_does(optimizer, by_two, by_one):
    folders = by_one / optimizer, by_two(optimizer)
    one, two = (shared.training.load_checkpoint(folder, ("svd", 0)) for folder in folders)
    for a, b in zip(one["curve"], two["curve"], strict=True):
        assert a["step"] == b["step"]
        assert abs(a["loss"] - b["loss"]) < ROUNDING and abs(a["error"] - b["error"]) < ROUNDING
    for name, weights in one["model"].items():
        torch.testing.assert_close(weights, two["model"][name], rtol=0, atol=10 * ROUNDING)


@pytest.mark.long
def test_processes_of_torchrun_that_end_early_go_on_to_the_last_bit(by_two, tmp_path):
    folder = tmp_path / "adamw"
    command(*LAUNCH, "30", str(folder), fails=True, BATCHES_TO_LIVE="13")
    saved = shared.training.load_checkpoint(folder, ("svd", 0))
    assert saved["step"] == 7 and len(saved["loss_sums"]) == 2  # between two points of the curve
    command(*LAUNCH, "30", str(folder))
    assert worker.metrics(folder) == worker.metrics(by_two("adamw"))


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    monkeypatch.setattr(shared.run, "processes_number", lambda: 3)
    with pytest.raises(ValueError, match=r"8 items .* 3 processes"):
        shared.run.share(torch.zeros(8, 2))
    monkeypatch.setattr(shared.run, "rank", lambda: 1)
    assert shared.run.share(torch.arange(9)).tolist() == [3, 4, 5]


# The options.


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "muon"},
        {"average": 0.0},
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"weight_decay": 0.1, "clip": None, "decay": "none"},
    ],
    ids=str,
)
def test_every_option_learns_and_resumes_to_the_last_bit(options, tmp_path):
    config = Config(**{"steps": 60, "learning_rate": 1e-2, **options})
    whole = train(tmp_path / "whole", config)
    interrupted = shared.training.train(config, tmp_path / "interrupted", prepare, ("svd", 0))
    for _ in range(4):
        next(interrupted)
    interrupted.close()
    assert 0 < shared.training.load_checkpoint(tmp_path / "interrupted", ("svd", 0))["step"] < 60
    resumed = train(tmp_path / "interrupted", config)
    assert torch.equal(resumed["examined"]["estimates"], whole["examined"]["estimates"])
    for a, b in zip(whole["curve"], resumed["curve"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert whole["curve"][-1]["error"] < whole["curve"][0]["error"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seeds", (0, 1, 0)),
        ("learning_rate", -1.0),
        ("clip", 0.0),
        ("warmup", -5),
        ("weight_decay", math.nan),
    ],
)
def test_options_without_a_meaning_are_refused(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must"):
        Config(**{option: value})


def test_averaged_weights_are_those_that_are_examined(tmp_path):
    config = Config(steps=12, evaluations=1, checkpoint_every=11, average=0.5)
    seen = []

    def recording(config: Config, variant: str, seed: int) -> shared.training.Task:
        task = prepare(config, variant, seed)

        def draw(generator):  # the weights before each step, which are those after the one before
            seen.append(task.model[0].weight.detach().clone())
            return task.draw(generator)

        return replace(task, draw=draw)

    results = shared.training.run(config, tmp_path, ["svd"], recording, data="none", free=())
    whole = shared.training.train(replace(config, average=0.0), tmp_path / "plain", prepare, ("svd", 0))
    for _ in whole:
        pass
    last = shared.training.load_checkpoint(tmp_path / "plain", ("svd", 0))["model"]["0.weight"]
    after = [*seen[1:], last]
    average = after[0]
    for weights in after[1:]:
        average = (average + weights) / 2
    torch.testing.assert_close(results["svd", 0]["model"]["0.weight"], average)


def test_training_ends_when_patience_does(tmp_path):
    """Errors 3 2 2 1 1 1: the best is the fourth, and two without a better one are enough."""
    errors = iter([3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0])

    def stalling(config: Config, variant: str, seed: int) -> shared.training.Task:
        return replace(prepare(config, variant, seed), evaluate=lambda model: {"error": next(errors)})

    config = Config(steps=100, evaluations=10, patience=2)
    results = shared.training.run(config, tmp_path, ["svd"], stalling, data="none", free=())
    assert results["svd", 0]["step"] == 60 and len(results["svd", 0]["curve"]) == 6


def test_learning_rate_rises_and_falls():
    rates = [relative_rate(step, 1000, 100, "cosine") for step in range(1000)]
    assert rates[0] < 0.02 and 0.97 < rates[100] <= 1
    assert rates[500] == pytest.approx(0.5) and rates[-1] < 1e-4
    assert np.argmax(rates) in range(90, 101)
    assert {relative_rate(step, 1000, 0, "none") for step in range(1000)} == {1.0}
    # Zhou et al. 2019: 1e-5, and from iteration 10,000 of 500,000 on 1e-6.
    published = [relative_rate(step, 500_000, 0, "drop") for step in (0, 9_999, 10_000, 499_999)]
    assert published == [1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize("options", [{"seeds": ()}, {"steps": 0}, {"patience": 0}, {"average": 1.0}], ids=str)
def test_settings_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        Config(**options)


def test_a_model_is_evaluated_in_eval_mode_and_trained_in_training_mode(tmp_path):
    modes = {"loss": set(), "evaluate": set(), "examine": set()}

    def spying(config: Config, variant: str, seed: int) -> shared.training.Task:
        task = prepare(config, variant, seed)

        def spied(name):
            def call(model, *batch):
                modes[name].add(model.training)
                return getattr(task, name)(model, *batch)

            return call

        return replace(task, **{name: spied(name) for name in modes})

    for average in (0.0, 0.9):
        config = Config(steps=20, average=average)
        shared.training.run(config, tmp_path / str(average), ["svd"], spying, data="none", free=())
    assert modes == {"loss": {True}, "evaluate": {False}, "examine": {False}}


@dataclass(frozen=True)
class ByOut:
    out: str = "a"
    steps: int = 1


@dataclass(frozen=True)
class ByRunFolder(ByOut):
    run_folder: str = "b"


@pytest.mark.parametrize(("config", "flag"), [(ByOut(), "--out"), (ByRunFolder(), "--run-folder")])
def test_another_setting_names_the_flag_that_helps(config, flag, tmp_path):
    shared.run.open_folder(tmp_path, config, free=(), data="")
    with pytest.raises(ValueError, match=f"this command has 2. Give it another folder by {flag},"):
        shared.run.open_folder(tmp_path, replace(config, steps=2), free=(), data="")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", torch.zeros(3), {"weights": {}}],
    ids=["empty", "bytes", "tensor", "other"],
)
def test_a_broken_checkpoint_names_itself(content, tmp_path):
    train(tmp_path, config := Config(steps=3))
    file = shared.training.checkpoint(tmp_path, ("svd", 0))
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ValueError, match=r"svd-0\.pt is no checkpoint; delete it"):
        train(tmp_path, config)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_broken_settings_name_themselves(text, tmp_path):
    train(tmp_path, config := Config(steps=3))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        train(tmp_path, config)
