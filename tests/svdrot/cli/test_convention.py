"""The command `convention`: what it prints, its exit codes, and the files it does not read."""

import numpy as np
import pytest
import torch

import svdrot
from svdrot import cli


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Rotations as matrices, transposed as quaternions, unrelated ones, and turns about one axis."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    m, other = (svdrot.random_rotation(20, dtype=torch.float64, generator=generator) for _ in range(2))
    quaternion = svdrot.matrix_to_quaternion(m.mT).roll(-1, -1)
    np.save("matrices.npy", m)
    np.savez("quaternions.npz", q=quaternion)
    np.savez("two.npz", a=m, b=m)
    np.savetxt("quaternions.csv", quaternion, delimiter=",", header="x,y,z,w", comments="", fmt="%.9f")
    np.savetxt("nine.txt", m.flatten(-2))
    np.save("other.npy", other)
    np.save("yaw.npy", svdrot.axis_angle_to_matrix(torch.linspace(-3, 2, 9)[:, None] * torch.eye(3)[2]))
    np.save("words.npy", np.array(["a"]))
    (tmp_path / "empty.csv").write_text("x,y,z\n")
    (tmp_path / "broken.txt").write_text("1 2 3\n4 five 6\n")
    (tmp_path / "cloud.ply").write_text("ply\n")
    return tmp_path


@pytest.mark.parametrize("b", ["quaternions.npz", "quaternions.csv"])
@pytest.mark.parametrize("a", ["matrices.npy", "nine.txt"])
def test_a_convention_that_is_found_ends_with_0(files, a, b, capsys):
    assert cli.main(["convention", a, b]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("found: 20 rows agree within ")
    told, code = lines[:-1], lines[-1]
    assert told[1:] == [
        "b: quaternions x y z w",
        "transposed: active against passive, or from and to exchanged",
    ]
    names = {"svdrot": svdrot, "a": torch.as_tensor(np.load(a) if a.endswith("npy") else np.loadtxt(a))}
    exec(code, names)
    np.testing.assert_allclose(names["b"], np.load("quaternions.npz")["q"], atol=1e-12)


def test_no_convention_ends_with_1_and_several_with_4(files, capsys):
    assert cli.main(["convention", "matrices.npy", "other.npy"]) == 1
    assert capsys.readouterr().out.startswith("none: the nearest of ")
    assert cli.main(["convention", "yaw.npy", "yaw.npy"]) == 4
    assert capsys.readouterr().out.startswith("ambiguous: ")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("missing.npy", "There is no file missing.npy."),
        ("cloud.ply", "cloud.ply: wanted npy, npz, txt or csv; got .ply."),
        ("two.npz", "two.npz: wanted one array; it has a, b."),
        ("words.npy", "words.npy: wanted real numbers; got <U1."),
        ("empty.csv", "empty.csv holds no rotation."),
        ("broken.txt", "broken.txt, line 2: wanted 3 numbers; got '4 five 6'."),
        (".", ". is a folder, not a file of rotations."),
        ("yaw.npy", "`a` and `b` must be rotations of the same batch shape"),
    ],
)
def test_what_cannot_be_read_ends_with_2(files, file, message, capsys):
    assert cli.main(["convention", "matrices.npy", file]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("svdrot convention: ") and message in printed.err


def test_bad_usage_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["convention", "a.npy"])
    assert ended.value.code == 2 and "required: B" in capsys.readouterr().err
