"""The experiment on real scans: what it measures, and that every method is called as it should be."""

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("experiments.registration._registration_peers", exc_type=ImportError)

from stones import moved, stone

from datasets.registration_pairs import Pair
from experiments.registration import registration_real
from experiments.registration.registration_real import Config, Goal, Judge, anywhere
from svdrot.io.points import write_points
from svdrot.io.transforms import write_transform
from svdrot.registration import Transform

TRUTH = moved(angle=0.1, length=0.05)
VOXEL = 0.08


def pair() -> Pair:
    return Pair(stone(), TRUTH.apply(stone(seed=1)), TRUTH, "stone")


def test_errors_are_those_of_the_transform():
    judge = Judge(pair(), Goal(VOXEL, 0.5, 1.0, 0.02))
    exact = judge(TRUTH)
    assert exact["RRE deg"] < 1e-6 and exact["RTE cm"] < 1e-12 and exact["fitness"] > 0.95
    one = torch.ones((), dtype=torch.float64)
    off = Transform(torch.eye(3, dtype=torch.float64), torch.tensor([0.03, 0.0, 0.04]).double(), one)
    assert judge(off @ TRUTH)["RTE cm"] == pytest.approx(5)
    assert judge(Transform.identity(dtype=torch.float64))["RRE deg"] == pytest.approx(math.degrees(0.1))
    far = Transform(off.rotation, 1e3 * torch.ones(3, dtype=torch.float64), one)
    assert judge(far)["fitness"] == 0


@pytest.mark.parametrize(
    ("angle", "length", "reached"),
    [(1.0, 2.0, True), (1.01, 2.0, False), (1.0, 2.01, False), (math.nan, 0, False)],
)
def test_a_goal_is_reached_by_both_errors(angle, length, reached):
    assert Goal(0.1, 0.5, 1.0, 0.02).reached({"RRE deg": angle, "RTE cm": length}) == reached


def test_a_source_elsewhere_is_judged_as_where_it_lies():
    """Its truth is TRUTH after the way back, so what is found there, after the way there, is TRUTH."""
    for seed in range(3):
        away = anywhere(pair(), seed)
        assert (away.apply(stone()) - stone()).norm(dim=1).min() > 0.01
        found = TRUTH @ away.inverse()
        torch.testing.assert_close((found @ away).matrix, TRUTH.matrix, rtol=1e-12, atol=1e-12)
    assert not torch.equal(anywhere(pair(), 0).matrix, anywhere(pair(), 1).matrix)


@pytest.mark.parametrize("name", registration_real.LOCAL)
def test_every_local_method_takes_source_to_target(name):
    goal = Goal(VOXEL, 0.3, 3.0, 0.02)  # point-to-point stays behind: surfaces of different points
    found = registration_real.LOCAL[name](
        pair().source, pair().target, goal.to_finest(), Transform.identity(dtype=torch.float64)
    )
    assert goal.reached(Judge(pair(), goal)(found))


@pytest.mark.parametrize("name", registration_real.GLOBAL)
def test_every_global_method_takes_source_to_target(name):
    away = anywhere(pair(), 0)
    goal = Goal(VOXEL, 0.3, 10.0, 0.1)
    found = registration_real.GLOBAL[name](away.apply(pair().source), pair().target, VOXEL, 0)
    assert goal.reached(Judge(pair(), goal)(found @ away))


def test_a_folder_of_the_same_form_is_read(tmp_path, monkeypatch):
    write_points(tmp_path / "source.ply", stone(1500))
    write_points(tmp_path / "target.xyz", TRUTH.apply(stone(1500, seed=1)))
    write_transform(tmp_path / "transform.json", TRUTH)
    for table, kept in (("LOCAL", "svdrot point-to-plane"), ("GLOBAL", "svdrot")):
        monkeypatch.setattr(registration_real, table, {kept: getattr(registration_real, table)[kept]})
    tables, figure, verdict = registration_real.run(Config(root=Path(tmp_path), seeds=1, repeats=1))
    local, globally = tables.values()
    assert [row["scales"] for row in local] == ["one", "to finest"]
    assert [row["start"] for row in globally] == ["as it lies", "anywhere"]
    assert {"RRE deg", "RTE cm", "fitness", "rmse cm", "CPU ms", "reached"} <= local[0].keys()
    assert len(figure.axes) == 3 and tmp_path.name in verdict
