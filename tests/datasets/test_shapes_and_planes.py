"""Generated shapes without symmetry, and the loader of the aeroplanes in both of their forms."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from datasets import planes, shapes

# Shapes.


def test_there_are_a_dozen_families():
    assert len(shapes.FAMILIES) >= 12


@pytest.mark.parametrize("family", shapes.FAMILIES)
def test_clouds_are_centered_in_the_unit_ball(family):
    clouds = shapes.clouds(5, 100, families=[family])
    assert clouds.shape == (5, 100, 3) and clouds.dtype == np.float32
    np.testing.assert_allclose(clouds.min(1), -clouds.max(1), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(clouds, axis=2).max(1), 1, rtol=1e-6)


def test_clouds_depend_on_the_seed_and_their_index_alone():
    many = shapes.clouds(40, 64, seed=3)
    np.testing.assert_array_equal(shapes.clouds(40, 64, seed=3), many)
    np.testing.assert_array_equal(shapes.clouds(7, 64, seed=3), many[:7])
    assert len(np.unique(np.concatenate([many, shapes.clouds(40, 64, seed=4)]), axis=0)) == 80


def test_points_are_uniform_by_area():
    """A share t² of a cone of unit slant is nearer than t to its tip; faces of a box get their shares."""
    a, b = np.random.default_rng(0).random((2, 20_000))
    (cone,) = shapes._tube([(0, 0, 0), (0, 0, 0.8)], [0, 0.6])
    slant = np.linalg.norm(cone.surface(a, b), axis=1)
    assert cone.area == pytest.approx(np.pi * 0.6)
    assert [(slant < t).mean() for t in (0.3, 0.6, 0.9)] == pytest.approx([0.09, 0.36, 0.81], abs=0.02)
    box = shapes._scatter(shapes._box((0, 0, 0), (1, 2, 3)), 20_000, np.random.default_rng(1))
    on_faces = [np.isclose(abs(box[:, i]), size / 2).mean() for i, size in enumerate((1, 2, 3))]
    assert on_faces == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.02)


@pytest.mark.parametrize(
    "arguments", [{"families": ["unicorn"]}, {"families": []}, {"points": 0}, {"count": -1}]
)
def test_shapes_refuse(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        shapes.clouds(**{"count": 2, **arguments})


def distance_to_nearest_turn(cloud):
    """How far a cloud is at least from a turned copy of it, in units of the distance of two samples of it.

    The turns are of 180, 120 and 90 degrees about the centroid, about the axes of the coordinates, of
    inertia and a grid of others: a shape that is symmetric about one axis alone is so about one of inertia.
    """
    cloud = cloud - cloud.mean(0)
    one, other = np.random.default_rng(0).permutation(cloud).reshape(2, -1, 3)
    tree = KDTree(one)

    def distance(turn):
        moved = other @ turn.T
        return (tree.query(moved)[0].mean() + KDTree(moved).query(one)[0].mean()) / 2

    k = np.arange(20) + 0.5
    z, longitude = 1 - k / 20, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - z * z)
    grid = np.stack([ring * np.cos(longitude), ring * np.sin(longitude), z], 1)
    axes = np.concatenate([np.eye(3), np.linalg.svd(cloud)[2], grid])
    turns = [Rotation.from_rotvec(angle * axes, degrees=True).as_matrix() for angle in (180, 120, 90)]
    return min(map(distance, np.concatenate(turns))) / distance(np.eye(3))


@pytest.mark.parametrize("family", shapes.FAMILIES)
def test_no_turn_brings_a_shape_back(family):
    for cloud in shapes.clouds(2, 1024, seed=7, families=[family]):
        assert distance_to_nearest_turn(cloud) > 1.4


@pytest.mark.parametrize(
    "parts",
    [
        shapes._tube([(0, 0, 0), (0, 0, 1)], [0.2, 0.5]),
        shapes._box((0, 0, 0), (1, 2, 3)),
        shapes._triangle((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ],
    ids=["cone", "box", "triangle"],
)
def test_the_measure_of_that_sees_symmetry(parts):
    cloud = shapes._normalize(shapes._scatter(parts, 1024, np.random.default_rng(0)))
    assert distance_to_nearest_turn(cloud) < 1.25


# Aeroplanes.


def write_text(folder, name, cloud):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pts").write_text("".join(f"{x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in cloud))


@pytest.fixture
def both_forms(tmp_path):
    """The same nine clouds as text files and packed, and one test cloud as text."""
    rng = np.random.default_rng(0)
    names = [f"plane{k}" for k in rng.permutation(9)]
    whole = {name: rng.integers(-49_999, 50_000, (int(rng.integers(4, 9)), 3)) for name in names}
    for name, cloud in whole.items():
        write_text(tmp_path / "text" / "points", name, cloud / 1e5)
    write_text(tmp_path / "text" / "points_test", "unseen", np.ones((4, 3)))
    halves = [whole[name][: len(whole[name]) // 2] for name in names]
    flat = np.concatenate(halves)
    (tmp_path / "packed").mkdir()
    np.savez_compressed(
        tmp_path / "packed" / planes.PACKED,
        lo=(flat & 0xFFFF).astype(np.uint16),
        hi=(flat >> 16).astype(np.int8),
        offsets=np.cumsum([0, *map(len, halves)]).astype(np.int32),
        ids=np.array(names),
        full_counts=np.array([len(whole[name]) for name in names], np.int32),
    )
    return tmp_path / "text", tmp_path / "packed", {name: cloud / 1e5 for name, cloud in whole.items()}


def test_both_forms_hold_the_same_clouds(both_forms):
    text, packed, whole = planes.load(both_forms[0]), planes.load(both_forms[1]), both_forms[2]
    assert len(text) == len(packed) == 9
    for clouds in (text, packed):
        for name, cloud in zip(clouds.ids, clouds, strict=True):
            assert cloud.dtype == np.float32
            np.testing.assert_array_equal(cloud, whole[name][: len(whole[name]) // 2].astype(np.float32))


def test_split_holds_out_the_same_clouds_of_both_forms(both_forms):
    parts = []
    for root in both_forms[:2]:
        clouds = planes.load(root)
        training, validation = planes.split(clouds, 3)
        assert sorted([*training, *validation]) == list(range(9))
        parts.append({clouds.ids[k] for k in validation})
    assert parts[0] == parts[1] and len(parts[0]) == 3
    with pytest.raises(ValueError, match="`validation`"):
        planes.split(clouds, 9)


def test_whole_files_and_test_clouds_come_from_text(both_forms):
    root, _, whole = both_forms
    clouds = planes.load(root, first_half=False)
    assert [len(cloud) for cloud in clouds] == [len(whole[name]) for name in clouds.ids]
    np.testing.assert_array_equal(planes.load(root, test=True)[0], np.ones((2, 3)))


@pytest.mark.parametrize("options", [{}, {"test": True}, {"first_half": False}])
def test_missing_clouds_are_named_with_their_source(both_forms, tmp_path, options):
    with pytest.raises(FileNotFoundError) as error:
        planes.load(tmp_path / "nowhere", **options)
    wanted = [
        "nowhere",
        "points_test" if options.get("test") else "points",
        "papagina/RotationContinuity",
        "ShapeNet",
    ]
    assert all(word in str(error.value) for word in wanted)
    assert (planes.PACKED in str(error.value)) == (options == {})
    if options:
        with pytest.raises(FileNotFoundError):
            planes.load(both_forms[1], **options)


@pytest.mark.parametrize("line", ["0.1 0.2", "0 0 0 0.4", "0 0 x", "0 nan 0", "1e300 0 0", "1_0 0 0", ""])
def test_malformed_text_is_named_by_file_and_line(tmp_path, line):
    file = tmp_path / "bad.pts"
    file.write_text(f"0.1 0.2 0.3\n{line}\n0.1 0.2 0.3\n")
    with pytest.raises(ValueError, match=r"bad\.pts, line 2"):
        planes.read_pts(file)


def test_empty_and_binary_text_is_refused(tmp_path):
    (tmp_path / "empty.pts").touch()
    with pytest.raises(ValueError, match=r"empty\.pts"):
        planes.read_pts(tmp_path / "empty.pts")
    (tmp_path / "binary.pts").write_bytes(b"0.1 0.2 \xff")
    with pytest.raises(ValueError, match=r"binary\.pts .*byte 8"):
        planes.read_pts(tmp_path / "binary.pts")


def test_packing_keeps_every_decimal(both_forms, tmp_path):
    text, packed, _ = both_forms
    planes.pack(text / "points", tmp_path / planes.PACKED)
    with np.load(tmp_path / planes.PACKED) as new, np.load(packed / planes.PACKED) as old:
        order = np.argsort(old["ids"])
        np.testing.assert_array_equal(new["ids"], old["ids"][order])
        np.testing.assert_array_equal(new["full_counts"], old["full_counts"][order])
        assert {name: new[name].dtype for name in new.files} == {name: old[name].dtype for name in old.files}
    clouds, again = planes.load(packed), planes.load(tmp_path)
    for k, cloud in zip(order, again, strict=True):
        np.testing.assert_array_equal(cloud, clouds[k])
    with pytest.raises(FileNotFoundError, match=r"(?s)nothing/\*\.pts.*papagina"):
        planes.pack(tmp_path / "nothing", tmp_path / "new.npz")
    for line in ("0.123456 0 0", "0 0 1.5"):
        write_text(tmp_path / "points", "fine", np.ones((4, 3)))
        (tmp_path / "points" / "odd.pts").write_text(f"{line}\n0 0 0\n")
        with pytest.raises(ValueError, match=r"odd\.pts: wanted coordinates of five decimals"):
            planes.pack(tmp_path / "points", tmp_path / "new.npz")
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"hi": None, "offsets": None, "ids": None}, "lacks the arrays .*'hi', 'ids', 'offsets'"),
        ({"lo": np.zeros((4, 2), np.uint16)}, r"wanted `lo` \(P, 3\) of uint16 .*\(4, 2\)"),
        ({"lo": np.zeros((4, 3), np.int32)}, "of int32"),
        ({"lo": np.zeros((), np.uint16)}, r"wanted `lo` \(P, 3\) of uint16 .*\(\)"),
        ({"hi": np.zeros((3, 3), np.int8)}, r"and \(3, 3\) of int8"),
        ({"offsets": np.array([0, 2])}, "wanted `offsets` that rise from 0 to 4"),
        ({"offsets": np.array([0, 2, 5])}, "wanted `offsets`"),
        ({"offsets": np.array([1, 2, 4])}, "wanted `offsets`"),
        ({"offsets": np.array([0, 4, 4])}, "wanted `offsets`"),
        ({"offsets": np.array([0.0, 2, 4])}, "wanted `offsets`"),
        ({"offsets": np.array([0, 5, 4], np.uint32)}, "wanted `offsets`"),
        ({"ids": np.array(["a"])}, "the 1 names"),
        ({"ids": np.array([1, 2])}, "wanted `offsets`"),
        ({"ids": np.array("a")}, "wanted `offsets`"),
    ],
)
def test_broken_packs_are_named(tmp_path, changed, message):
    whole = {
        "lo": np.zeros((4, 3), np.uint16),
        "hi": np.zeros((4, 3), np.int8),
        "offsets": np.array([0, 2, 4]),
        "ids": np.array(["a", "b"]),
    }
    arrays = {name: array for name, array in (whole | changed).items() if array is not None}
    np.savez(tmp_path / planes.PACKED, **arrays)
    with pytest.raises(ValueError, match=rf"train2290\.npz.*{message}"):
        planes.load(tmp_path)[0]


def test_cut_packs_are_named(both_forms):
    file = both_forms[1] / planes.PACKED
    content = file.read_bytes()
    for kept in (0, 3, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"train2290\.npz"):
            planes.load(both_forms[1])[0]


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "planes"


@pytest.mark.skipif(not (REAL / planes.PACKED).exists(), reason=f"the aeroplanes are not at {REAL}")
def test_the_published_clouds():
    clouds = planes.load(REAL)
    training, validation = planes.split(clouds)
    assert (len(clouds), len(training), len(validation)) == (2290, 1890, 400)
    assert clouds.ids == sorted(set(clouds.ids))
    everyone = list(clouds)
    sizes = [len(cloud) for cloud in everyone]
    assert (min(sizes), max(sizes), sum(sizes)) == (826, 1453, 2_952_335)
    points = np.concatenate(everyone).astype(np.float64)
    assert np.linalg.norm(points, axis=1).max() < 0.5
    assert (
        np.abs(points * 1e5 - np.rint(points * 1e5)).max() < 2e-3
    )  # five decimals, but for float32's rounding
