"""Points and transforms in files: round trips, other programs' files, and all that can be wrong with one."""

import importlib
import io
import json
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import svdrot
from svdrot.io.points import FORMATS, read_points, write_points
from svdrot.io.transforms import read_transform, write_transform
from svdrot.registration import Transform

REGISTRATION = Path(__file__).parents[4] / "shared/data/registration"

# float32 keeps 24 bits of each coordinate.
ROUNDING = {".pcd": 2**-24, ".bin": 2**-24}
SUFFIXES = [name for name, form in FORMATS.items() if form.write and name != ".pcd"]
PCD_BY_OPEN3D = pytest.param(".pcd", marks=pytest.mark.open3d)


def cloud(n=50, seed=0):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# What is written is read.


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("suffix", [*SUFFIXES, PCD_BY_OPEN3D])
def test_points_survive(suffix, scale, tmp_path):
    points = scale * cloud() + scale
    file = tmp_path / f"cloud{suffix}"
    write_points(file, points)
    read = read_points(str(file))
    assert read.dtype == torch.float64 and read.is_contiguous()
    assert ((read - points).abs() <= ROUNDING.get(suffix, 0) * points.abs()).all()
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("suffix", [*SUFFIXES, PCD_BY_OPEN3D])
def test_one_point_and_large_letters(suffix, tmp_path):
    file = tmp_path / f"cloud{suffix.upper()}"
    write_points(file, torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True))
    assert read_points(file).tolist() == [[1, -2, 0.5]]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "cloud.ply"
    write_points(file, cloud())
    before = file.read_bytes()

    def full(self, data):
        with self.open("wb") as half:
            half.write(data[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        write_points(file, cloud(100, 1))
    assert file.read_bytes() == before and [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(
    "points",
    [torch.zeros(0, 3), torch.zeros(3), torch.zeros(2, 4, 3), torch.tensor([[0.0, torch.nan, 0.0]])],
    ids=["none", "vector", "batch", "nan"],
)
def test_write_points_refuses(points, tmp_path):
    with pytest.raises(ValueError, match="`points`"):
        write_points(tmp_path / "cloud.ply", points)
    assert not [*tmp_path.iterdir()]


def test_write_points_refuses_integers_formats_and_folders(tmp_path):
    with pytest.raises(TypeError, match="`points`"):
        write_points(tmp_path / "cloud.ply", torch.zeros(4, 3, dtype=torch.int64))
    for name in ("cloud.stl", "cloud.las", "cloud"):
        with pytest.raises(ValueError, match=r"suffix must be one of \.ply"):
            write_points(tmp_path / name, cloud())
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        write_points(tmp_path / "folder.ply", cloud())
    with pytest.raises(FileNotFoundError, match="missing"):
        write_points(tmp_path / "missing" / "cloud.ply", cloud())


# Other programs' files.

PLY_FORMS = [(form, kind) for form in ("ascii", "binary_little_endian", "binary_big_endian") for kind in "fd"]


def ply(points, form, kind, *, faces=((0, 1, 2), (1, 2, 3, 4)), color=True, before=False, newline="\n"):
    """A PLY with colors and faces of three and four corners, by `struct` alone."""
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    name = {"f": "float", "d": "double"}[kind]
    camera = ["element camera 1", "property int id", "property list ushort double view"]
    vertex = (
        [f"element vertex {len(points)}", "property uchar red"]
        if color
        else [f"element vertex {len(points)}"]
    )
    vertex += [f"property {name} {axis}" for axis in "xyz"]
    face = [f"element face {len(faces)}", "property list uchar int vertex_indices"] if faces else []
    header = ["ply", f"format {form} 1.0", "comment käse", "obj_info x", *(camera if before else [])]
    header += [*vertex, *face, "end_header", ""]
    rows = [("iH3d", (7, 3, 0.5, 1.5, 2.5))] if before else []
    rows += [("B3" + kind, (9, *p)) if color else ("3" + kind, tuple(p)) for p in points]
    rows += [(f"B{len(f)}i", (len(f), *f)) for f in faces]
    if order:
        body = b"".join(struct.pack(order + form, *values) for form, values in rows)
    else:
        body = "".join(" ".join(map(repr, values)) + newline for _, values in rows).encode()
    return newline.join(header).encode("latin-1") + body


@pytest.mark.parametrize(
    "options", [{}, {"before": True}, {"faces": ()}, {"color": False}, {"newline": "\r\n"}], ids=str
)
@pytest.mark.parametrize(("form", "kind"), PLY_FORMS)
def test_every_kind_of_ply(form, kind, options, tmp_path):
    points = cloud().float().double()
    (tmp_path / "a.ply").write_bytes(ply(points.tolist(), form, kind, **options))
    assert torch.equal(read_points(tmp_path / "a.ply"), points)


@pytest.mark.parametrize("options", [{}, {"faces": ()}, {"faces": ((0, 1, 2),) * 3}], ids=str)
@pytest.mark.parametrize(("form", "kind"), PLY_FORMS)
def test_no_ply_that_was_cut_is_read(form, kind, options, tmp_path):
    whole = ply(cloud(4).tolist(), form, kind, **options)
    # Of a text, the last number may lose digits: that is a point like any other.
    unseen = len(whole.rstrip().split()[-1]) + 1 if form == "ascii" else 1
    for end in range(len(whole) - unseen):
        (tmp_path / "a.ply").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.ply"):
            read_points(tmp_path / "a.ply")


@pytest.mark.parametrize(("form", "kind"), PLY_FORMS)
def test_a_ply_longer_than_its_header_says_is_refused(form, kind, tmp_path):
    (tmp_path / "a.ply").write_bytes(ply(cloud(6).tolist(), form, kind) + b"3 4 5\n")
    with pytest.raises(ValueError, match="announces"):
        read_points(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("property double x", "property double u"),
        ("property double x", "property double x\nproperty double x"),
        ("property double x", "property list uchar double x"),
        ("property double x", "property quad x"),
        ("element vertex 6", "element vertex -6"),
        ("element vertex 6", "element vertex many"),
        ("element vertex 6", "element point 6"),
        ("format ascii 1.0", "format utf8 1.0"),
        ("format ascii 1.0", "comment"),
        ("ply", "plx"),
    ],
)
def test_broken_headers_of_ply(line, instead, tmp_path):
    text = ply(cloud(6).tolist(), "ascii", "d").replace(line.encode() + b"\n", instead.encode() + b"\n", 1)
    (tmp_path / "a.ply").write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.ply"):
        read_points(tmp_path / "a.ply")


@pytest.mark.parametrize("form", sorted({form for form, _ in PLY_FORMS}))
def test_a_property_that_comes_twice(form, tmp_path):
    text = ply(cloud(6).tolist(), form, "d").replace(b"property double z", b"property double x")
    text = text.replace(b"property double x\n", b"property double x\nproperty double z\n", 1)
    (tmp_path / "a.ply").write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.ply: wanted properties of different names"):
        read_points(tmp_path / "a.ply")


def test_a_ply_that_announces_more_than_any_memory_holds(tmp_path):
    for faces in ((), ((0, 1, 2),)):
        text = ply(cloud(6).tolist(), "binary_little_endian", "d", faces=faces)
        for element in (b"vertex 6", b"face 1"):
            (tmp_path / "a.ply").write_bytes(text.replace(element, element + b"0" * 15))
            if element in text:
                with pytest.raises(ValueError, match="cut"):
                    read_points(tmp_path / "a.ply")


PCD = """# .PCD v0.7
VERSION 0.7
FIELDS intensity normal x y z
SIZE 4 4 4 4 4
TYPE F F F F F
COUNT 1 3 1 1 1
WIDTH 3
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 3
DATA ascii
7 0 0 1 1 2 3
7 0 0 1 4 5 6
7 0 0 1 7 8 9
"""


def open3d_pcd(open3d, file, dtype, **form):
    points = cloud().to(dtype)
    written = open3d.t.geometry.PointCloud(open3d.core.Tensor(points.numpy()))
    assert open3d.t.io.write_point_cloud(str(file), written, **form)
    return points.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", [{"write_ascii": True}, {}, {"compressed": True}], ids=str)
def test_every_kind_of_pcd(form, dtype, tmp_path, open3d):
    points = open3d_pcd(open3d, tmp_path / "a.pcd", dtype, **form)
    tolerance = 5e-9 if "write_ascii" in form else 0  # open3d writes ten digits
    torch.testing.assert_close(read_points(tmp_path / "a.pcd"), points, rtol=0, atol=tolerance)


def test_pcd_fields_in_any_order(tmp_path):
    (tmp_path / "a.pcd").write_text(PCD)
    assert read_points(tmp_path / "a.pcd").tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("form", [{"write_ascii": True}, {}, {"compressed": True}], ids=str)
def test_no_pcd_that_was_cut_is_read(form, tmp_path, capfd, open3d):
    open3d_pcd(open3d, tmp_path / "whole.pcd", torch.float64, **form)
    whole = (tmp_path / "whole.pcd").read_bytes()
    unseen = len(whole.split()[-1]) + 2 if "write_ascii" in form else 0
    for end in [*range(0, 220, 7), *range(220, len(whole) - unseen, 61), len(whole) - unseen - 1]:
        (tmp_path / "a.pcd").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.pcd"):
            read_points(tmp_path / "a.pcd")
    assert not any(capfd.readouterr())


OBJ = """# a square in two materials, as modellers write it
mtllib square.mtl
o first
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 5 5 5
vt 0 0
vt 1 1
vn 0 0 1
usemtl red
f 1/1/1 2/2/1 3/1/1
usemtl blue
f -5//1 -3 4
"""


def test_vertices_of_obj_stay_as_they_are(tmp_path):
    """Not doubled where materials or textures meet, not lost where no face is."""
    (tmp_path / "a.obj").write_text(OBJ)
    assert read_points(tmp_path / "a.obj").tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 5, 5]]


