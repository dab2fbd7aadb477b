"""ModelNet40 in its two releases: meshes in OFF files, and clouds of 2,048 points of their surfaces in HDF5.

    ModelNet40/airplane/train/airplane_0001.off ...   9,843 meshes to train, 2,468 to test, in 40 categories
    modelnet40_ply_hdf5_2048/ply_data_train0.h5 ...   9,840 clouds to train, 2,468 to test, in the unit ball

ModelNet10, ten of the categories, is laid out as the meshes of ModelNet40 are. Meshes stand upright on z, at
any place and of any size; `registration_pairs.unit_ball` brings clouds of either release to one size.

The releases were not at hand: the loaders were tested on small files of these layouts only. `check_meshes`
and `check_clouds` compare what is there with what the releases are known to hold.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot._checks import check_positive
from svdrot.io import meshes, text

CATEGORIES = tuple(
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser "
    "flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano plant radio "
    "range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox".split()
)
MODELNET10 = tuple("bathtub bed chair desk dresser monitor night_stand sofa table toilet".split())

MESHES = (9843, 2468)  # to train and to test, in ModelNet40
ARCHIVES = {  # SHA-256, agreed on by several programs that download them
    "ModelNet40.zip": "42dc3e656932e387f554e25a4eb2cc0e1a1bd3ab54606e2a9eae444c60e536ac",
    "ModelNet10.zip": "9d8679435fc07d1d26f13009878db164a7aa8ea5e7ea3c8880e42794b7307d51",
}
CLOUDS = {  # MD5, likewise
    "ply_data_train0.h5": "3176385ffc31a7b6b5af22191fd920d1",
    "ply_data_train1.h5": "e3f613fb500559403b34925112754dc4",
    "ply_data_train2.h5": "0c56e233a090ff87c3049d4ce08e7d8b",
    "ply_data_train3.h5": "9d2af465adfa33a3285c369f3ca66c45",
    "ply_data_train4.h5": "dff38de489b2c41bfaeded86c2208984",
    "ply_data_test0.h5": "e9732e6d83b09e79e9a7617df058adee",
    "ply_data_test1.h5": "aba4b12a67c34391cc3c015a6f08ed4b",
}

MESH_SOURCE = f"""
Download https://modelnet.cs.princeton.edu/ModelNet40.zip, SHA-256
    {ARCHIVES["ModelNet40.zip"]}
or https://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip, SHA-256
    {ARCHIVES["ModelNet10.zip"]}
