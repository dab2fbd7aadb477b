"""ModelNet10-SO3 on small files of its layout: poses out of pickles that may run nothing, images by name."""

import io
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import svdrot
from datasets import modelnet10_so3

NAMES = ("bathtub_0107.v001", "bathtub_0107.v000", "night_stand_0002.v019", "bed_0516.v003")


def quaternions(dtype=np.float64):
    q = np.random.default_rng(0).normal(size=(len(NAMES), 4))
    return (q / np.linalg.norm(q, axis=1, keepdims=True)).astype(dtype)


def write(root, content, part="test_20V", protocol=2):
    folder = root / f"{part}.Rawjpg.lmdb"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "viewID2quat.pkl"
    file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return file


def by_python_2(poses):
    """The text that Python 2 pickles arrays to, whose bytes are strings."""
    array = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I4\ntcnumpy\ndtype\n"
    array += "(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    items = (
        f"S'{name}'\n{array}S'{''.join(f'{chr(92)}x{byte:02x}' for byte in value.tobytes())}'\ntbs"
        for name, value in poses.items()
    )
    return f"(d{''.join(items)}.".encode("latin1")


@pytest.mark.parametrize("form", [0, 2, 4, "python 2", "float32"], ids=str)
def test_poses_are_read(tmp_path, form):
    dtype = np.float32 if form == "float32" else np.float64
    poses = dict(zip(NAMES, quaternions(dtype), strict=True))
    if form == "python 2":
        write(tmp_path, by_python_2(poses))
        assert len(pickle.loads(by_python_2(poses), encoding="latin1")) == 4  # numpy reads it, too
    else:
        write(tmp_path, poses, protocol=4 if form == "float32" else form)
    views = modelnet10_so3.load(tmp_path, "test_20V")
    assert views.names == tuple(sorted(NAMES)) and len(views) == 4
    assert [views.categories[k] for k in views.labels] == ["bathtub", "bathtub", "bed", "night_stand"]
    expected = Rotation.from_quat([poses[name] for name in views.names], scalar_first=True).as_matrix()
    np.testing.assert_allclose(views.rotations, expected, atol=1e-14 if form != "float32" else 1e-7)
    assert views.rotations.dtype == torch.float64
    assert svdrot.is_rotation(views.rotations).all()


def test_categories_are_chosen(tmp_path):
    write(tmp_path, dict(zip(NAMES, quaternions(), strict=True)))
    views = modelnet10_so3.load(tmp_path, "test_20V", categories=("night_stand", "bed"))
    assert views.names == ("bed_0516.v003", "night_stand_0002.v019") and views.labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"viewID2quat\.pkl has no view of sofa"):
        modelnet10_so3.load(tmp_path, "test_20V", categories=("sofa",))


class Harmful:
    def __reduce__(self):
        return print, ("run by a pickle",)


def test_pickles_run_nothing(tmp_path, capsys):
    for content in ({"bed_0001.v001": Harmful()}, Harmful()):
        write(tmp_path, content)
        with pytest.raises(
            ValueError, match=r"viewID2quat\.pkl cannot be read .*builtin.*print, which no array needs"
        ):
            modelnet10_so3.load(tmp_path, "test_20V")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_cut_anywhere_are_named(tmp_path, protocol):
    content = pickle.dumps(dict(zip(NAMES[:2], quaternions()[:2], strict=True)), protocol)
    for kept in range(len(content)):
        write(tmp_path, content[:kept])
        with pytest.raises(ValueError, match=r"viewID2quat\.pkl cannot be read"):
            modelnet10_so3.load(tmp_path, "test_20V")


@pytest.mark.parametrize(
    "content, message",
    [
        ({"bed.v001": quaternions()[0]}, "wanted names as `bathtub_0107.v001`; got 'bed.v001'"),
        ({7: quaternions()[0]}, "wanted names as .* got 7"),
        ({"bed_0001.v001": quaternions()[0][:3]}, r"bed_0001\.v001: wanted an array of four finite numbers"),
        ({"bed_0001.v001": quaternions()[:1]}, r"bed_0001\.v001: wanted an array of four"),
        ({"bed_0001.v001": np.array([1, 0, 0, 0])}, r"bed_0001\.v001: wanted an array of four"),
        ({"bed_0001.v001": np.array([np.nan, 0, 0, 0])}, r"bed_0001\.v001: wanted an array of four"),
        ({"bed_0001.v001": np.array([1.0, 1, 0, 0])}, r"bed_0001\.v001: wanted a unit quaternion"),
        ({"bed_0001.v001": 3.0}, r"bed_0001\.v001: wanted an array of four"),
        ([1, 2], "cannot be read as a pickled dictionary"),
        (b"", "cannot be read as a pickled dictionary"),
        ({}, "has no view of bathtub"),
    ],
)
def test_broken_poses_are_named(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(ValueError, match=rf"viewID2quat\.pkl.*{message}"):
        modelnet10_so3.load(tmp_path, "test_20V")


def test_missing_parts_are_named_with_their_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train_100V\.Rawjpg\.lmdb.*ModelNet10-SO3\.tar\.gz"):
        modelnet10_so3.load(tmp_path, "train_100V")
    with pytest.raises(ValueError, match="`part`"):
        modelnet10_so3.load(tmp_path, "train")


# Images. The database is a stand-in with the few functions of lmdb that are called.


class Database:
    def __init__(self, content):
        self.content = content

    def begin(self):
        return self

    def __enter__(self):
        return SimpleNamespace(get=self.content.get)

    def __exit__(self, *_):
        pass


def jpeg(color):
    file = io.BytesIO()
    Image.new("L", (6, 4), color).save(file, "JPEG")
    return file.getvalue()


def test_images_are_found_by_name(tmp_path, monkeypatch):
    write(tmp_path, dict(zip(NAMES, quaternions(), strict=True)))
    views = modelnet10_so3.load(tmp_path, "test_20V")
    content = {name.encode(): jpeg(40 * k) for k, name in enumerate(views.names)}
    content[views.names[2].encode()] = jpeg(0)[:60]
    del content[views.names[3].encode()]
    opened = []
    lmdb = SimpleNamespace(Error=RuntimeError)

    def refuse(path, **_):
        raise lmdb.Error("no data.mdb")

    def open_(path, *, readonly, lock):
        opened.append((path, readonly, lock))
        return Database(content)

    monkeypatch.setitem(sys.modules, "lmdb", lmdb)
    lmdb.open = refuse
    with pytest.raises(ValueError, match=r"test_20V\.Rawjpg\.lmdb cannot be opened .*no data\.mdb"):
        views.image(0)
    lmdb.open = open_
    for k in (0, 1):
        image = views.image(k)
        assert image.shape == (3, 4, 6) and image.dtype == torch.uint8 and (image == 40 * k).all()
    assert opened == [(str(views.folder), True, False)]
    with pytest.raises(ValueError, match=r"the picture bed_0516\.v003 is broken"):
        views.image(2)
    with pytest.raises(ValueError, match=r"has no picture night_stand_0002\.v019"):
        views.image(3)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match="pip install lmdb pillow"):
        views.image(0)