OFF = """COFF # colored
# comment
4 2 0

0 0 0 255 0 0
1 0 0 0 255 0
1 1 0 0 0 255
0 1 0 0 0 0
3 0 1 2
3 0 2 3 255 0 0
"""


@pytest.mark.parametrize(
    "text",
    [OFF, OFF.replace("# colored\n# comment\n", ""), OFF.replace("COFF # colored\n# comment\n4", "OFF4")],
    ids=["lines", "one line", "no space"],
)
def test_every_kind_of_off(text, tmp_path):
    (tmp_path / "a.off").write_text(text)
    assert read_points(tmp_path / "a.off").tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


FACET = (
    "facet normal 0 0 1\n outer loop\n  vertex {} 0 0\n  vertex 1 1 0\n  vertex 0 1 0\n endloop\nendfacet\n"
)
STL = "solid square\n" + FACET.format(0) + FACET.format(1) + "endsolid square\n"


def binary_stl():
    corners = np.array([[[x, 0, 0], [1, 1, 0], [0, 1, 0]] for x in (0, 1)], "<f4")
    return bytes(80) + struct.pack("<I", 2) + b"".join(bytes(12) + c.tobytes() + bytes(2) for c in corners)


@pytest.mark.parametrize("data", [STL.encode(), binary_stl()], ids=["text", "binary"])
def test_corners_of_stl_count_once(data, tmp_path):
    (tmp_path / "a.stl").write_bytes(data)
    assert read_points(tmp_path / "a.stl").tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("whole", [STL.encode(), binary_stl()], ids=["text", "binary"])
