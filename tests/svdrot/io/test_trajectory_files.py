"""Trajectories as text: round trips to the last bit, real files, and errors that name file and line."""

from pathlib import Path

import pytest
import torch

import svdrot
from svdrot.io.trajectories import read_kitti, read_tum, write_kitti, write_tum
from svdrot.registration import Transform

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "trajectories"
QUATERNION = 2e-15  # a rotation to its quaternion, to a matrix again: a few roundings of float64


def some_poses(count=20):
    generator = torch.Generator().manual_seed(0)
    rotation = svdrot.random_rotation(count, dtype=torch.float64, generator=generator)
    size = torch.logspace(-12, 8, count, dtype=torch.float64)[:, None]
    translation = torch.randn(count, 3, dtype=torch.float64, generator=generator) * size
    return Transform(rotation, translation, torch.ones_like(translation[:, 0]))


def test_kitti_files_read_back_to_the_last_bit(tmp_path):
    poses = some_poses()
    write_kitti(tmp_path / "poses.txt", poses)
    back = read_kitti(tmp_path / "poses.txt")
    assert torch.equal(back.rotation, poses.rotation)
    assert torch.equal(back.translation, poses.translation)
    assert [file.name for file in tmp_path.iterdir()] == ["poses.txt"]


def test_tum_files_read_back_to_the_last_bit_but_for_quaternions(tmp_path):
    poses, times = some_poses(), 1305031102.175304 + torch.rand(20, dtype=torch.float64)
    write_tum(tmp_path / "poses.txt", times, poses)
    read_times, back = read_tum(tmp_path / "poses.txt")
    assert torch.equal(read_times, times) and torch.equal(back.translation, poses.translation)
    assert (back.rotation - poses.rotation).abs().max() < QUATERNION


def test_tum_has_the_real_part_last(tmp_path):
    half = 0.5**0.5
    (tmp_path / "a.txt").write_text(f"1.5 1 2 3 0 0 {half!r} {half!r}\n")
    times, poses = read_tum(tmp_path / "a.txt")
    quarter = svdrot.axis_angle_to_matrix(torch.tensor([0, 0, torch.pi / 2], dtype=torch.float64))
    assert times.tolist() == [1.5] and poses.translation.tolist() == [[1, 2, 3]]
    assert (poses.rotation[0] - quarter).abs().max() < QUATERNION


def test_comments_empty_lines_and_both_ends_of_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(
        b"\xef\xbb\xbf# timestamp tx ty tz qx qy qz qw\r\n\r\n1 0 0 0 0 0 0 1\r\n  # x\n2 0\t0 0 0 0 0 -1"
    )
    times, poses = read_tum(file)
    assert times.tolist() == [1, 2]
    assert torch.equal(poses.rotation, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


IDENTITY = "1 0 0 5 0 1 0 6 0 0 1 7"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0 0 5 0 1 0 6 0 0 1", "wanted 12 finite numbers"),
        (IDENTITY + " 8", "wanted 12 finite numbers"),
        (IDENTITY.replace("5", "five"), "wanted 12 finite numbers"),
        (IDENTITY.replace("5", "nan"), "wanted 12 finite numbers"),
        (IDENTITY.replace("5", "-inf"), "wanted 12 finite numbers"),
        ("1 0 0 5 0 1.01 0 6 0 0 1 7", r"wanted a rotation.* is off by 0\.0201"),
        ("1 0 0 5 0 1 0 6 0 0 -1 7", "is a reflection"),
        ("0 0 0 5 0 0 0 6 0 0 0 7", "is off by 1"),
    ],
)
def test_a_bad_line_of_kitti_is_named(tmp_path, line, message):
    file = tmp_path / "bad.txt"
    file.write_text(f"# poses\n{IDENTITY}\n{line}\n{IDENTITY}\n")
    with pytest.raises(ValueError, match=rf"bad\.txt, line 3: .*{message}"):
        read_kitti(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0 0 0 0 0 1", "wanted 8 finite numbers"),
        ("2 0 0 nan 0 0 0 1", "wanted 8 finite numbers"),
        ("2,0,0,0,0,0,0,1", "wanted 8 finite numbers"),
        ("2 0 0 0 0 0 0 0", "length 0"),
        ("2 0 0 0 0 0.1 0 1", r"length 1\.00499"),
    ],
)
def test_a_bad_line_of_tum_is_named(tmp_path, line, message):
    file = tmp_path / "bad.txt"
    file.write_text(f"1 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(ValueError, match=rf"bad\.txt, line 2: .*{message}"):
        read_tum(file)


@pytest.mark.parametrize("read", [read_kitti, read_tum])
def test_files_without_poses_are_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="missing"):
        read(tmp_path / "missing.txt")
    for content in (b"", b"# only a comment\n\n"):
        (tmp_path / "empty.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"empty\.txt holds no poses"):
            read(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"binary\.txt is not a text file: byte 128"):
        read(tmp_path / "binary.txt")


def test_tolerance_and_projection(tmp_path):
    poses = some_poses()
    rough = Transform(poses.rotation * 1.002, poses.translation, poses.scale)
    write_kitti(tmp_path / "a.txt", rough)
    with pytest.raises(ValueError, match=r"line 1: .* is off by 0\.004"):
        read_kitti(tmp_path / "a.txt")
    assert torch.equal(read_kitti(tmp_path / "a.txt", tolerance=0.01).rotation, rough.rotation)
    projected = read_kitti(tmp_path / "a.txt", tolerance=0.01, project=True).rotation
    assert (projected - poses.rotation).abs().max() < QUATERNION


def test_what_no_reader_takes_is_not_written(tmp_path):
    poses, file = some_poses(), tmp_path / "a.txt"
    write_kitti(file, poses)
    before = file.read_bytes()
    broken = Transform(poses.rotation, poses.translation.clone(), poses.scale)
    broken.translation[4, 1] = torch.nan
    with pytest.raises(ValueError, match="infinity in pose 4, of 1 such"):
        write_kitti(file, broken)
    with pytest.raises(ValueError, match=r"`poses` must be rigid.* scales from 2 to 2"):
        write_kitti(file, Transform(poses.rotation, poses.translation, 2 * poses.scale))
    parts = (poses.rotation, poses.translation, poses.scale)
    for other in (Transform(*(part[0] for part in parts)), Transform(*(part[None] for part in parts))):
        with pytest.raises(ValueError, match=r"`poses` must be rigid, translations \(N, 3\)"):
            write_tum(file, torch.zeros(20), other)
        with pytest.raises(ValueError, match=r"`poses` must be rigid, translations \(N, 3\)"):
            write_kitti(file, other)
    with pytest.raises(ValueError, match="`timestamps` must be as many as the 20 poses"):
        write_tum(file, torch.zeros(19), poses)
    with pytest.raises(ValueError, match="infinity in pose 0, of 20 such"):
        write_tum(file, torch.full((20,), torch.nan), poses)
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the trajectories of KITTI 00 are not at {REAL}")
@pytest.mark.parametrize("name", ["gt", "ORB", "SPTAM"])
def test_the_files_of_kitti_00(name, tmp_path):
    poses = read_kitti(REAL / f"KITTI_00_{name}.txt")
    assert poses.translation.shape == (4541, 3)
    write_kitti(tmp_path / "again.txt", poses)
    assert torch.equal(read_kitti(tmp_path / "again.txt").rotation, poses.rotation)
    nearest = read_kitti(REAL / f"KITTI_00_{name}.txt", project=True).rotation
    assert svdrot.is_rotation(nearest).all() and (nearest - poses.rotation).abs().max() < 1e-6
