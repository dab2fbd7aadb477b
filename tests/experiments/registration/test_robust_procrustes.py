"""The experiment on robust fits: its problems, its rows and its files, in small."""

import json

import pytest
import torch

import svdrot
from experiments.registration import robust_procrustes as experiment
from svdrot.registration import kabsch

SMALL = experiment.Config(pairs=120, shares=(0, 0.5), draws=2)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_problem_has_its_share_of_wrong_pairs(share):
    x, y, rotation, right = experiment.problem(experiment.Config(), share, 3)
    assert right.sum() == round(1000 * (1 - share))
    fit = kabsch(x[right], y[right])
    assert svdrot.geodesic_distance(fit.rotation, rotation) < 0.05
    distance = (fit.apply(x) - y).norm(dim=-1)
    assert (distance[right] < experiment.THRESHOLD * 0.01).double().mean() > 0.95
    assert share == 0 or (distance[~right] > 0.1).double().mean() > 0.95


def test_everything_is_fitted_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["robust_procrustes"])
    config = experiment.Config(pairs=120, shares=(0, 0.5), draws=2, root=None, out=tmp_path)
    experiment.main(config)
    folder = tmp_path
    assert (folder / "figure.png").stat().st_size > 10_000 and (folder / "table.md").exists()
    (rows,) = json.loads((folder / "results.json").read_text())["tables"].values()
    assert {row["method"] for row in rows} == set(experiment.FITS) and len(rows) == 2 * len(experiment.FITS)
    half = {row["method"]: row["success"] for row in rows if row["wrong"] == 0.5}
    assert half["consistency"] == half["RANSAC"] == half["GNC-TLS"] == 1 and half["Kabsch"] == 0


def test_a_fit_of_right_pairs_is_what_errors_are_measured_by():
    rows = experiment.breakdown(SMALL)
    clean = [row for row in rows if row["method"] == "Kabsch" and row["wrong"] == 0]
    assert [row["error median"] for row in clean] == [1.0]
    assert torch.tensor([row["ms"] for row in rows]).gt(0).all()
