"""The files of the BOP benchmark: their rows, the pairing with the truth, and errors that say where."""

from pathlib import Path

import pytest
import torch

import svdrot
from svdrot.io import bop

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "object_poses"
GOOD = "2,3,1,0.5,1 0 0 0 1 0 0 0 1,10 -20.5 1000,-1"


def write(path, *rows):
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("head", [[], [bop.NAMES], ["scene_id, im_id, obj_id, score, R, t, time"]])
def test_rows_are_read(tmp_path, head):
    found = bop.read_bop(write(tmp_path / "a.csv", *head, GOOD, GOOD.replace("2,3,1", "4,5,6")))
    assert len(found) == 2
    assert (
        found.scene.tolist() == [2, 4] and found.image.tolist() == [3, 5] and found.object.tolist() == [1, 6]
    )
    assert found.score.tolist() == [0.5, 0.5] and found.time.tolist() == [-1, -1]
    assert found.pose.translation[1].tolist() == [10, -20.5, 1000]
    assert torch.equal(found.pose.rotation[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD.removesuffix(",-1"), "wanted `scene_id"),
        (GOOD + ",7", "wanted `scene_id"),
        (GOOD.replace("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0"), "R of 9, t of 3"),
        (GOOD.replace("10 -20.5 1000", "10 -20.5 1000 3"), "R of 9, t of 3"),
        (GOOD.replace("1000", "nan"), "wanted `scene_id"),
        (GOOD.replace("2,3,1", "2,3.5,1"), "wanted `scene_id"),
        (GOOD.replace("2,3,1", "2,3_0,1"), "wanted `scene_id"),
        (GOOD.replace("2,3,1", f"2,{10**20},1"), "wanted `scene_id"),
        (GOOD.replace("0.5", "high"), "wanted `scene_id"),
        (GOOD.replace("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0 1.1"), "is off by 0.21"),
        (GOOD.replace("1 0 0 0 1 0 0 0 1", "1 0 0 0 1 0 0 0 -1"), "is a reflection"),
        (bop.NAMES, "wanted `scene_id"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=rf"bad\.csv, line 3: .*{message}"):
        bop.read_bop(write(tmp_path / "bad.csv", bop.NAMES, GOOD, row, GOOD))


def test_files_without_rows_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"empty\.csv holds no poses"):
        bop.read_bop(write(tmp_path / "empty.csv", bop.NAMES))
    with pytest.raises(FileNotFoundError):
        bop.read_bop(tmp_path / "missing.csv")


def test_the_surest_estimate_meets_the_only_instance(tmp_path):
    def row(image, thing, score):
        return GOOD.replace("2,3,1,0.5", f"2,{image},{thing},{score}")

    truth = bop.read_bop(
        write(tmp_path / "t.csv", row(1, 1, 1), row(1, 2, 1), row(1, 2, 1), row(2, 1, 1), row(3, 1, 1))
    )
    guesses = [row(2, 1, 0.1), row(2, 1, 0.7), row(2, 1, 0.7), row(1, 2, 0.9), row(1, 1, 0.2), row(9, 9, 1)]
    i, j = bop.single_instances(bop.read_bop(write(tmp_path / "e.csv", *guesses)), truth)
    assert i.tolist() == [4, 1] and j.tolist() == [0, 3]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the poses of LM-O are not at {REAL}")
def test_the_poses_of_lmo():
    """Angles by acos of the trace are 0.2 degrees less: some of the true matrices are too large."""
    truth, estimates = bop.read_bop(REAL / "gt_lmo-test.csv"), bop.read_bop(REAL / "megapose_lmo-test.csv")
    assert (len(truth), len(estimates)) == (1445, 1645)
    i, j = bop.single_instances(estimates, truth)
    assert len(i) == 1205
    a, b = estimates.pose.rotation[i], truth.pose.rotation[j]
    acos = (((a * b).sum((-2, -1)) - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert acos.median().item() == pytest.approx(6.46, abs=0.005)
    assert (acos < 5).double().mean().item() == pytest.approx(0.402, abs=5e-4)
    assert (acos < 10).double().mean().item() == pytest.approx(0.639, abs=5e-4)
    angle = svdrot.geodesic_distance(a, svdrot.special_orthogonalize(b)).rad2deg()
    assert angle.median().item() == pytest.approx(6.655, abs=5e-4)
    apart = (estimates.pose.translation[i] - truth.pose.translation[j]).norm(dim=-1)
    assert apart.median().item() == pytest.approx(15.9, abs=0.05)
    gram = truth.pose.rotation @ truth.pose.rotation.mT - torch.eye(3, dtype=torch.float64)
    assert gram.abs().max().item() == pytest.approx(9.6e-3, abs=5e-5)
