"""Pairs of clouds: folders, lists of 3DMatch, and the protocols on objects, by what each says of clouds."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import svdrot
from datasets.registration_pairs import (
    PROTOCOLS,
    Protocol,
    find_pairs,
    object_pair,
    object_pairs,
    read_information,
    read_log,
    read_pair,
    unit_ball,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ROUNDING = 1e-13  # of a product and a sum of numbers below 10, in float64


def surface(count=2048, seed=0):
    return unit_ball(
        torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )


# Folders.


def write_pair(folder, source="source.npy", target="target.npy", transform="transform.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    cloud = surface(20)
    np.save(folder / source, cloud.numpy())
    np.save(folder / target, cloud.numpy() + 1)
    matrix = np.eye(4)
    matrix[:3, 3] = 1
    if transform.endswith("npy"):
        np.save(folder / transform, matrix)
    else:
        np.savetxt(folder / transform, matrix)
    return cloud


@pytest.mark.parametrize(
    "names",
    [
        ("source.npy", "target.npy", "transform.txt"),
        ("src.npy", "ref.npy", "gt.npy"),
        ("src.npy", "target.npy", "T_ref_src.txt"),
    ],
)
def test_pairs_are_read_by_their_names(tmp_path, names):
    cloud = write_pair(tmp_path / "scene", *names)
    pair = read_pair(tmp_path / "scene")
    assert pair.name == "scene" and torch.equal(pair.source, cloud)
    assert (pair.truth.apply(pair.source) - pair.target).abs().max() < ROUNDING


def test_clouds_may_be_arrays_of_one_file(tmp_path):
    cloud = surface(20).numpy()
    np.savez(tmp_path / "both.npz", src=cloud, ref=cloud + 1, other=np.eye(4))
    np.savetxt(tmp_path / "transform.txt", np.eye(4))
    pair = read_pair(tmp_path)
    assert np.array_equal(pair.source.numpy(), cloud) and np.array_equal(pair.target.numpy(), cloud + 1)


def test_pairs_are_found(tmp_path):
    for name in ("b", "a"):
        write_pair(tmp_path / name)
    (tmp_path / "empty").mkdir()
    write_pair(tmp_path / "c", "source.npy", "other.npy")
    assert [path.name for path in find_pairs(tmp_path)] == ["a", "b"]
    assert find_pairs(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(FileNotFoundError, match=r"no pairs .*empty.*source\.\* or src\.\*"):
        find_pairs(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"has no target\.\* or ref\.\*; it holds \['other'"):
        read_pair(tmp_path / "c")


def test_a_broken_part_of_a_pair_is_named(tmp_path):
    write_pair(tmp_path)
    (tmp_path / "target.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"target\.npy"):
        read_pair(tmp_path)
    write_pair(tmp_path)
    np.savetxt(tmp_path / "transform.txt", np.diag([1, 1, -1, 1]))
    with pytest.raises(ValueError, match=r"transform\.txt.*reflection"):
        read_pair(tmp_path)


@pytest.mark.skipif(
    not (DATA / "registration").is_dir(), reason=f"the pairs are not at {DATA / 'registration'}"
)
def test_the_real_pairs():
    expected = {
        "indoor_geotransformer_demo": (15953, 18977, 17.8, 0.52),
        "kitchen_3dmatch_0_1": (106587, 109163, 50.1, 1.54),
        "lidar_small_gicp": (69792, None, 0.71, 0.50),
    }
    pairs = [read_pair(folder) for folder in find_pairs(DATA / "registration")]
    assert [pair.name for pair in pairs] == sorted(expected)
    for pair in pairs:
        sources, targets, degrees, meters = expected[pair.name]
        assert len(pair.source) == sources and targets in (None, len(pair.target))
        eye = torch.eye(3, dtype=torch.float64)
        angle = svdrot.geodesic_distance(pair.truth.rotation, eye)
        assert torch.rad2deg(angle).item() == pytest.approx(degrees, abs=0.06)
        assert pair.truth.translation.norm().item() == pytest.approx(meters, abs=0.006)
        assert svdrot.is_rotation(pair.truth.rotation) and pair.truth.scale == 1


# Lists.


def log(pairs, size, matrix):
    rows = "\n".join(" ".join(f"{x:.17g}" for x in row) for row in matrix)
    return "".join(f"{i}\t {j}\t {n}\n{rows}\n" for i, j, n in pairs)


def test_lists_are_read(tmp_path):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = svdrot.random_rotation(dtype=torch.float64)
    matrix[:3, 3] = torch.randn(3, dtype=torch.float64)
    (tmp_path / "gt.log").write_text(log([(0, 1, 60), (0, 5, 60)], 4, matrix))
    found, transform = read_log(tmp_path / "gt.log")
    assert found.pairs.tolist() == [[0, 1], [0, 5]] and found.fragments == 60
    assert torch.equal(transform.matrix, matrix.expand(2, 4, 4))
    moments = torch.randn(6, 6, dtype=torch.float64)
    (tmp_path / "gt.info").write_text(log([(0, 1, 60)] * 3, 6, moments))
    found = read_information(tmp_path / "gt.info")
    assert torch.equal(found.values, moments.expand(3, 6, 6)) and found.pairs.shape == (3, 2)


EYE = log([(0, 1, 9)], 4, torch.eye(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pairs"),
        (EYE + "0 2 9\n1 0 0 0\n0 1 0 0\n", r"line 8: the file ends within the 4 rows of the pair at line 6"),
        (EYE + EYE.replace("0\t 1\t 9", "0 1"), "line 6: wanted 3 finite numbers, `i j fragments`"),
        (EYE.replace("0\t 1\t 9", "0 1.5 9"), "line 1: wanted integers"),
        (EYE.replace("0\t 1\t 9", "0 9 9"), "line 1: wanted two of the fragments, from 0 on; got '0 9 9'"),
        (EYE.replace("0\t 1\t 9", "-5 1 9"), "line 1: wanted two of the fragments"),
        (EYE.replace("0\t 1\t 9", "0 1 -9"), "line 1: wanted two of the fragments"),
        (EYE + EYE.replace("0\t 1\t 9", "0 1 8"), "line 6: wanted two of 9 fragments, as many as"),
        (EYE + EYE.replace("0 1 0 0", "0 1 0"), "line 8: wanted 4 finite numbers"),
        (EYE + EYE.replace("0 1 0 0", "0 nan 0 0"), "line 8: wanted 4 finite numbers"),
        (EYE + EYE.replace("0 1 0 0", "0 2 0 0"), "line 6: wanted a rotation.* off by 3"),
        (EYE + EYE.replace("0 0 0 1", "0 0 0 2"), "line 6: the last row"),
    ],
)
def test_broken_lists_are_named(tmp_path, content, message):
    (tmp_path / "gt.log").write_text(content)
    with pytest.raises(ValueError, match=rf"gt\.log.*{message}"):
        read_log(tmp_path / "gt.log")


# Objects.


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_pair_depends_on_its_index_and_the_seed_alone(name):
    clouds = [surface(seed=k) for k in range(3)]
    many = object_pairs(clouds, PROTOCOLS[name], range(5))
    (again,) = object_pairs(clouds, PROTOCOLS[name], [4])
    for part in ("source", "target", "matches", "surface"):
        assert torch.equal(getattr(again, part), getattr(many[4], part))
    assert torch.equal(again.truth.matrix, many[4].truth.matrix) and again.name == "1 4"
    (other,) = object_pairs(clouds, PROTOCOLS[name], [4], seed=1)
    assert not torch.equal(other.truth.matrix, again.truth.matrix)
    assert not torch.equal(many[3].truth.matrix, again.truth.matrix)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_matches_are_the_same_points(name):
    """What is left between them is the noise of both, at most `clip` along each axis of each frame."""
    protocol = PROTOCOLS[name]
    for pair in object_pairs([surface()], protocol, range(4)):
        i, j = pair.matches.unbind(1)
        assert len(i) and len(i.unique()) == len(j.unique()) == len(i)
        left = pair.truth.apply(pair.source[i]) - pair.target[j]
        off = left.square().mean(0).sqrt()
        expected = 0 if protocol.shared_noise else math.sqrt(2) * protocol.noise
        assert (off - expected).abs().max() < 0.1 * expected + ROUNDING
        on_surface = torch.cdist(pair.source, pair.surface).amin(1)
        assert on_surface.max() <= math.sqrt(3) * protocol.clip * (protocol.noise > 0) + 1e-6
        assert pair.surface.norm(dim=-1).max() <= 1 + ROUNDING


def test_numbers_of_points():
    sizes = {
        name: [
            (len(p.source), len(p.target), len(p.matches))
            for p in object_pairs([surface()], protocol, [0, 1])
        ]
        for name, protocol in PROTOCOLS.items()
    }
    assert sizes["DCP"] == sizes["DCP noisy"] == [(1024, 1024, 1024)] * 2
    assert {size[:2] for size in sizes["PRNet"]} == {(768, 768)}
    assert {size[:2] for size in sizes["RPM-Net noisy"]} == {(1024, 1024)}
    assert {size[:2] for size in sizes["RPM-Net partial"]} == {(717, 717)}
    # Half of the points of the other, by chance: 512 of 1024, deviation 11.3 of the hypergeometric law.
    assert all(abs(size[2] - 512) < 60 for size in sizes["RPM-Net noisy"])


def test_angles_and_translations_are_uniform():
    tiny = Protocol(points=3)
    cloud = surface(3)
    truths = [object_pair(cloud, tiny, index=k).truth for k in range(2000)]
    rotation, translation = (
        torch.stack([getattr(t, of) for t in truths]) for of in ("rotation", "translation")
    )
    angles = svdrot.matrix_to_euler(rotation, "XYZ")  # R = Rx Ry Rz
    for values, low, high in ((angles, 0, math.pi / 4), (translation, -0.5, 0.5)):
        share = (values.sort(0).values - low) / (high - low)
        uniform = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
        assert (share - uniform[:, None]).abs().max() < 0.04  # Kolmogorov's distance for p = 0.003
    anywhere = [object_pair(cloud, replace(tiny, angle=None), index=k).truth.rotation for k in range(2000)]
    turn = svdrot.geodesic_distance(torch.stack(anywhere), torch.eye(3, dtype=torch.float64)).sort().values
    law = (turn - turn.sin()) / math.pi  # of the angle of a rotation drawn uniformly
    assert (law - uniform).abs().max() < 0.04


def is_among(points, cloud):
    return torch.cdist(points, cloud, compute_mode="donot_use_mm_for_euclid_dist").amin(1) < 1e-9


def divided_by_a_plane(points, inside):
    """Whether d . x + e is at least 1 for the points inside and at most -1 for others, for some d and e."""
    sides = torch.where(inside, -1.0, 1.0).double()[:, None]
    rows = sides * torch.cat((points, torch.ones(len(points), 1)), 1)
    found = linprog([0, 0, 0, 0], rows.numpy(), -np.ones(len(points)), bounds=(None, None))
    return found.success


def test_crops():
    """RPM-Net keeps what lies beyond a plane, one for each cloud; PRNet what is nearest to one far point."""
    cut = replace(PROTOCOLS["RPM-Net partial"], noise=0.0, points=2048)
    for pair in object_pairs([surface()], cut, range(3)):
        directions = []
        for cloud in (pair.source, pair.truth.inverse().apply(pair.target)):
            inside = is_among(pair.surface, cloud)
            assert len(cloud) == inside.sum() == 1434
            assert divided_by_a_plane(pair.surface, inside)
            directions.append(torch.nn.functional.normalize(cloud.mean(0), dim=0))
        assert directions[0] @ directions[1] < 0.99
    near = replace(PROTOCOLS["PRNet"], noise=0.0)
    for pair in object_pairs([surface()], near, range(3)):
        whole = pair.surface[:1024]
        for cloud, moved in ((pair.source, whole), (pair.target, pair.truth.apply(whole))):
            along = moved.sum(1) * cloud.mean(0).sub(moved.mean(0)).sum().sign()
            inside = is_among(moved, cloud)
            assert inside.sum() == 768
            assert (
                along[inside].min() > along[~inside].max() - 0.02
            )  # spheres of radius 870 are almost planes


def test_too_few_or_broken_points_are_refused():
    with pytest.raises(ValueError, match=r"`surface` must be at least 1024 finite points.* got \(1000, 3\)"):
        object_pair(surface(1000), PROTOCOLS["DCP"], index=0)
    broken = surface()
    broken[5, 1] = torch.nan
    with pytest.raises(ValueError, match="2047 rows of them finite"):
        object_pair(broken, PROTOCOLS["DCP"], index=0)


@pytest.mark.skipif(not (DATA / "meshes").is_dir(), reason=f"the meshes are not at {DATA / 'meshes'}")
def test_surfaces_of_meshes():
    pytest.importorskip("trimesh")
    meshes = sorted((DATA / "meshes").glob("*.obj"))
    few = [meshes[3], meshes[4]]
    first, second, third = object_pairs(few, PROTOCOLS["DCP"], [0, 1, 2])
    assert [pair.name for pair in (first, second, third)] == [
        "penguin 0",
        "spot_low_resolution 1",
        "penguin 2",
    ]
    assert first.surface.shape == (2048, 3) and not torch.equal(first.surface, third.surface)
    assert first.surface.mean(0).abs().max() < ROUNDING
    (again,) = object_pairs(few, PROTOCOLS["DCP"], [2])
    assert torch.equal(again.source, third.source)


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"\x93NUMPY"])
def test_a_broken_npz_is_named(content, tmp_path):
    (tmp_path / "both.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"both\.npz"):
        read_pair(tmp_path)
