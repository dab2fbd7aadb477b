"""The ShapeNet aeroplanes by which Zhou 2019, Levinson 2020 and Brégier 2021 compare rotation layers.

Two forms of the same clouds, found by `load`: the original folders `points` and `points_test` of text files,
one `x y z` a line, and one packed file of the training clouds, `shapenet_planes_train2290.npz`, which `pack`
makes of them and which is read much faster:

    lo (P, 3) uint16, hi (P, 3) int8   points = (lo + 65536 hi) / 1e5, exactly the five decimals of the text
    offsets (K + 1,)                   cloud k is points[offsets[k]:offsets[k + 1]]
    ids (K,)                           the names of the files, in order
    full_counts (K,)                   points of the whole file; the packed ones are its first half

Both were at hand: their 2,290 training clouds are equal, and `pack` gives the packed file to the last byte,
SHA-256 4289861e837344a7fc77166de11c93306caec2f18e391e6b53591abf43c333d4.

The published codes use the first half of each file only. The clouds are neither centered nor scaled: they lie
within 0.5 of the origin, about which they are rotated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svdrot.io import text
from svdrot.io.arrays import load_numpy
from svdrot.io.files import replacing

PACKED = "shapenet_planes_train2290.npz"
VALIDATION = 400  # of the training clouds, as in Brégier 2021

SOURCE = """
The clouds are in shapenet/data/pc_plane, 177 MB, which is the folder to name, of
    git clone https://github.com/papagina/RotationContinuity
    git -C RotationContinuity checkout 758b0ce551c06372cab7022d4c0bdf331c89c696
    git -C RotationContinuity ls-tree HEAD:shapenet/data/pc_plane
which prints the sum 0a22d47fc843f75af9574b6a76f0f2443b8b2fb6 of the folder points, of 2,290 training clouds,
and 86fd5db0dd384a61c2f6b8104a8de51507a1ea56 of points_test, of 400.
They derive from ShapeNet, whose terms are for non-commercial research."""


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
        held = load_numpy(self.path, self.path.read_bytes())
        arrays = {} if isinstance(held, np.ndarray) else dict(held)
        missing = {"lo", "hi", "offsets", "ids"} - set(arrays)
        if missing:
            raise ValueError(
                f"{self.path} lacks the arrays {sorted(missing)}; it has {sorted(arrays)}.{SOURCE}"
            )
        lo, hi, offsets, ids = (arrays[name] for name in ("lo", "hi", "offsets", "ids"))
        if lo.shape[1:] != (3,) or hi.shape != lo.shape or lo.dtype != np.uint16 or hi.dtype != np.int8:
            raise ValueError(
                f"{self.path}: wanted `lo` (P, 3) of uint16 and `hi` (P, 3) of int8; got {lo.shape} of "
                f"{lo.dtype} and {hi.shape} of {hi.dtype}."
            )
        whole = ids.ndim == 1 and offsets.shape == (ids.size + 1,)
        whole = whole and offsets.dtype.kind in "iu" and ids.dtype.kind == "U"
        whole = whole and offsets[0] == 0 and offsets[-1] == len(lo)
        if not whole or (np.diff(offsets.astype(np.int64)) <= 0).any():
            raise ValueError(
                f"{self.path}: wanted `offsets` that rise from 0 to {len(lo)}, one more than the {ids.size} "
                f"names in `ids`; got {offsets.shape} of {offsets.dtype}."
            )
        return arrays


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
    """The 2,290 training clouds, or the 399 test clouds, below `root`.

    One of the 400 files of `points_test` is named `.xyz` and left out, as in Levinson's 39,900 test pairs.

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
        f"looked for {' and for '.join(wanted)}.{SOURCE}"
    )


def split(clouds: PackedClouds | TextClouds, validation: int = VALIDATION) -> tuple[NDArray, NDArray]:
    """Indices of training and of validation clouds: the same clouds for both forms of the data."""
    if not 0 < validation < len(clouds):
        raise ValueError(f"`validation` must lie between 0 and the {len(clouds)} clouds; got {validation}.")
    order = np.random.default_rng(0).permutation(len(clouds))
    by_name = np.argsort(np.array(clouds.ids), kind="stable")
    return np.sort(by_name[order[validation:]]), np.sort(by_name[order[:validation]])


LARGEST = float(np.finfo(np.float32).max)


def read_pts(path: Path) -> NDArray:
    """The points of one text file, shape (points, 3), float32.

    Raises:
        ValueError: with the file and the line, if a line is not three finite numbers, or if there is none.
    """
    rows = []
    for number, line in enumerate(text.read(path).splitlines(), 1):
        try:
            row = [text.real(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != 3 or not all(abs(number) <= LARGEST for number in row):
            raise ValueError(f"{path}, line {number}: wanted three finite numbers `x y z`; got {line!r}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} holds no points.")
    return np.array(rows, np.float32)


def pack(folder: Path, path: Path) -> None:
    """Write the first halves of all clouds of a folder of `.pts` files as one packed file.

    Raises:
        FileNotFoundError: if there are no such files.
        ValueError: with the file, and the line where it is one, if it is broken, or if a coordinate has more
            than five decimals or is beyond 1: float32 does not tell five decimals of much larger ones.
    """
    clouds = TextClouds(Path(folder), first_half=False)
    if not len(clouds):
        raise FileNotFoundError(f"no text files {clouds.folder.resolve()}/*.pts.{SOURCE}")
    halves, counts = [], []
    for name, cloud in zip(clouds.ids, clouds, strict=True):
        exact = cloud[: len(cloud) // 2].astype(np.float64) * 1e5
        whole = np.rint(exact)
        off = (abs(whole - exact) > 0.01) | (abs(exact) > 1e5)  # float32 rounds up to 0.003 of the last one
        if off.any():
            got = cloud[int(off.any(1).argmax())].tolist()
            raise ValueError(
                f"{clouds.folder / name}.pts: wanted coordinates of five decimals, up to 1; got {got}."
            )
        halves.append(whole.astype(np.int32))
        counts.append(len(cloud))
    flat = np.concatenate(halves)
    with replacing(Path(path)) as new, new.open("wb") as file:
        np.savez_compressed(
            file,
            lo=(flat & 0xFFFF).astype(np.uint16),
            hi=(flat >> 16).astype(np.int8),
            offsets=np.cumsum([0, *map(len, halves)]).astype(np.int32),
            ids=np.array(clouds.ids),
            full_counts=np.array(counts, np.int32),
        )