def test_no_stl_that_was_cut_is_read(whole, tmp_path):
    for end in range(len(whole) - len("endsolid square")):
        (tmp_path / "a.stl").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.stl"):
            read_points(tmp_path / "a.stl")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xyz", "1 2 3\n4 5 6\n"),
        ("a.xyz", "﻿# made by hand\n\n1\t2\t3 # first\r\n4\t5\t6"),
        ("a.txt", "1,2,3,0.5\n4,5,6,0.5\n"),
        ("a.txt", "1;2;3\n4;5;6\n"),
        ("a.csv", "1, 2, 3\n4, 5, 6\n"),
        ("a.csv", '"id","Z","Y","X"\n8,3,2,1\n9,6,5,4\n'),
        ("a.xyz", "1e0 +2 3. 0 0 1 9 9 9\n4 5 6 0 0 1 9 9 9\n"),
    ],
)
def test_every_kind_of_text(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_points(tmp_path / name).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_compression_that_does_not_exist_is_named(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, points=np.ones((2, 3)))
    data = bytearray(file.read_bytes())
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(header) + place] = 77
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as a file of numpy"):
        read_points(file)


def test_numpy_arrays_of_other_kinds(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(8, dtype=np.uint8).reshape(2, 4))
    assert read_points(tmp_path / "a.npy").tolist() == [[0, 1, 2], [4, 5, 6]]
    np.savez(tmp_path / "two.npz", src=np.ones((2, 3), np.float16), ref=np.zeros((1, 3)), pose=np.eye(4))
    assert read_points(f"{tmp_path}/two.npz:src").tolist() == [[1, 1, 1]] * 2
    np.savez(tmp_path / "one.npz", anything=np.ones((2, 3)))
    assert read_points(tmp_path / "one.npz").tolist() == [[1, 1, 1]] * 2
    with pytest.raises(ValueError, match=r"two\.npz has no array `points`, but src, ref, pose"):
        read_points(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"two\.npz:nothing has no array `nothing`"):
        read_points(f"{tmp_path}/two.npz:nothing")


