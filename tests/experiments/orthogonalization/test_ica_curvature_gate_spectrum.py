"""Small runs of four experiments on orthogonalization: what each was made to show, and its files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.orthogonalization import (
    ica_competition,
    isotropic_curvature,
    mimuon_gate,
    muon_pose,
    muoneq_spectrum,
)
from svdrot.optim import Muon

MUONEQ = muoneq_spectrum.Config(
    seeds=2,
    training_seeds=2,
    samples=256,
    inputs=16,
    hidden=24,
    steps=30,
    batch=32,
    rates=(0.02, 0.05),
    pose_seeds=1,
    pose_steps=20,
    pose_clouds=4,
    pose_points=8,
    pose_momenta=2,
)
MIMUON = mimuon_gate.Config(
    taus=(0.0, 1e-3, 1e-2, math.inf),
    branch_seeds=3,
    draws=(400, 100, 20),
    samples=(50, 400),
    seeds=6,
    steps=60,
    perturbations=400,
)
CURVATURE = isotropic_curvature.Config(directions=2000, draws=2, counts=(500, 2000), matrices=1)
ICA = ica_competition.Config(seeds=3, dimension=24, overlay=48, time=60.0, taus=(0.02, 0.05, 0.3))


@pytest.fixture(scope="module")
def muoneq():
    return muoneq_spectrum.run(MUONEQ)


@pytest.fixture(scope="module")
def mimuon():
    return mimuon_gate.run(MIMUON)


@pytest.fixture(scope="module")
def curvature():
    return isotropic_curvature.run(CURVATURE)


@pytest.fixture(scope="module")
def ica():
    return ica_competition.run(ICA)


# MuonEq.


def test_rows_equilibrated_are_better_conditioned_columns_alone_are_not(muoneq):
    gain = {(row["mode"], row["of"]): row["median"] for row in muoneq["ratios"]}
    assert gain["r", "stable rank"] > 5
    assert gain["r", "condition"] > 100
    assert 1.5 < gain["r", "rms Jordan"] < 3
    assert gain["r", "rms Express"] > 1.5
    assert max(gain["c", of] for of in ("stable rank", "condition", "rms Jordan")) < 3


def test_momenta_of_a_training_are_what_muon_orthogonalizes_and_gain_less(muoneq, monkeypatch):
    seen = []

    class Watched(Muon):
        def direction(self, update, stack):
            seen.append(update.clone())
            return super().direction(update, stack)

    _, grid = muon_pose.OPTIMIZERS["Muon"]
    monkeypatch.setitem(muon_pose.OPTIMIZERS, "Muon", (Watched, grid))
    found = muoneq_spectrum.momenta(MUONEQ)
    assert [len(of_layer) for of_layer in found.values()] == [2, 2, 2]
    last = seen[-3:]  # a batch of one matrix for each shape
    for of_layer in found.values():
        (same,) = [update[0] for update in last if update.shape[1:] == of_layer[-1].shape]
        torch.testing.assert_close(of_layer[-1].float(), same, rtol=1e-5, atol=1e-6 * same.abs().max().item())
    rows = {(row["mode"], row["of"]): row["median"] for row in muoneq["ratios of momenta"]}
    made = {(row["mode"], row["of"]): row["median"] for row in muoneq["ratios"]}
    assert rows["r", "condition"] < made["r", "condition"] / 10


def test_equilibration_is_another_direction(muoneq):
    cosine = {row["mode"]: row["cosine"] for row in muoneq["spectra"]}
    assert cosine["none"] == pytest.approx(1, abs=1e-12)
    assert 0.9 < cosine["r"] < 0.97 < cosine["aol"] < 0.999


def test_every_mode_trains_and_they_start_alike(muoneq):
    start = muoneq["curves"]["none"][0]
    for mode, curve in muoneq["curves"].items():
        torch.testing.assert_close(curve[0], start)
        assert (curve[-1] < 0.8 * curve[0]).all(), mode


# MiMuon.


def test_the_gate_goes_from_muon_to_momentum_descent(mimuon):
    rows = mimuon["branch"]
    parts = [row["orthogonalized"] for row in rows]
    assert parts == sorted(parts, reverse=True)
    assert (parts[0], parts[-1]) == (1, 0)
    assert 0 < parts[2] < parts[1]
    assert [row["is Muon"] for row in rows] == [True, False, False, False]
    assert [row["is momentum descent"] for row in rows] == [False, False, False, True]


def test_gaps_of_gaussian_matrices(mimuon):
    medians = [row["median"] for row in mimuon["gaps"]]
    for row in mimuon["gaps"]:
        assert row["median"] == pytest.approx(row["median of the trial"], rel=0.6)
    assert medians[0] > 10 * medians[1] > 100 * medians[2]


def test_the_gap_does_not_govern_the_response_of_the_polar_factor(mimuon):
    """The derivative of the polar factor divides by sums of singular values, not by differences."""
    response = mimuon["correlations"][-1]
    assert response["two smallest"] < -0.5
    assert abs(response["gap"]) < 0.2  # four deviations of 400 independent pairs


def test_one_sample_in_fewer_moves_the_weights_further(mimuon):
    for name in ("momentum", "Muon"):
        assert -1.6 < mimuon_gate.power(mimuon, name) < -0.5
    for row in mimuon["stability"]:
        assert row["distance"] > row["after 25% of steps"] > 0, row


def test_pairs_differ_in_one_sample_only():
    task = mimuon_gate.make_task(MIMUON, torch.tensor([50, 50]), seed=0)
    both = mimuon_gate.neighbors(task, seed=1)
    assert (both.y[:2, 0] != both.y[2:, 0]).all()
    assert torch.equal(both.x[:2, 1:], both.x[2:, 1:])
    assert torch.equal(both.y[:2, 1:], both.y[2:, 1:])
    assert (both.picks[:, :2] == both.picks[:, 2:]).all()


def test_spearman():
    a = torch.tensor([3.0, 1.0, 4.0, 1.5])
    assert mimuon_gate.spearman(a, a.exp()) == pytest.approx(1)
    assert mimuon_gate.spearman(a, -(a**3)) == pytest.approx(-1)


# Isotropic curvature.


def test_singular_values_draw_together_as_the_curvature_grows(curvature):
    rows = curvature["values"]
    conditions = [row["condition"] for row in rows]
    assert conditions == sorted(conditions, reverse=True)
    assert all(row["in order"] for row in rows)
    for row in rows[:3]:
        assert row["condition"] == pytest.approx(row["trial"], rel=0.06)
        assert row["exact"] == pytest.approx(row["trial"], rel=0.015)
    assert rows[0]["exact"] == pytest.approx(10, rel=1e-9)
    assert max(conditions[3:]) < 1.002
    assert max(row["derivative left"] for row in rows) < 1e-8


def test_the_optimum_has_the_singular_vectors_of_the_gradient(curvature):
    for row in curvature["vectors"]:
        limit = 1e-12 if row["directions"] == isotropic_curvature.EXACT else 0.2
        assert row["misalignment"] < limit, row
        if row["H"].startswith("kink"):
            assert row["cosine with U Vᵀ"] > 1 - 1e-3


@pytest.mark.parametrize("name", isotropic_curvature.CURVATURES)
def test_no_other_matrix_is_better(name):
    """The value of the program, at the optimum that is found and at others."""
    zeta = isotropic_curvature.directions(500, 4, 0)
    g = torch.diag(torch.tensor([10.0, 5, 2, 1], dtype=torch.float64))
    curvature = isotropic_curvature.CURVATURES[name]
    features = isotropic_curvature.full_features(zeta, 4)
    q = isotropic_curvature.optimum(g.flatten(), features, curvature)[0][-1].view(4, 4)

    def value(q):
        r = (zeta @ q.mT).norm(dim=1)
        if name.startswith("kink"):
            h = r**2 / 2 + float(name.split()[-1]) * (r - 1).clamp(min=0)
        else:
            p = {"r²/2": 2, "r⁴/4": 4, "r⁸/8": 8}[name]
            h = r**p / p
        return h.mean() - (q * g).sum()

    best, slack = value(q), 0.02 if name.startswith("kink") else 0  # by the width of the ramp
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2, 1e-1, 1):
        for _ in range(20):
            other = q + size * torch.randn(4, 4, generator=generator, dtype=torch.float64)
            assert value(other) > best - slack


def test_the_600_cell_has_the_moments_of_the_sphere():
    points = isotropic_curvature.cell_600()
    assert len(points.unique(dim=0)) == 120
    direction = torch.nn.functional.normalize(torch.tensor([1.0, 2, -3, 0.5], dtype=torch.float64), dim=0)
    along = points @ direction
    for power, moment in ((2, 1 / 4), (4, 1 / 8), (6, 5 / 64), (8, 7 / 128)):
        assert (along**power).mean().item() == pytest.approx(moment, rel=1e-12)


# Independent components.


def test_the_moments_in_the_equation():
    """The drift against its definition, by a mean over every state of the sources and Gauss-Hermite nodes."""
    moments = torch.tensor([1.0, 1.8], dtype=torch.float64)
    r = torch.tensor([[0.6, 0.3], [-0.2, 0.5]], dtype=torch.float64)
    tau = 0.07
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(6))
    weights = weights / weights.sum()
    root = torch.linalg.cholesky(torch.eye(2, dtype=torch.float64) - r.mT @ r)
    values = [(-math.sqrt(m), 0.0, math.sqrt(m)) for m in moments]
    chances = [(0.5 / m, 1 - 1 / m, 0.5 / m) for m in moments]
    sy, zy, yy = (torch.zeros(2, 2, dtype=torch.float64) for _ in range(3))
    for i in range(3):
        for j in range(3):
            s = torch.tensor([values[0][i], values[1][j]], dtype=torch.float64)
            for a, p in zip(nodes, weights, strict=True):
                for b, q in zip(nodes, weights, strict=True):
                    z = r.mT @ s + root @ torch.stack((a, b))
                    weight = chances[0][i] * chances[1][j] * p * q
                    y = z**3
                    sy += weight * s.outer(y)
                    zy += weight * z.outer(y)
                    yy += weight * y.outer(y)
    expected = -tau * sy + tau / 2 * r @ (zy + zy.mT) - tau**2 / 2 * r @ yy
    torch.testing.assert_close(ica_competition.drift(r, tau, moments), expected, rtol=1e-10, atol=1e-12)


def test_the_equation_predicts_the_staircase_and_the_competition():
    config = ica_competition.Config()
    cases = {case.tau: case for case in ica_competition.staircase_cases(config)}
    finals = {tau: ica_competition.solve(case, 150)[-1].diagonal() for tau, case in cases.items()}
    counts = [int((finals[tau] > 0.8).sum()) for tau in (0.02, 0.05, 0.1)]
    assert counts == [2, 1, 0]
    for final in finals.values():
        assert (final.diff() < 0).all()  # the larger the fourth moment, the sooner lost
    apart, *_, together = ica_competition.competition_cases(config)
    passed = [
        ica_competition._passed(ica_competition.solve(case, 250)[:, None].abs().amax(-2))[0, :2].max().item()
        for case in (apart, together)
    ]
    assert passed[1] > 1.5 * passed[0]


def test_the_polar_factor_of_a_sample():
    generator = torch.Generator().manual_seed(0)
    w = torch.linalg.qr(torch.randn(5, 40, 3, generator=generator, dtype=torch.float64)).Q
    for size, tolerance in ((1e-3, 1e-9), (0.03, 1e-4), (0.5, 1e-12)):  # a step, a step, the exact root
        near = w + size * torch.randn(w.shape, generator=generator, dtype=torch.float64) / math.sqrt(40)
        u, _, vh = torch.linalg.svd(near, full_matrices=False)
        torch.testing.assert_close(ica_competition._polar(near), u @ vh, rtol=0, atol=tolerance)


def test_runs_follow_the_equation_closer_in_higher_dimension(ica):
    by_dimension = {
        d: sum(row["rms distance of one run"] for row in ica["overlay"] if row["d"] == d)
        for d in (ICA.dimension, ICA.overlay)
    }
    assert by_dimension[ICA.overlay] < by_dimension[ICA.dimension]
    assert by_dimension[ICA.overlay] / 3 < 0.15
    assert ica["staircase"][-1]["found"] == 0


# All of them.


EXPERIMENTS = {
    "muoneq_spectrum": (muoneq_spectrum, MUONEQ, "muoneq"),
    "mimuon_gate": (mimuon_gate, MIMUON, "mimuon"),
    "isotropic_curvature": (isotropic_curvature, CURVATURE, "curvature"),
    "ica_competition": (ica_competition, ICA, "ica"),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_main_writes_the_files(name, request, monkeypatch, tmp_path):
    module, config, fixture = EXPERIMENTS[name]
    rows = request.getfixturevalue(fixture)
    monkeypatch.setattr(module, "run", lambda config: rows)
    module.main(replace(config, out=tmp_path))
    folder = tmp_path
    assert sorted(file.name for file in folder.iterdir()) == ["figure.png", "results.json", "table.md"]
    result = json.loads((folder / "results.json").read_text())
    assert result["verdict"] in (folder / "table.md").read_text()
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
