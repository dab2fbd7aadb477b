"""Results and ground truth of the BOP benchmark of object poses, as comma-separated values.

    scene_id,im_id,obj_id,score,R,t,time
    2,3,1,1.0,0.875 0.478 ... -0.845,161.6 -113.7 1112.8,1.0

`R` is nine numbers, row by row, `t` three, in millimeters; a pose takes the model's coordinates to the
camera's. `time` is in seconds, or -1 where it is not known. The line of names may be missing.
"""

from collections import Counter
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from svdrot.io import text
from svdrot.io.transforms import check_rotations
from svdrot.transform import Transform

NAMES = "scene_id,im_id,obj_id,score,R,t,time"
# The ground truth of LM-O is off by up to 9.6e-3; a matrix that is off by more than this is none.
TOLERANCE = 5e-2


@dataclass(frozen=True)
class BopPoses:
    """Hold the rows of a file of the BOP benchmark: poses of objects in images, and how sure they are.

    Attributes:
        scene: shape (N,), integers.
        image: likewise.
        object: likewise.
        score: shape (N,), float64; larger is surer.
        pose: `Transform` (N,), float64, millimeters; rotations as they are written.
        time: shape (N,), seconds, or -1 where it is not known.

    Example:
        >>> import pathlib, torch, svdrot
        >>> row = "2,3,1,0.9,1 0 0 0 1 0 0 0 1,0 0 1000,-1"
        >>> _ = pathlib.Path("results.csv").write_text(row)
        >>> poses = svdrot.io.read_bop("results.csv")
        >>> len(poses), poses.object, poses.pose.translation[0] / 1000  # in meters
        (1, tensor([1]), tensor([0., 0., 1.], dtype=torch.float64))
    """

    scene: Tensor
    image: Tensor
    object: Tensor
    score: Tensor
    pose: Transform
    time: Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.scene)


def read_bop(path: str | Path, *, tolerance: float = TOLERANCE) -> BopPoses:
    r"""Read the rows of a file of the BOP benchmark, in their order.

    Args:
        path: of the file.
        tolerance: how far entries of R^T R may be from those of the identity.

    Returns:
        `BopPoses`, at least one, float64, millimeters.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line, if a line is not such a row of finite numbers, or `R` is not a
            rotation; with the file, if it holds no rows or is not text.

    Example:
        >>> import pathlib, torch, svdrot
        >>> row = "scene_id,im_id,obj_id,score,R,t,time\n2,3,1,0.9,1 0 0 0 1 0 0 0 1,0 0 1000,-1\n"
        >>> _ = pathlib.Path("results.csv").write_text(row)
        >>> svdrot.io.read_bop("results.csv").score
        tensor([0.9000], dtype=torch.float64)
    """
    path = Path(path)
    lines, keys, values = [], [], []
    for number, line in text.lines(path):
        if not lines and line.replace(" ", "") == NAMES:
            continue
        key, value = _row(path, number, line)
        lines.append(number)
        keys.append(key)
        values.append(value)
    if not lines:
        raise ValueError(f"{path} holds no poses.")
    scene, image, thing = torch.tensor(keys).unbind(1)
    table = torch.tensor(values, dtype=torch.float64)
    rotation, translation = table[:, 1:10].reshape(-1, 3, 3), table[:, 10:13].contiguous()
    check_rotations(path, lines, rotation, tolerance)
    pose = Transform(rotation, translation, torch.ones_like(table[:, 0]))
    return BopPoses(scene, image, thing, table[:, 0].contiguous(), pose, table[:, 13].contiguous())


def _row(path: Path, number: int, line: str) -> tuple[list[int], list[float]]:
    """Read a line: scene, image and object; score, R, t and time."""
    fields = line.split(",")
    try:
        scene, image, thing, score, rotation, translation, time = fields
        key = [_key(scene), _key(image), _key(thing)]
        value = [text.real(word) for part in (score, rotation, translation, time) for word in part.split()]
        widths = [len(part.split()) for part in (score, rotation, translation, time)]
    except ValueError:
        key, value, widths = [], [], []
    if widths != [1, 9, 3, 1] or not all(map(isfinite, value)):
        raise ValueError(f"{path}, line {number}: wanted `{NAMES}`, R of 9, t of 3 numbers; got {line!r}.")
    return key, value


def _key(word: str) -> int:
    """Read an integer, or raise ValueError."""
    key = int(word)
    if "_" in word or not -(2**63) <= key < 2**63:
        raise ValueError
    return key


def single_instances(estimates: BopPoses, truth: BopPoses) -> tuple[Tensor, Tensor]:
    r"""Pair the surest estimate with the truth, for objects of which an image shows exactly one.

    Args:
        estimates: any number for each object in each image; of equal scores the first is taken.
        truth: every instance.

    Returns:
        Indices into `estimates` and into `truth`, shape (P,) each, in the order of `truth`. An object without
        an estimate is left out: a recall over all objects must count it as a miss.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("truth.csv").write_text("2,3,1,1,1 0 0 0 1 0 0 0 1,0 0 1000,-1\n")
        >>> _ = pathlib.Path("found.csv").write_text(
        ...     "2,3,1,0.2,1 0 0 0 1 0 0 0 1,0 0 500,-1\n2,3,1,0.9,1 0 0 0 1 0 0 0 1,0 0 990,-1\n"
        ... )
        >>> estimates, truth = svdrot.io.read_bop("found.csv"), svdrot.io.read_bop("truth.csv")
        >>> svdrot.io.single_instances(estimates, truth)
        (tensor([1]), tensor([0]))
    """
    best: dict[tuple[int, int, int], int] = {}
    score = estimates.score.tolist()
    for row, key in enumerate(_keys(estimates)):
        if key not in best or score[row] > score[best[key]]:
            best[key] = row
    shown = _keys(truth)
    count = Counter(shown)
    pairs = [(best[key], row) for row, key in enumerate(shown) if count[key] == 1 and key in best]
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _keys(poses: BopPoses) -> list[tuple[int, int, int]]:
    """Return scene, image and object of each row."""
    return list(zip(poses.scene.tolist(), poses.image.tolist(), poses.object.tolist(), strict=True))