def test_a_surface_is_sampled_by_area(tmp_path):
    pytest.importorskip("trimesh")
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 10 0 0\nv 13 0 0\nv 10 1 0\nf 1 2 3\nf 4 5 6\n"
    (tmp_path / "a.obj").write_text(text)
    points = read_points(tmp_path / "a.obj", samples=4000, seed=1)
    assert points.shape == (4000, 3) and torch.equal(
        points, read_points(tmp_path / "a.obj", samples=4000, seed=1)
    )
    assert not torch.equal(points, read_points(tmp_path / "a.obj", samples=4000, seed=2))
    assert (points[:, 0] > 5).double().mean() == pytest.approx(0.75, abs=0.04)  # six standard deviations
    assert (points[:, 2] == 0).all() and (points[:, 1] >= 0).all()


def test_what_has_no_surface_is_not_sampled(tmp_path):
    pytest.importorskip("trimesh")
    for name in ("a.ply", "a.obj", "a.off", "a.npy"):
        write_points(tmp_path / name, cloud())
        with pytest.raises(ValueError, match=name):
            read_points(tmp_path / name, samples=10)
    with pytest.raises(ValueError, match="`samples`"):
        read_points(tmp_path / "a.ply", samples=0)


# Everything that can be wrong.


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pcd", ".stl"])
@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\x89PNG\r\n\x1a\n\0\0\0", "nothing of use, ä".encode()], ids=str
)
def test_files_of_something_else(suffix, content, tmp_path):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix}"):
        read_points(tmp_path / f"a{suffix}")


def test_pts_may_begin_with_the_number_of_points(tmp_path):
    file = tmp_path / "a.pts"
    for text in ("2\n1 2 3 -50 9 9 9\n4 5 6 -50 9 9 9\n", "1 2 3\n4 5 6\n"):
        file.write_text(text)
        assert read_points(file).tolist() == [[1, 2, 3], [4, 5, 6]]
    file.write_text("# a scan\n3\n1 2 3\n4 5 6\n")
    with pytest.raises(ValueError, match=r"a\.pts, line 2: wanted 3 points; got 2"):
        read_points(file)


@pytest.mark.parametrize("other", [*SUFFIXES, PCD_BY_OPEN3D])
def test_a_file_under_the_name_of_another_format(other, tmp_path):
    write_points(tmp_path / f"a{other}", cloud(7))
    of_lines = {".xyz", ".pts", ".txt", ".csv"}
    for suffix in {*SUFFIXES, ".pcd"} - (of_lines if other in of_lines else {other}):
        shutil.copy(tmp_path / f"a{other}", tmp_path / f"b{suffix}")
        with pytest.raises(ValueError, match=rf"b\{suffix}"):
            read_points(tmp_path / f"b{suffix}")


TEXTS = {
    "a.xyz": ("1 2 3\n4 5 6\n7 8 9\n", "4 5 6", 2),
    "a.csv": ("x,y,z\n1,2,3\n4,5,6\n7,8,9\n", "4,5,6", 3),
    "a.ply": (
        ply([(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)], "ascii", "d", faces=()).decode("latin-1"),
        "4.0 5.0 6.0",
        12,
    ),
    "a.pcd": (PCD, "4 5 6", 13),
    "a.obj": (OBJ, "1 0 0", 5),
    "a.off": (OFF, "1 0 0", 6),
    "a.stl": (STL, "1 1 0", 5),
}


