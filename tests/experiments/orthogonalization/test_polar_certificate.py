"""The experiment on the certificate, in small."""

import json
import sys

from experiments.orthogonalization import polar_certificate as experiment


def test_no_violation_in_a_reduced_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["polar_certificate"])
    experiment.main(experiment.Config(matrices=3000, out=tmp_path))
    folder = tmp_path
    assert {file.name for file in folder.iterdir()} == {"results.json", "table.md", "figure.png"}
    (rows,) = json.loads((folder / "results.json").read_text())["tables"].values()
    assert sum(row["violations"] for row in rows) == 0
    honest = [r for r in rows if (r["n"], r["matrices"]) == (3, "gaussian") and r["factor"] != "disturbed"]
    assert all(1 <= row["median"] <= 3 for row in honest) and len(honest) == 2
    stopped = [row for row in rows if row["matrices"] == "rank deficient" and row["factor"] == "iteration"]
    assert all(row["finite %"] == 0 for row in stopped)


def test_a_bound_too_small_is_seen(monkeypatch):
    bound = experiment.polar_certificate
    monkeypatch.setattr(
        experiment, "polar_certificate", lambda m, q, special: bound(m, q, special=special) / 4
    )
    rows = experiment.run(experiment.Config(matrices=3000))
    assert sum(row["violations"] for row in rows) > 0