and unpack it: the folder to name is the one that holds `airplane` or `bathtub`. For research only."""
CLOUD_SOURCE = f"""
Download https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip, or a copy of it such as
https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip, and unpack it: the
folder to name is the one that holds {", ".join(CLOUDS)}.
`check_clouds` compares their MD5 sums."""


# Meshes.


def read_off(path: Path) -> tuple[Tensor, Tensor]:
    """The vertices (V, 3), float64, and the triangles (F, 3), int64, of one file.

    A face of more corners becomes a fan of triangles about its first. The counts may stand in the line of
    `OFF`, right behind it, as they do in some of ModelNet's files.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file, and the line where it is one, if it is not as announced in its head, a
            number is not finite, or a face names a vertex that is not there.
    """
    path = Path(path)
    data = path.read_bytes()
    vertices = meshes.off(path, data)
    rows = text.rows_of(data)
    head = 1 if any(map(str.isdigit, rows[0][1])) else 2
    broken = ~np.isfinite(vertices).all(1)
    if broken.any():
        number, line = rows[head + int(broken.argmax())]
        raise ValueError(f"{path}, line {number}: wanted finite numbers `x y z`; got {line!r}.")
    by_corners: dict[str, list[tuple[int, str]]] = {}
    for number, line in rows[head + len(vertices) :]:
        by_corners.setdefault(line.split(None, 1)[0], []).append((number, line))
    triangles = [np.empty((0, 3), np.int64)]
    for corners, faces in by_corners.items():
        table = text.table(path, faces)[:, 1 : int(corners) + 1]
        bad = ~((table >= 0) & (table < len(vertices)) & (table == np.rint(table))).all(1)
        if bad.any():
            number, line = faces[int(bad.argmax())]
            wanted = f"numbers from 0 to {len(vertices) - 1}"
            raise ValueError(f"{path}, line {number}: wanted {wanted}; got {line!r}.")
        indices = table.astype(np.int64)
        triangles += [indices[:, [0, k, k + 1]] for k in range(1, int(corners) - 1)]
    return torch.from_numpy(vertices), torch.from_numpy(np.concatenate(triangles))


def sample_surface(
    vertices: Tensor, triangles: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Points drawn uniformly by area from the surface of a mesh.

    A triangle is drawn by its area, and in it the point $a + \sqrt{u} ((1 - v) (b - a) + v (c - a))$ with u
    and v uniform in [0, 1]: of the area, the share u is within $\sqrt{u}$ of the way from a to the far edge.

    Args:
        vertices: shape (V, 3), floating point.
        triangles: numbers of their corners, shape (F, 3), int64.
        count: how many points.
        generator: source of the random numbers, on the device of the mesh; torch's own if None.

    Returns:
        Points, shape (count, 3), in the dtype of the vertices.

    Raises:
        ValueError: if `count` is not positive, or the triangles have no area.

    Source:
        Osada et al., "Shape Distributions", ACM Trans. Graphics 21 (2002), section 4.2.
    """
    check_positive("count", count)
    a, b, c = vertices[triangles].unbind(1)
    # Areas relative to the largest edge: a square of a length of 1e-30 would be 0 in float32.
    scale = torch.stack(((b - a).abs().amax(), (c - a).abs().amax())).amax() if len(triangles) else a.sum()
    area = torch.linalg.vector_norm(torch.linalg.cross((b - a) / scale, (c - a) / scale), dim=1).double()
    cumulative = area.cumsum(0)
    if not len(triangles) or not 0 < cumulative[-1] < torch.inf:
        raise ValueError(f"`triangles` must have an area to draw from; got {len(triangles)} without one.")
    u, v, w = torch.rand(3, count, dtype=torch.float64, device=vertices.device, generator=generator)
    chosen = torch.searchsorted(cumulative, w * cumulative[-1], right=True).clamp(max=len(triangles) - 1)
    u, v = (x.to(vertices.dtype)[:, None] for x in (u.sqrt(), v))
    a, b, c = a[chosen], b[chosen], c[chosen]
    return a + u * ((1 - v) * (b - a) + v * (c - a))


