"""ModelNet40 on small files of its two layouts: what is read, what is refused, and points uniform by area."""

import hashlib

import h5py
import numpy as np
import pytest
import torch

from datasets import modelnet

# A box 1 x 2 x 3: a quadrilateral, colors behind a face, a comment, triangles for the rest.
BOX = """OFF
8 11 0
0 0 0
1 0 0
1 2 0
0 2 0
0 0 3
1 0 3
1 2 3
0 2 3
# faces
3 0 3 2
3 4 5 6
3 4 6 7
3 0 1 5
3 0 5 4
3 1 2 6
3 1 6 5
3 2 3 7
3 2 7 6
4 3 0 4 7 255 0 0
3 0 2 1
"""


def write(folder, text, name="box.off"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def area(vertices, triangles):
    a, b, c = vertices[triangles].unbind(1)
    return torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=1).sum().item() / 2


# Meshes.


@pytest.mark.parametrize("head", ["OFF\n8 11 0", "OFF8 11 0", "OFF 8 11 0", "# box\nOFF\n8 11"])
def test_meshes_are_read(tmp_path, head):
    vertices, triangles = modelnet.read_off(write(tmp_path, BOX.replace("OFF\n8 11 0", head)))
    assert vertices.dtype == torch.float64 and vertices.shape == (8, 3) and triangles.shape == (12, 3)
    assert area(vertices, triangles) == pytest.approx(2 * (2 + 3 + 6))
    # Closed and turned one way: the divergence theorem gives the volume.
    a, b, c = vertices[triangles].unbind(1)
    assert abs((torch.linalg.cross(a, b) * c).sum().item()) / 6 == pytest.approx(6)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("OFF\n", "PLY\n", "line 1: wanted `OFF`"),
        ("8 11 0", "8 x 0", "numbers of vertices, faces"),
        ("8 11 0", "8 12 0", "holds 19 lines .* announces 20"),
        ("3 0 2 1\n", "", "holds 18 lines .* announces 19"),
        ("1 2 0\n", "1 2\n", "line 5: wanted"),
        ("1 2 0\n", "1 2 zero\n", "line 5: wanted"),
        ("1 2 0\n", "1 nan 0\n", "line 5: wanted finite numbers `x y z`; got '1 nan 0'"),
        ("3 4 6 7\n", "3 4 6 8\n", "line 14: wanted numbers from 0 to 7; got '3 4 6 8'"),
        ("3 4 6 7\n", "3 4 6 -1\n", "line 14: wanted numbers from 0 to 7"),
        ("3 4 6 7\n", "3 4 6 1.5\n", "line 14: wanted numbers from 0 to 7"),
        ("3 4 6 7\n", "3 4 6\n", "line 14: wanted n and n numbers"),
        (BOX, "", "line 1: wanted `OFF`"),
    ],
)
def test_broken_meshes_are_named(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=rf"box\.off.*{message}"):
        modelnet.read_off(write(tmp_path, BOX.replace(old, new, 1)))


def test_a_cut_mesh_is_named_at_every_line(tmp_path):
    lines = BOX.splitlines()
    for count in range(len(lines)):
        with pytest.raises(ValueError, match=r"box\.off"):
            modelnet.read_off(write(tmp_path, "\n".join(lines[:count])))


