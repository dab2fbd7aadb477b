"""The comparison of optimizers on tiny trainings: equal budgets, tuning, and what is written."""

import json
import math
from dataclasses import replace

import pytest
import torch

from experiments.orthogonalization import muon_pose
from experiments.orthogonalization._muon_pose_report import TWICE
from experiments.shared.statistics import comparison

TINY = muon_pose.Config(
    optimizers=("AdamW", "Muon"),
    seeds=(0, 1),
    steps=12,
    tuning_steps=6,
    extensions=1,
    clouds=2,
    copies=2,
    points=8,
    widths=(8, 16, 16),
    hidden=16,
    training_shapes=16,
    validation_shapes=16,
    validation_rotations=2,
    evaluations=3,
    jobs=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = replace(TINY, out=tmp_path_factory.mktemp("muon_pose"))
    muon_pose.main(config)
    return config.out


@pytest.fixture(scope="module")
def tables(folder):
    return dict(
        zip(
            ("final", "seeds", "tuning"),
            json.loads((folder / "results.json").read_text())["tables"].values(),
            strict=True,
        )
    )


def result(name, exponent=-5, adamw_exponent=-6, seed=0):
    run = muon_pose.Run(name, exponent, adamw_exponent, seed, steps=4, tuning=False)
    *_, last = muon_pose.train(TINY, run)
    assert isinstance(last, muon_pose.Finished)
    return last.result


def test_all_files_are_written_and_the_table_says_the_command(folder):
    assert {file.name for file in folder.iterdir()} == {"results.json", "table.md", "figure.png"}
    assert (folder / "table.md").read_text().startswith("`python")


def test_a_row_for_each_optimizer_and_seed(tables):
    labels = [*TINY.optimizers, TWICE]
    assert [row["optimizer"] for row in tables["final"]] == labels
    expected = [(label, seed) for label in labels for seed in TINY.seeds]
    assert [(row["optimizer"], row["seed"]) for row in tables["seeds"]] == expected
    for row in tables["seeds"]:
        assert row["steps"] == TINY.steps * (2 if row["optimizer"] == TWICE else 1)
    for row in tables["final"]:
        name = row["optimizer"]
        of_seeds = [other["mean deg"] for other in tables["seeds"] if other["optimizer"] == name]
        assert row["mean deg"] == pytest.approx(sum(of_seeds) / len(of_seeds))
        assert (row["lowest"], row["highest"]) == pytest.approx((min(of_seeds), max(of_seeds)))
    assert tables["final"][0]["over AdamW"] == 1


def test_the_smallest_error_of_the_grid_is_chosen_and_used(tables):
    for row in tables["final"][:-1]:
        tried = [other for other in tables["tuning"] if other["optimizer"] == row["optimizer"]]
        (chosen,) = [other for other in tried if other["chosen"]]
        assert chosen["mean deg"] == min(other["mean deg"] for other in tried)
        assert chosen["inside the grid"] == (tried[0] is not chosen is not tried[-1])
        assert row["rate"] == chosen["rate"]
        extended = len(tried) > len(muon_pose.OPTIMIZERS[row["optimizer"]][1])
        assert chosen["inside the grid"] or extended


def test_budgets_are_equal():
    """All optimizers begin with the same loss, and one that does not move sees the same losses for ever."""
    results = {name: result(name) for name in muon_pose.OPTIMIZERS}
    assert len({other.first_loss for other in results.values()}) == 1
    # With hardly any learning rate the losses are those of the clouds and rotations alone.
    still = [result(name, -24, -24).curve for name in muon_pose.OPTIMIZERS]
    for curve in still[1:]:
        assert [point["loss"] for point in curve] == pytest.approx([point["loss"] for point in still[0]])
    assert result("Muon", seed=1).first_loss != results["Muon"].first_loss


def test_layers_go_where_they_should():
    model = muon_pose.alignment.SiamesePointNet("svd", TINY.widths, TINY.hidden, 0.01)
    run = muon_pose.Run("Muon", -4, -6, 0, 4, False)
    optimizer = muon_pose.make_optimizer(run, model, [model.encoder[0], model.head])
    *matrices, rest = optimizer.param_groups
    stepped = {name for group in matrices for name in group["param_names"]}
    assert stepped == {"encoder.2.weight", "encoder.4.weight", "comparison.0.weight"}
    assert len(rest["params"]) + len(stepped) == len([*model.parameters()])

    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    model(torch.randn(2, 5, 3), torch.eye(3).expand(2, 2, 3, 3)).sum().backward()
    before = [p.detach().clone() for p in rest["params"]]
    optimizer.step()
    assert (matrices[0]["lr"], rest["lr"]) == pytest.approx((1e-2, 1e-3))
    # The first step of Adam is the learning rate, where there is a gradient at all.
    moved = [(p - old).abs().max().item() for p, old in zip(rest["params"], before, strict=True)]
    assert max(moved) == pytest.approx(1e-3, rel=1e-2)


def test_mimuon_orthogonalizes_less_for_the_larger_tau():
    few, many = (result(f"MiMuon, tau {tau}").orthogonalized for tau in ("1e-4", "1e-6"))
    assert 0 <= few <= many <= 1
    assert result("Muon").orthogonalized == 1
    assert result("AdamW").orthogonalized == 0


def test_a_diverged_training_is_not_chosen():
    assert result("Muon", exponent=60).mean_deg == math.inf
    assert muon_pose.best({-1: math.inf, 0: 90.0, 1: math.inf}) == 0


def test_seeds_that_overlap_decide_nothing():
    row = {"lowest": 1.0, "highest": 2.0}
    assert comparison(row, {"lowest": 2.5, "highest": 3.0}) == "better"
    assert comparison(row, {"lowest": 0.1, "highest": 0.5}) == "worse"
    assert comparison(row, {"lowest": 1.9, "highest": 3.0}) == "undecided"


def test_a_tuning_seed_among_the_seeds_is_refused():
    with pytest.raises(ValueError, match="tuning_seed"):
        muon_pose.Config(tuning_seed=0)
    with pytest.raises(ValueError, match="AdamW"):
        muon_pose.Config(optimizers=("Muon",))