@pytest.mark.parametrize("instead", ["4 5", "4 5 6 7 8", "4 five 6", "4 5 6_0", "4 5 6,", "4,5,6 7"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_broken_line_is_named(name, instead, tmp_path):
    text, line, number = TEXTS[name]
    assert line in text.splitlines()[number - 1]
    (tmp_path / name).write_text(text.replace(line, instead, 1), encoding="latin-1")
    with pytest.raises(
        ValueError, match=rf"{name}, line {number}: wanted .*; got '.*{instead.split()[0][0]}"
    ):
        read_points(tmp_path / name)


def with_one(value):
    points = cloud(9).numpy().copy()
    points[4, 1] = value
    return points


def files_with(value, folder):
    points = with_one(value)
    for write, suffix in ((np.save, "npy"), (np.savetxt, "xyz"), (np.savetxt, "txt")):
        write(folder / f"a.{suffix}", points)
    np.savez(folder / "a.npz", points=points)
    np.savetxt(folder / "a.csv", points, delimiter=",")
    np.savetxt(folder / "a.obj", points, "v %g %g %g")
    np.savetxt(folder / "a.off", points, header="OFF\n9 0 0", comments="")
    for form, kind in PLY_FORMS:
        (folder / f"{form}_{kind}.ply").write_bytes(ply(points.tolist(), form, kind))
    (folder / "a.bin").write_bytes(np.pad(points, ((0, 0), (0, 1))).astype("<f4").tobytes())
    header = PCD.replace("POINTS 3", "POINTS 9").partition("7 0 0")[0]
    (folder / "a.pcd").write_text(header + "".join(f"7 0 0 1 {x} {y} {z}\n" for x, y, z in points))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_told_or_dropped(value, tmp_path):
    for file in files_with(value, tmp_path):
        with pytest.raises(ValueError, match=rf"{file.name}: 1 of 9 points are not finite, .* number 5"):
            read_points(file)
        kept = read_points(file, drop_nan=True)
        expected = np.delete(with_one(0), 4, axis=0)
        np.testing.assert_allclose(kept, expected, rtol=1e-5)


def test_a_cloud_of_nothing_but_nan_is_empty(tmp_path):
    np.save(tmp_path / "a.npy", np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match=r"a\.npy holds no points"):
        read_points(tmp_path / "a.npy", drop_nan=True)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.zeros(3),
        np.zeros((3, 100)),
        np.zeros((5, 2)),
        np.zeros((2, 5, 3)),
        np.zeros((5, 3), bool),
        np.zeros((5, 3), complex),
        np.array([["a", "b", "c"]]),
        np.zeros(5, [("x", "f8"), ("y", "f8"), ("z", "f8")]),
    ],
    ids=lambda array: f"{array.shape}{array.dtype}",
)
def test_arrays_that_are_no_clouds(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", points=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=name):
            read_points(tmp_path / name)


def test_a_pickle_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_no_array_that_was_cut_is_read(suffix, tmp_path):
    write_points(tmp_path / f"whole{suffix}", cloud(20))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    for end in range(0, len(whole), 13):
        (tmp_path / f"a{suffix}").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=rf"a\{suffix}"):
            read_points(tmp_path / f"a{suffix}")


