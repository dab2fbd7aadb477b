"""The ShapeNet aeroplanes by which Zhou 2019, Levinson 2020 and Brégier 2021 compare rotation layers.

Two forms of the same clouds, found by `load`: the original folders `points` and `points_test` of text files,
one `x y z` a line, and one packed file of the training clouds, `shapenet_planes_train2290.npz`:

    lo (P, 3) uint16, hi (P, 3) int8   points = (lo + 65536 hi) / 1e5, exactly the five decimals of the text
    offsets (K + 1,)                   cloud k is points[offsets[k]:offsets[k + 1]]
    ids (K,)                           the names of the files, in order
    full_counts (K,)                   points of the whole file; the packed ones are its first half

The published codes use the first half of each file only. The clouds are neither centred nor scaled: they lie
within 0.5 of the origin, about which they are rotated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PACKED = "shapenet_planes_train2290.npz"
VALIDATION = 400  # of the training clouds, as in Brégier 2021

SOURCE = (
    "The clouds come with https://github.com/papagina/RotationContinuity in shapenet/data/pc_plane; they "
    "derive from ShapeNet, whose terms are for non-commercial research."
)


@dataclass(frozen=True)
class PackedClouds:
    """The clouds of the packed file; each is decoded when it is asked for."""

    path: Path

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: int) -> NDArray:
        """Cloud `k`, shape (points, 3), float32."""
        offsets = self._arrays["offsets"]
        rows = slice(offsets[k], offsets[k + 1])
        high = self._arrays["hi"][rows].astype(np.int32) << 16
        return ((self._arrays["lo"][rows] + high) / 1e5).astype(np.float32)

    def __iter__(self) -> Iterator[NDArray]:
        return (self[k] for k in range(len(self)))

    @property
    def ids(self) -> list[str]:
        return self._arrays["ids"].tolist()

    @cached_property
    def _arrays(self) -> dict[str, NDArray]:
        with np.load(self.path, allow_pickle=False) as file:
            missing = {"lo", "hi", "offsets", "ids"} - set(file.files)
            if missing:
                raise ValueError(
                    f"{self.path} lacks the arrays {sorted(missing)}; it has {file.files}. {SOURCE}"
                )
            return {name: file[name] for name in ("lo", "hi", "offsets", "ids")}


@dataclass(frozen=True)
class TextClouds:
    """The clouds of a folder of `.pts` files, in the order of their names; each is read when asked for."""

    folder: Path
    first_half: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: int) -> NDArray:
        """Cloud `k`, shape (points, 3), float32."""
        cloud = read_pts(self.folder / f"{self.ids[k]}.pts")
        return cloud[: len(cloud) // 2] if self.first_half else cloud

    def __iter__(self) -> Iterator[NDArray]:
        return (self[k] for k in range(len(self)))

    @cached_property
    def ids(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.pts"))


def load(root: Path, *, test: bool = False, first_half: bool = True) -> PackedClouds | TextClouds:
    """The training clouds, or the 400 test clouds, below `root`.

    Args:
        root: the folder of the packed file, or the original `pc_plane` with `points` and `points_test`.
        test: the clouds of `points_test`, which the packed file lacks.
        first_half: as the published codes; False gives whole text files, which the packed file lacks.

    Raises:
        FileNotFoundError: if neither form is there; says where it was looked for and where it comes from.
    """
    root = Path(root)
    folder, packed = root / ("points_test" if test else "points"), root / PACKED
    if next(folder.glob("*.pts"), None):
        return TextClouds(folder, first_half)
    if packed.is_file() and first_half and not test:
        return PackedClouds(packed)
    wanted = [f"text files {folder}/*.pts"] + [f"the packed file {packed}"] * (first_half and not test)
    raise FileNotFoundError(
        f"no aeroplanes under {root.resolve()}{'' if root.is_dir() else ', which is not a folder'}: "
        f"looked for {' and for '.join(wanted)}. {SOURCE}"
    )


def split(clouds: PackedClouds | TextClouds, validation: int = VALIDATION) -> tuple[NDArray, NDArray]:
    """Indices of training and of validation clouds: the same clouds for both forms of the data."""
    if not 0 < validation < len(clouds):
        raise ValueError(f"`validation` must lie between 0 and the {len(clouds)} clouds; got {validation}.")
    order = np.random.default_rng(0).permutation(len(clouds))
    by_name = np.argsort(np.array(clouds.ids), kind="stable")
    return np.sort(by_name[order[validation:]]), np.sort(by_name[order[:validation]])


def read_pts(path: Path) -> NDArray:
    """The points of one text file, shape (points, 3), float32.

    Raises:
        ValueError: with the file and the line, if a line is not three finite numbers, or if there is none.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 3 or not all(map(isfinite, row)):
            raise ValueError(f"{path}, line {number}: wanted three finite numbers `x y z`; got {line!r}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no points.")
    return np.array(rows, np.float32)
