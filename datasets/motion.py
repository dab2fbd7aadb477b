"""Poses of people, by which Zhou 2019, Levinson 2020 and Brégier 2021 compare layers in inverse kinematics.

A clip is the rotation of each of 43 joints relative to its parent, frame by frame, at 60 Hz; the positions of
the 57 nodes come by `bvh.forward_kinematics`, in centimeters. Every subject of CMU has bones of its own
length: those of `standard.bvh` stand for all, as in the published experiment. Beside it, `load` finds one of

    quat_data_train/, quat_data_test/   the published clips, npy (frames, 3 + 57 * 4) at 60 Hz: the place of
                                        the first node, and a quaternion w x y z for every node
    clips_120hz_every2nd.npz            eleven clips, channels (frames, 132), every second frame of 120 Hz
    **/*.bvh                            files of the same joints at any rate

Files begin with a frame that is no motion but a stance with straight arms; it is left out. The published
clips were not at hand: they are read as the program writes them that made them, and tested on files of that
layout only. The packed clips and 43 of the BVH files named below were at hand.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import bvh
from svdrot.io.arrays import load_numpy
from svdrot.representations import quaternion_to_matrix

SKELETON = "standard.bvh"
PACKED = "clips_120hz_every2nd.npz"
PUBLISHED = ("quat_data_train", "quat_data_test")
RATE = 60.0
# Of so many clips of a kind one is held out, as Zhou 2019 held out 73 of 865.
HELD_OUT = 12

SOURCE = f"""
`{SKELETON}`, sha256 19fb3f786b0390f9b5c8b856d35d8ffa00e45f17eec40eded7f8eb9aedf3cf42, is
    https://github.com/papagina/RotationContinuity/blob/758b0ce551/Inverse_Kinematics/data/standard.bvh
whose README has the links to the published clips. 55 BVH files of the same joints are
    https://github.com/papagina/Auto_Conditioned_RNN_motion/tree/fbb7f64140/train_data_bvh
(git tree 37ecb7f386560454183e41db2925d2db8439ecd6); all 2,500 motions of CMU come by www.cgspeed.com as the
Daz-friendly release, free for any use. Put the skeleton and the folders of one of these into one folder."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips of one skeleton; each is read when it is first asked for, and then kept.

    Attributes:
        skeleton: of all clips.
        files: where each clip is, by its name `kind/clip`.
        packed: frames (F, channels) of the clips of the packed file, by name.
    """

    skeleton: bvh.Skeleton
    files: dict[str, Path]
    packed: Mapping[str, NDArray] = field(default_factory=dict, repr=False)
    _read: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> list[str]:
        return list(self.files)

    def __getitem__(self, k: int) -> Tensor:
        """Rotations of the joints in clip `k`, each relative to its parent, (frames, 43, 3, 3), float32.

        Raises:
            ValueError: with the file and, in a BVH file, the line, if it is broken or has other joints.
        """
        name = self.names[k]
        if name not in self._read:
            self._read[name] = self._rotations(name).float()
        return self._read[name]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def _rotations(self, name: str) -> Tensor:
        path = self.files[name]
        if path.suffix == ".npy":
            table = _numbers(path, load_numpy(path, path.read_bytes()), 3 + 4 * len(self.skeleton.names))
            quaternions = table[1:, 3:].unflatten(1, (-1, 4))
            return quaternion_to_matrix(quaternions[:, list(self.skeleton.joints)])
        if name in self.packed:
            frames = _numbers(path, self.packed[name], sum(map(len, self.skeleton.channels)))
        else:
            skeleton, frames, seconds = bvh.read(path)
            if not skeleton.same_joints(self.skeleton):
                raise ValueError(f"{path} must have the joints and channels of {SKELETON}; it has others.")
            if not seconds:
                raise ValueError(f"{path}: `Frame Time:` must be positive, or the rate is not known.")
            frames = frames[:: max(1, round(1 / (RATE * seconds)))]
        return bvh.local_pose(self.skeleton, frames[1:])[0]


def _numbers(path: Path, table: object, width: int) -> Tensor:
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: wanted numbers (frames, {width}); got {getattr(table, 'dtype', type(table))}."
        )
    if table.ndim != 2 or table.shape[1] != width or not np.isfinite(table).all():
        raise ValueError(
            f"{path}: wanted finite numbers (frames, {width}); got shape {table.shape}, "
            f"{int((~np.isfinite(table)).sum())} of them not finite."
        )
    return torch.from_numpy(table).double()


def load(root: Path) -> Clips:
    """The clips beside `standard.bvh`, of the first form in the order above that is there.

    Raises:
        FileNotFoundError: if there is no skeleton, or no clips; says what was looked for, and the source.
        ValueError: with the file, and the line of text, if the skeleton or the packed file is broken.
    """
    root = Path(root)
    if not (root / SKELETON).is_file():
        raise FileNotFoundError(f"no {root.resolve() / SKELETON}.{SOURCE}")
    files = {path.relative_to(root).with_suffix("").as_posix(): path for path in _published(root)}
    packed: Mapping[str, NDArray] = {}
    if not files and (root / PACKED).is_file():
        arrays = load_numpy(root / PACKED, (root / PACKED).read_bytes())
        if isinstance(arrays, np.ndarray):
            raise ValueError(f"{root / PACKED} is one array, not an npz of clips.")
        packed = {"/".join(name.rsplit("_", 1)): array for name, array in arrays.items()}
        files = dict.fromkeys(packed, root / PACKED)
    if not files:
        found = sorted(path for path in root.rglob("*.bvh") if path.name != SKELETON)
        files = {path.relative_to(root).with_suffix("").as_posix(): path for path in found}
    if not files:
        raise FileNotFoundError(
            f"no clips in {root.resolve()}: looked for {PUBLISHED[0]}/*.npy, {PACKED} and **/*.bvh.{SOURCE}"
        )
    return Clips(bvh.read(root / SKELETON)[0], files, packed)


def _published(root: Path) -> list[Path]:
    return [path for folder in PUBLISHED for path in sorted((root / folder).rglob("*.npy"))]


def split(clips: Clips) -> tuple[list[int], list[int]]:
    """Indices of training clips and of held-out ones, always whole: neighboring frames are all but equal.

    The published clips are split as published. Of others one in twelve of each kind is held out, at least one
    where there are two; they may show people who are in the training clips, too, so that errors on them say
    little of other people.
    """
    if any(name.startswith(f"{PUBLISHED[1]}/") for name in clips.names):
        held = {k for k, name in enumerate(clips.names) if name.startswith(f"{PUBLISHED[1]}/")}
    else:
        kinds: dict[str, list[int]] = defaultdict(list)
        for k, name in enumerate(clips.names):
            kinds[name.rpartition("/")[0]].append(k)
        held = set()
        for members in kinds.values():
            count = max(len(members) // HELD_OUT, 1) if len(members) > 1 else 0
            by_name = sorted(members, key=clips.names.__getitem__)
            held |= {by_name[k] for k in np.random.default_rng(0).permutation(len(members))[:count]}
    return [k for k in range(len(clips)) if k not in held], sorted(held)