@pytest.mark.parametrize("scale", [1e-30, 1, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_points_are_uniform_by_area(tmp_path, scale, dtype):
    vertices, triangles = modelnet.read_off(write(tmp_path, BOX))
    triangles = torch.cat(
        (triangles, torch.tensor([[0, 0, 1], [2, 2, 2]]))
    )  # without an area, so never drawn
    points = modelnet.sample_surface(
        (vertices * scale).to(dtype), triangles, 20_000, generator=torch.Generator().manual_seed(0)
    )
    assert points.dtype == dtype and points.shape == (20_000, 3)
    unit = points.double() / scale
    sides = torch.stack([on for k in range(3) for on in (unit[:, k] < 1e-6, unit[:, k] > k + 1 - 1e-6)])
    assert (sides.sum(0) == 1).all()  # each point on one face, but for edges
    share = sides.double().mean(1)
    expected = torch.tensor([6, 6, 3, 3, 2, 2]).double() / 22
    standard = (expected * (1 - expected) / 20_000).sqrt()
    assert ((share - expected).abs() < 4 * standard).all()
    # On the face x = 0 the places are uniform in both directions: mean and spread of a uniform variable.
    for k in (1, 2):
        along = unit[sides[0], k] / (k + 1)
        assert along.mean().item() == pytest.approx(0.5, abs=0.02)
        assert along.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_points_depend_on_the_generator_alone(tmp_path):
    mesh = modelnet.read_off(write(tmp_path, BOX))
    one, same, other = (
        modelnet.sample_surface(*mesh, 50, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_meshes_without_area_are_refused(tmp_path):
    flat = "OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n"
    files = (
        write(tmp_path / "chair" / "train", flat, "a.off"),
        write(tmp_path / "chair" / "train", BOX, "b.off"),
    )
    write(tmp_path / "chair" / "train", "OFF\n1 0 0\n1 2 3\n", "c.off")
    meshes = modelnet.load_meshes(tmp_path, categories=("chair",))
    assert meshes.files[:2] == files
    for k in (0, 2):
        with pytest.raises(ValueError, match=rf"{meshes.names[k]}\.off: `triangles` must have an area"):
            meshes.sample(k, 10)
    assert meshes.sample(1, 10).shape == (10, 3)
    with pytest.raises(ValueError, match="`count`"):
        meshes.sample(1, 0)


def test_folders_are_listed(tmp_path):
    for category, part, name in (
        ("sofa", "train", "sofa_0002"),
        ("sofa", "train", "sofa_0001"),
        ("sofa", "test", "sofa_0003"),
        ("bed", "train", "bed_0001"),
        ("bed", "test", "bed_0002"),
    ):
        write(tmp_path / category / part, BOX, f"{name}.off")
    meshes = modelnet.load_meshes(tmp_path, categories=("sofa", "bed"))
    assert meshes.names == ["sofa_0001", "sofa_0002", "bed_0001"] and meshes.labels.tolist() == [0, 0, 1]
    assert modelnet.load_meshes(tmp_path, test=True, categories=("sofa", "bed")).names == [
        "sofa_0003",
        "bed_0002",
    ]
    with pytest.raises(FileNotFoundError) as error:
        modelnet.load_meshes(tmp_path)
    for word in ("airplane", "xbox", "ModelNet40.zip", modelnet.ARCHIVES["ModelNet40.zip"], "/train/"):
        assert word in str(error.value)
    assert " bed" not in str(error.value).splitlines()[0]


def test_the_number_of_meshes_is_compared_with_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(modelnet, "MESHES", (40, 41))
    for category in modelnet.CATEGORIES:
        for part in ("train", "test"):
            write(tmp_path / category / part, "", f"{category}_0001.off")
    with pytest.raises(ValueError, match="40 meshes to train and 40 to test; the release has 40 and 41"):
        modelnet.check_meshes(tmp_path)
    write(tmp_path / "bed" / "test", "", "bed_0002.off")
    modelnet.check_meshes(tmp_path)
    write(tmp_path / "bed" / "test", "", "bed_0003.off")
    with pytest.raises(ValueError, match="40 meshes to train and 42 to test"):
        modelnet.check_meshes(tmp_path)


def test_archives_are_compared_by_their_sums(tmp_path, monkeypatch):
    file = write(tmp_path, "not it", "ModelNet10.zip")
    with pytest.raises(ValueError, match=f"{modelnet.ARCHIVES['ModelNet10.zip']}; it has"):
        modelnet.check_archive(file)
    monkeypatch.setitem(modelnet.ARCHIVES, "ModelNet10.zip", hashlib.sha256(b"not it").hexdigest())
    modelnet.check_archive(file)
    with pytest.raises(ValueError, match="`path`"):
        modelnet.check_archive(tmp_path / "ModelNet30.zip")


def test_forty_categories_of_which_ten_are_modelnet10():
    assert len(modelnet.CATEGORIES) == 40 and list(modelnet.CATEGORIES) == sorted(modelnet.CATEGORIES)
    assert len(modelnet.MODELNET10) == 10 and set(modelnet.MODELNET10) < set(modelnet.CATEGORIES)


# Clouds.


def write_clouds(folder, sizes=(3, 2, 1, 1, 2, 2, 1), **changed):
    """The seven files, of as many clouds each, of 5 points; `changed` replaces arrays of the third file."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    written = {}
    for k, (name, size) in enumerate(zip(modelnet.CLOUDS, sizes, strict=True)):
        arrays = {
            "data": rng.normal(size=(size, 5, 3)).astype(np.float32),
            "label": rng.integers(0, 40, (size, 1)).astype(np.uint8),
        }
        if k == 2:
            arrays |= changed
        with h5py.File(folder / name, "w") as file:
            for key, array in arrays.items():
                if array is not None:
                    file[key] = array
        written[name] = arrays
    return written


def test_clouds_are_read(tmp_path):
    written = list(write_clouds(tmp_path).values())
    for test, parts in ((False, written[:5]), (True, written[5:])):
        clouds = modelnet.load_clouds(tmp_path, test=test)
        assert clouds.points.dtype == torch.float32 and clouds.labels.dtype == torch.int64
        np.testing.assert_array_equal(clouds.points, np.concatenate([part["data"] for part in parts]))
        np.testing.assert_array_equal(clouds.labels, np.concatenate([part["label"][:, 0] for part in parts]))
        assert len(clouds) == len(clouds.points) and torch.equal(clouds[1], clouds.points[1])


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"data": None}, "cannot be read as clouds `data`"),
        ({"label": None}, "cannot be read as clouds `data`"),
        ({"data": np.zeros((1, 5, 4), np.float32)}, r"got `data` \(1, 5, 4\)"),
        ({"data": np.zeros((0, 5, 3), np.float32)}, r"got `data` \(0, 5, 3\)"),
        ({"data": np.zeros((1, 5, 3), np.int32)}, "got `data` .*int32"),
        ({"data": np.full((1, 5, 3), np.nan)}, "cloud 0 is not so, of 1 "),
        ({"data": np.full((1, 5, 3), 1e300)}, "cloud 0 is not so, of 1 "),
        ({"data": np.zeros((1, 4, 3))}, "wanted 5 points a cloud, as before; got 4"),
        ({"label": np.zeros((2, 1), np.uint8)}, r"got `label` \(2, 1\)"),
        ({"label": np.uint8(3)}, r"got `label` \(\)"),
        ({"data": np.zeros((0,)), "label": np.zeros((0,))}, r"got `data` \(0,\)"),
        ({"label": np.zeros((1, 1))}, "got `label` .*float64"),
        ({"label": np.full((1, 1), 40)}, "cloud 0 is not so"),
        ({"label": np.full((1, 1), -1)}, "cloud 0 is not so"),
    ],
)
def test_broken_clouds_are_named(tmp_path, changed, message):
    write_clouds(tmp_path, **changed)
    clouds = modelnet.load_clouds(tmp_path)
    with pytest.raises(ValueError, match=rf"ply_data_train2\.h5.*{message}"):
        _ = clouds.points


@pytest.mark.parametrize("kept", [0, 7, 100, -100])
def test_cut_files_are_named(tmp_path, kept):
    write_clouds(tmp_path)
    file = tmp_path / "ply_data_test1.h5"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"ply_data_test1\.h5 cannot be read"):
        modelnet.load_clouds(tmp_path, test=True).labels.sum()


def test_missing_files_are_named_with_their_source(tmp_path):
    write_clouds(tmp_path)
    (tmp_path / "ply_data_train3.h5").unlink()
    modelnet.load_clouds(tmp_path, test=True)
    with pytest.raises(
        FileNotFoundError, match=r"(?s)no ply_data_train3\.h5 in .*modelnet40_ply_hdf5_2048\.zip"
    ):
        modelnet.load_clouds(tmp_path)


def test_sums_of_the_files_are_compared(tmp_path, monkeypatch):
    write_clouds(tmp_path)
    sums = {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest() for name in modelnet.CLOUDS}
    with pytest.raises(
        ValueError, match=rf"ply_data_train0\.h5: wanted the md5 sum .* {sums['ply_data_train0.h5']}"
    ):
        modelnet.check_clouds(tmp_path)
    monkeypatch.setattr(modelnet, "CLOUDS", sums)
    modelnet.check_clouds(tmp_path)
    monkeypatch.setitem(sums, "ply_data_test1.h5", "0" * 32)
    with pytest.raises(ValueError, match=r"ply_data_test1\.h5"):
        modelnet.check_clouds(tmp_path)
