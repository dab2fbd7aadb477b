"""ModelNet10-SO3: rendered images of the meshes of ModelNet10, each seen from a direction drawn at random.

    ModelNet10-SO3/
        train_100V.Rawjpg.lmdb/     100 views of each mesh; likewise train_20V and test_20V
            viewID2quat.pkl         from the name of a view, as bathtub_0107.v001, to its quaternion w x y z
                data.mdb                from the name to a JPEG file, by the database lmdb

The release was not at hand: the loader was tested on small files of this layout only, and its images with a
stand-in for lmdb. What frames the quaternions are between is written nowhere; they are taken as they are.
"""

import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.modelnet import MODELNET10
from svdrot.representations import quaternion_to_matrix

PARTS = ("train_100V", "train_20V", "test_20V")

SOURCE = """
Download http://isis-data.science.uva.nl/shuai/datasets/ModelNet10-SO3.tar.gz, or the copy that is linked in
https://github.com/leoshine/Spherical_Regression/blob/master/dataset/ModelNet10-SO3/Readme.md, and unpack it:
the folder to name is ModelNet10-SO3. Its authors give no checksum."""


@dataclass(frozen=True)
class Views:
    """Views of one part, in the order of their names.

    Attributes:
        folder: `<part>.Rawjpg.lmdb`.
        names: `<mesh>.v<number>`.
        rotations: shape (len, 3, 3), float64.
        categories: names; `labels` are places among them.
        labels: shape (len,), int64.
    """

    folder: Path
    names: tuple[str, ...]
    rotations: Tensor
    categories: tuple[str, ...]
    labels: Tensor
    _opened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, k: int) -> Tensor:
        """The picture of view `k`, red, green and blue, shape (3, height, width), uint8.

        Raises:
            ImportError: if lmdb or Pillow is not installed.
            ValueError: with the folder, if it has no such picture, or it is broken.
        """
        try:
            lmdb = import_module("lmdb")
            from PIL import Image
        except ImportError as error:
            raise ImportError(f"{self.folder} needs lmdb and Pillow: pip install lmdb pillow.") from error
        if "environment" not in self._opened:
            try:
                self._opened["environment"] = lmdb.open(str(self.folder), readonly=True, lock=False)
            except lmdb.Error as error:
                raise ValueError(f"{self.folder} cannot be opened as a database: {error}") from error
        with self._opened["environment"].begin() as transaction:
            data = transaction.get(self.names[k].encode())
        if data is None:
            raise ValueError(f"{self.folder} has no picture {self.names[k]}.")
        try:
            picture = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        except OSError as error:
            raise ValueError(f"{self.folder}: the picture {self.names[k]} is broken: {error}") from error
        return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def load(root: Path, part: str, *, categories: tuple[str, ...] = MODELNET10) -> Views:
    """The views of some categories in one part.

    Args:
        root: the unpacked `ModelNet10-SO3`.
        part: one of `PARTS`.
        categories: which, in the order of the labels.

    Raises:
        FileNotFoundError: if the part is not there; says where it comes from.
        ValueError: with the file and the view, if the quaternions are broken; if there are no views; if
            `part` is another.
    """
    if part not in PARTS:
        raise ValueError(f"`part` must be one of {', '.join(PARTS)}; got {part!r}.")
    folder = Path(root) / f"{part}.Rawjpg.lmdb"
    poses = _poses(folder / "viewID2quat.pkl")
    names = sorted(name for name in poses if _category(name) in categories)
    if not names:
        raise ValueError(f"{folder / 'viewID2quat.pkl'} has no view of {', '.join(categories)}.")
    quaternions = torch.tensor([poses[name] for name in names], dtype=torch.float64)
    labels = torch.tensor([categories.index(_category(name)) for name in names])
    return Views(folder, tuple(names), quaternion_to_matrix(quaternions), tuple(categories), labels)


def _category(name: str) -> str:
    """That of night_stand_0107.v001 is night_stand."""
    return name.rpartition("_")[0]


def _poses(path: Path) -> dict[str, list[float]]:
    """Quaternions by names of views."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.resolve()}.{SOURCE}")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        items = list(content.items())
    # What pickles raise that were cut, or had a byte changed, at one place after the other.
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} cannot be read as a pickled dictionary: {error}") from error
    poses = {}
    for name, value in items:
        if not isinstance(name, str) or not re.fullmatch(r"\w+_\d+\.v\d+", name):
            raise ValueError(f"{path}: wanted names as `bathtub_0107.v001`; got {name!r}.")
        quaternion = value.numbers() if isinstance(value, _Array) else []
        if len(quaternion) != 4 or not all(map(math.isfinite, quaternion)):
            raise ValueError(f"{path}, {name}: wanted an array of four finite numbers; got {quaternion}.")
        if abs(math.hypot(*quaternion) - 1) > 1e-3:
            raise ValueError(f"{path}, {name}: wanted a unit quaternion; got {quaternion}.")
        poses[name] = quaternion
    return poses


class _Unpickler(pickle.Unpickler):
    """Reads dictionaries of arrays and nothing else: a pickle may name any function, to be called as it says.

    Not even numpy's own: told to by a pickle with a wrong byte, they crash.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        module_name = module_name.replace("numpy._core", "numpy.core")
        known = {
            "collections.OrderedDict": OrderedDict,
            "_codecs.encode": lambda text, *_: text.encode("latin1"),
            "numpy.ndarray": None,
            "numpy.dtype": _Dtype,
            "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
        }
        if f"{module_name}.{global_name}" not in known:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no array needs")
        return known[f"{module_name}.{global_name}"]


class _Dtype:
    def __init__(self, code: str, *_: object):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Array:
    """What a pickle says of an array: a version, its shape, its dtype, the order of its axes, its bytes."""

    state: Any = None

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def numbers(self) -> list[float]:
        """Those of a vector, none if it is not one of floating point."""
        try:
            _, (count,), dtype, _, data = self.state
            data = data.encode("latin1") if isinstance(data, str) else bytes(data)
            form = {"f4": "f", "f8": "d"}[dtype.code]
            return list(struct.unpack(f"{dtype.order}{count}{form}", data))
        except (AttributeError, KeyError, TypeError, ValueError, struct.error):
            return []