def test_an_npz_whose_bytes_changed(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", points=cloud(200).numpy())
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[300] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        read_points(tmp_path / "a.npz")


def test_an_array_larger_than_any_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npy cannot be read"):
        read_points(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        read_points(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.obj", OBJ.replace("f -5//1 -3 4", "f 1 2 6")),
        ("a.obj", OBJ.replace("f -5//1 -3 4", "f 1 2")),
        ("a.obj", OBJ.replace("f -5//1 -3 4", "f 0 1 2")),
        ("a.off", OFF.replace("3 0 1 2\n", "3 0 1\n")),
        ("a.off", OFF.replace("4 2 0", "3 2 0")),
        ("a.off", OFF.replace("4 2 0", "4 3 0")),
        ("a.off", OFF.replace("4 2 0", "four 2 0")),
        ("a.off", "4OFF\n1 0 0\n0 0 0 1\n"),
        ("a.off", "OFF BINARY\n1 0 0\n"),
        ("a.off", "OFF\n1 0 0\n0 0\n"),
        ("a.pcd", PCD.replace("FIELDS intensity normal x", "FIELDS intensity normal u")),
        ("a.pcd", PCD.replace("POINTS 3", "POINTS 4")),
        ("a.pcd", PCD.replace("POINTS 3", "POINTS")),
        ("a.pcd", PCD.replace("COUNT 1 3 1 1 1", "COUNT 1 3 1")),
        ("a.pcd", PCD.replace("COUNT 1 3 1 1 1", "COUNT 1 three 1 1 1")),
        ("a.pcd", PCD.replace("COUNT 1 3 1 1 1", "COUNT 2 3 0 1 1")),
        ("a.stl", STL.replace("  vertex 1 1 0\n", "", 1)),
        ("a.csv", "a,b,c\n1,2,3\n"),
        ("a.csv", "x,y,z\n"),
        ("a.xyz", "x y z\n1 2 3\n"),
        ("a.xyz", "3\ncomment\nC 1 2 3\n"),
        ("a.xyz", "1 2 3\n4 5 6 7\n"),
        ("a.txt", "1 2 3 4 5 6 7 8 9 10 11 12\n"),
        ("a.txt", "1,5;2,5;3,5\n"),
    ],
)
def test_inconsistent_files(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}"):
        read_points(tmp_path / name)


def test_what_is_no_file(tmp_path):
    for suffix in (*SUFFIXES, ".pcd", ".stl"):
        with pytest.raises(FileNotFoundError, match=rf"There is no file .*missing\{suffix}"):
            read_points(tmp_path / f"missing{suffix}")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(ValueError, match=r"folder\.ply is a folder"):
        read_points(tmp_path / "folder.ply")
    for name in ("cloud.las", "cloud", "cloud.ply.gz"):
        (tmp_path / name).write_bytes(b"1 2 3")
        with pytest.raises(ValueError, match=rf"{name}: the suffix must be one of \.ply"):
            read_points(tmp_path / name)


@pytest.mark.parametrize("package", ["open3d", "trimesh"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    (tmp_path / "a.pcd").write_bytes(PCD.replace("DATA ascii", "DATA binary").encode())
    (tmp_path / "a.obj").write_text(OBJ)

    def missing(name, *rest):
        if name == package:
            raise ImportError("libusb-1.0.so.0: cannot open shared object file")
        return importlib.__import__(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError) as raised:
        if package == "open3d":
            read_points(tmp_path / "a.pcd")
        else:
            read_points(tmp_path / "a.obj", samples=10)
    message = str(raised.value)
    assert (
        package in message
        and 'pip install "svdrot[registration]"' in message
        and "libusb-1.0.so.0" in message
    )
    assert ("libGL and libX11" in message) == (package == "open3d")


def test_the_rest_needs_no_package(tmp_path, monkeypatch):
    for name in ("open3d", "trimesh"):
        monkeypatch.setitem(sys.modules, name, None)
    for suffix in SUFFIXES:
        write_points(tmp_path / f"a{suffix}", cloud())
        read_points(tmp_path / f"a{suffix}")
    (tmp_path / "a.pcd").write_text(PCD)
    read_points(tmp_path / "a.pcd")
    with pytest.raises(ImportError, match="a PCD needs open3d"):
        write_points(tmp_path / "b.pcd", cloud())


# Transforms.


def transform(seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    rotation = svdrot.random_rotation(dtype=torch.float64, generator=generator)
    translation = torch.randn(3, dtype=torch.float64, generator=generator)
    return Transform(rotation, translation, torch.tensor(scale, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("suffix", [".txt", ".npy", ".json"])
def test_transforms_survive(suffix, scale, tmp_path):
    written = transform(scale=scale)
    write_transform(tmp_path / f"t{suffix}", written)
    read = read_transform(tmp_path / f"t{suffix}")
    torch.testing.assert_close(read.matrix, written.matrix, rtol=4e-15, atol=4e-15 * scale)
    assert svdrot.is_rotation(read.rotation)


def test_a_rounded_rotation_becomes_one(tmp_path):
    matrix = transform().matrix
    np.savetxt(tmp_path / "t.txt", matrix[:3], "%.4f")
    read = read_transform(tmp_path / "t.txt")
    assert svdrot.is_rotation(read.rotation)
    assert (read.matrix - matrix).abs().max() < 2e-4


def broken_matrices():
    good = transform().matrix.numpy()
    for name, change in {
        "nan": lambda m: m.__setitem__((0, 0), np.nan),
        "infinite": lambda m: m.__setitem__((0, 3), np.inf),
        "last row": lambda m: m.__setitem__((3, 0), 1e-3),
        "transposed": lambda m: m.__setitem__(slice(None), m.T.copy()),
        "reflection": lambda m: m.__setitem__((slice(3), 0), -m[:3, 0]),
        "sheared": lambda m: m.__setitem__((0, 1), m[0, 1] + 0.01),
        "zero": lambda m: m.__setitem__((slice(3), slice(3)), 0),
    }.items():
        bad = good.copy()
        change(bad)
        yield pytest.param(bad, id=name)
    yield pytest.param(np.eye(3), id="3x3")
    yield pytest.param(np.zeros((0, 4)), id="empty")
    yield pytest.param(np.stack((good, good)), id="two")


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("matrix", [*broken_matrices()])
def test_read_transform_refuses(matrix, suffix, tmp_path):
    file = tmp_path / f"t{suffix}"
    if suffix == ".npy":
        np.save(file, matrix)
    else:
        file.write_text(json.dumps({"transform": matrix.tolist()}))
    with pytest.raises(ValueError, match=rf"t\{suffix}"):
        read_transform(file)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.txt", "1 0 0 0\n0 1 0 zero\n0 0 1 0\n"),
        ("t.txt", "1 0 0\n0 1 0\n0 0 1\n"),
        ("t.txt", ""),
        ("t.json", "{"),
        ("t.json", '{"matrix": []}'),
        ("t.json", '"text"'),
        ("t.json", "[[1, 2], [3]]"),
        ("t.npy", "1 0 0 0"),
        ("t.yaml", "1"),
    ],
)
def test_files_of_no_transform(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        read_transform(tmp_path / name)


def test_no_transform_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*t\.txt"):
        read_transform(tmp_path / "t.txt")
    (tmp_path / "t.json").mkdir()
    with pytest.raises(ValueError, match=r"t\.json is a folder"):
        read_transform(tmp_path / "t.json")


def test_write_transform_refuses(tmp_path):
    for bad in (Transform.identity(2), transform(scale=float("nan"))):
        with pytest.raises(ValueError, match="`transform`"):
            write_transform(tmp_path / "t.txt", bad)
    with pytest.raises(ValueError, match="suffix"):
        write_transform(tmp_path / "t.csv", transform())
    assert not [*tmp_path.iterdir()]


# Real files.


def test_real_pairs():
    if not REGISTRATION.is_dir():
        pytest.skip(f"the registration pairs are not at {REGISTRATION}")
    sizes = {
        "lidar_small_gicp/source.ply": 69_792,
        "kitchen_3dmatch_0_1/pair_voxel1cm.npz:src": 106_587,
        "kitchen_3dmatch_0_1/pair_voxel1cm.npz:ref": 109_163,
        "indoor_geotransformer_demo/src.npy": 15_953,
    }
    assert {name: len(read_points(f"{REGISTRATION}/{name}")) for name in sizes} == sizes
    for name in ("kitchen_3dmatch_0_1/T_ref_src.txt", "lidar_small_gicp/T_target_source.txt"):
        assert svdrot.is_rotation(read_transform(REGISTRATION / name).rotation)


def test_real_meshes():
    folder = REGISTRATION.parent / "meshes"
    if not folder.is_dir():
        pytest.skip(f"the meshes are not at {folder}")
    for file in folder.glob("*.obj"):
        lines = file.read_text().splitlines()
        assert len(read_points(file)) == sum(line.startswith("v ") for line in lines)