@dataclass(frozen=True)
class Meshes:
    """Meshes of some categories, by category and name; each is read when it is asked for.

    Attributes:
        files: one for each mesh.
        categories: names; `labels` are places among them.
    """

    files: tuple[Path, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        """Vertices (V, 3), float64, and triangles (F, 3) of mesh `k`."""
        return read_off(self.files[k])

    @property
    def names(self) -> list[str]:
        return [file.stem for file in self.files]

    @property
    def labels(self) -> Tensor:
        """Category of each mesh, shape (len,), int64."""
        return torch.tensor([self.categories.index(file.parents[1].name) for file in self.files])

    def sample(self, k: int, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Points of the surface of mesh `k`, shape (count, 3), float64, as `sample_surface` draws them.

        Raises:
            ValueError: with the file, if it is broken or has no area.
        """
        try:
            return sample_surface(*self[k], count, generator=generator)
        except ValueError as error:
            where = "" if str(self.files[k]) in str(error) else f"{self.files[k]}: "
            raise ValueError(f"{where}{error}") from error


def load_meshes(root: Path, *, test: bool = False, categories: tuple[str, ...] = CATEGORIES) -> Meshes:
    """The meshes to train with, or to test with, below the unpacked `ModelNet40` or `ModelNet10`.

    Args:
        root: the folder of the categories.
        test: those of the folders `test` instead of `train`.
        categories: which, in the order of the labels; `MODELNET10` for ModelNet10.

    Raises:
        FileNotFoundError: if a category is not there; says which, where they come from and what to expect.
    """
    root, part = Path(root), "test" if test else "train"
    files = {category: sorted((root / category / part).glob("*.off")) for category in categories}
    missing = [category for category, found in files.items() if not found]
    if missing:
        raise FileNotFoundError(
            f"no meshes {root.resolve()}/<category>/{part}/*.off of {', '.join(missing)}.{MESH_SOURCE}"
        )
    return Meshes(tuple(file for found in files.values() for file in found), tuple(categories))


def check_meshes(root: Path) -> None:
    """Compare the unpacked ModelNet40 with the release, by the number of its meshes.

    Raises:
        FileNotFoundError: if a category is not there.
        ValueError: if there are more or fewer meshes.
    """
    found = tuple(len(load_meshes(root, test=test)) for test in (False, True))
    if found != MESHES:
        raise ValueError(
            f"{Path(root).resolve()} holds {found[0]} meshes to train and {found[1]} to test; the release "
            f"has {MESHES[0]} and {MESHES[1]}.{MESH_SOURCE}"
        )


def check_archive(path: Path) -> None:
    """Compare a downloaded `ModelNet40.zip` or `ModelNet10.zip` with its SHA-256.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it has another name or sum.
    """
    path = Path(path)
    if path.name not in ARCHIVES:
        raise ValueError(f"`path` must be one of {', '.join(ARCHIVES)}; got {path}.")
    _check_sum(path, "sha256", ARCHIVES[path.name])


def _check_sum(path: Path, algorithm: str, wanted: str) -> None:
    found = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != wanted:
        raise ValueError(f"{path}: wanted the {algorithm} sum {wanted}; it has {found.hexdigest()}.")


# Clouds.


@dataclass(frozen=True)
class Clouds:
    """Clouds of the HDF5 release, in the order of its files, which are read when something is asked for.

    Attributes:
        files: `ply_data_<part><number>.h5`.
    """

    files: tuple[Path, ...]
    categories: tuple[str, ...] = CATEGORIES

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, k: int) -> Tensor:
        """Points of cloud `k`, shape (2048, 3), float32."""
        return self.points[k]

    @property
    def points(self) -> Tensor:
        """All clouds, shape (len, 2048, 3), float32.

        Raises:
            ImportError: if h5py is not installed.
            ValueError: with the file, if it is broken.
        """
        return self._arrays[0]

    @property
    def labels(self) -> Tensor:
        """Category of each cloud, as a place among `categories`, shape (len,), int64."""
        return self._arrays[1]

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor]:
        parts = [self._read(file) for file in self.files]
        for file, (points, _) in zip(self.files, parts, strict=True):
            if points.shape[1] != (count := parts[0][0].shape[1]):
                raise ValueError(f"{file}: wanted {count} points a cloud, as before; got {points.shape[1]}.")
        points, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return torch.from_numpy(points), torch.from_numpy(labels)

    def _read(self, path: Path) -> tuple[NDArray, NDArray]:
        try:
            import h5py
        except ImportError as error:
            raise ImportError(f"{path} needs h5py: pip install h5py. It did not load: {error}") from error
        try:
            with h5py.File(path, "r") as file:
                points, labels = (np.asarray(file[name]) for name in ("data", "label"))
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read as clouds `data` and their `label`: {error}") from error
        labels = labels[:, None] if labels.ndim == 1 else labels
        wanted = "finite `data` (clouds, points, 3), and integers `label` from 0 to 39 for as many"
        if points.ndim != 3 or points.shape[2] != 3 or points.dtype.kind != "f" or not len(points):
            raise ValueError(f"{path}: wanted {wanted}; got `data` {points.shape}, {points.dtype}.")
        if labels.shape != (len(points), 1) or labels.dtype.kind not in "iu":
            raise ValueError(f"{path}: wanted {wanted}; got `label` {labels.shape}, {labels.dtype}.")
        with np.errstate(over="ignore"):
            points = points.astype(np.float32)
        broken = (
            ~np.isfinite(points).all((1, 2)) | (labels[:, 0] < 0) | (labels[:, 0] >= len(self.categories))
        )
        if broken.any():
            raise ValueError(
                f"{path}: wanted {wanted}; cloud {broken.argmax()} is not so, of {broken.sum()} such clouds."
            )
        return points, labels[:, 0].astype(np.int64)


def load_clouds(root: Path, *, test: bool = False) -> Clouds:
    """The clouds to train with, or to test with, in the unpacked `modelnet40_ply_hdf5_2048`.

    Raises:
        FileNotFoundError: if a file is not there; says which, where they come from and what to expect.
    """
    root, part = Path(root), "test" if test else "train"
    files = tuple(root / name for name in CLOUDS if name.startswith(f"ply_data_{part}"))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} in {root.resolve()}.{CLOUD_SOURCE}")
    return Clouds(files)


def check_clouds(root: Path) -> None:
    """Compare the files of the unpacked `modelnet40_ply_hdf5_2048` with the release, by their MD5 sums.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: with the file that differs.
    """
    for test in (False, True):
        for file in load_clouds(root, test=test).files:
            _check_sum(file, "md5", CLOUDS[file.name])
