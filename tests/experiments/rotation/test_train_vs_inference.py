"""The comparison of strategies: its stages on a tiny run, and what it says of given errors."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from datasets import planes
from experiments.rotation import pointcloud_alignment
from experiments.rotation import train_vs_inference as experiment
from experiments.shared import alignment

PLANES = Path(__file__).resolve().parents[4] / "shared" / "data" / "planes"
TINY = experiment.Config(
    root=PLANES,
    strategies=("always", "inference"),
    seeds=(0, 1),
    steps=6,
    tuning_steps=4,
    relative_rates=(1.0, 2.0),
    evaluations=2,
    clouds=2,
    copies=2,
    points=8,
    widths=(4, 4, 8),
    hidden=8,
    warmup=1,
    validation_rotations=1,
    jobs=1,
)

needs_planes = pytest.mark.skipif(
    not (PLANES / planes.PACKED).exists(), reason=f"the aeroplanes are not at {PLANES}"
)


@needs_planes
def test_a_run_leaves_its_tables(tmp_path):
    config = replace(TINY, out=tmp_path / "results", run_folder=tmp_path / "run")
    experiment.main(config)
    folder = tmp_path / "results"
    tables = json.loads((folder / "results.json").read_text())["tables"]
    final, seeds, tuning = tables.values()
    assert [row["strategy"] for row in final] == ["always", "inference"]
    assert [(row["strategy"], row["seed"]) for row in seeds] == [
        (strategy, seed) for strategy in ("always", "inference") for seed in (0, 1)
    ]
    for strategy in ("always", "inference"):
        tried = [row for row in tuning if row["strategy"] == strategy]
        assert [row["learning rate"] for row in tried] == [0.002, 0.004]
        assert min(tried, key=lambda row: row["mean deg"])["chosen"] and sum(r["chosen"] for r in tried) == 1
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


@needs_planes
def test_learning_rates_are_chosen_on_one_half_and_errors_are_of_the_other(monkeypatch):
    given = []
    task = alignment.task
    monkeypatch.setattr(alignment, "task", lambda *arguments: given.append(arguments) or task(*arguments))
    short = experiment.Tuning(**{field.name: getattr(TINY, field.name) for field in fields(TINY)})
    assert experiment.prepare(short, "always@2", 0).relative_rate == 2
    experiment.prepare(TINY, "after_warmup@1", 0)
    (one, _, tuning), (other, network, final) = given
    assert (one.strategy, other.strategy) == ("always", "after_warmup")
    assert network.head.strategy.steps == 1  # 4 % of 6, and not none
    data = alignment.load(one)
    assert torch.equal(tuning.validation.points, data.validation.points[:200])
    assert torch.equal(final.validation.points, data.validation.points[200:])
    assert torch.equal(tuning.training.points, data.training.points)


def rows(always, inference):
    return [
        {"strategy": name, "mean deg": sum(e) / len(e), "lowest": min(e), "highest": max(e)}
        for name, e in (("always", always), ("inference", inference))
    ]


@pytest.mark.parametrize(
    ("always", "inference", "said", "holds"),
    [
        ((9.0, 10.0), (12.0, 13.0), "ahead", True),
        ((9.0, 10.0), (10.1, 10.2), "ahead", False),
        ((9.0, 13.0), (12.0, 14.0), "undecided", False),
        ((9.0, 10.0), (7.0, 8.0), "behind", False),
    ],
)
def test_verdict(always, inference, said, holds):
    table = {
        "final": rows(always, inference),
        "tuning": [
            {"strategy": name, "chosen": k == 1} for name in ("always", "inference") for k in range(3)
        ],
    }
    text = experiment.verdict(table)
    assert f"ahead of inference by 10 %: {said}" in text
    assert ("**Holds.**" in text) == holds
    assert "first or the last" not in text


def test_settings_are_checked():
    with pytest.raises(ValueError, match="`strategies`"):
        replace(TINY, strategies=("sometimes",))
    with pytest.raises(ValueError, match="`tuning_seed`"):
        experiment.run(replace(TINY, tuning_seed=1))
    assert experiment.FULL.steps == pointcloud_alignment.FULL.steps and experiment.FULL.points == 0
