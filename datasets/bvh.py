"""Motion capture in BVH files: the skeleton, the frames of its channels, and forward kinematics.

    HIERARCHY
    ROOT hip
    {
      OFFSET 0 0 0
      CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
      JOINT abdomen
      {
        OFFSET 0 20.7 -0.7
        CHANNELS 3 Zrotation Xrotation Yrotation
        End Site
        {
          OFFSET 0 11.7 -0.5
        }
      }
    }
    MOTION
    Frames: 1
    Frame Time: 0.016667
    0 85.2 1 0 0 0 0.6 -0.1 0

Angles are degrees in the file alone. Lengths are in the unit of the file, which no BVH names: centimeters in
those of CMU's motions. A node is a joint or the end site of one; nodes are numbered as they come, so a parent
before its children.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from svdrot._checks import check_shape
from svdrot._precision import compute_dtype
from svdrot.io import text
from svdrot.representations import euler_to_matrix

CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A tree of joints.

    Attributes:
        names: of the nodes; an end site is called as its parent with `_end` behind.
        parents: number of each node's parent, -1 for the first node.
        offsets: from each node's parent, in the frame of that, shape (nodes, 3), float64.
        joints: numbers of the nodes that are not end sites, in order.
        channels: for each joint, the names of its channels as they follow each other in a frame.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Tensor
    joints: tuple[int, ...]
    channels: tuple[tuple[str, ...], ...]

    def same_joints(self, other: "Skeleton") -> bool:
        """Whether frames of one are frames of the other: all but the offsets is equal."""
        mine = (self.names, self.parents, self.joints, self.channels)
        return mine == (other.names, other.parents, other.joints, other.channels)


def read(path: Path) -> tuple[Skeleton, Tensor, float]:
    """The skeleton, its frames (F, channels) in float64 as they are written, and the seconds between two.

    Names may hold spaces, joints may have any channels in any order, and a branch may lack its end site.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line, where it is not as described above, or if it is cut.
    """
    path = Path(path)
    lines = _Lines(path)
    skeleton = _hierarchy(lines)
    count = int(lines.number("Frames:", "a whole number of frames", integer=True))
    seconds = lines.number("Frame Time:", "the seconds between two frames")
    width = sum(map(len, skeleton.channels))
    frames = [text.numbers(path, *line, width, "one of each channel") for line in lines.rest()]
    if len(frames) != count:
        raise ValueError(
            f"{path}, line {lines.line}: wanted the {count} frames of `Frames:`; the file has {len(frames)}."
        )
    return skeleton, torch.tensor(frames, dtype=torch.float64).reshape(count, width), seconds


class _Lines:
    """The lines of a file, one after the other; a brace is a line of its own wherever it stands."""

    def __init__(self, path: Path):
        self.path, self.line = path, 0
        self._lines = text.lines(path)
        self._waiting: list[str] = []

    def take(self, wanted: str) -> str:
        """The next line; `wanted` is what the error calls it if there is none."""
        if not self._waiting:
            self.line, text = next(self._lines, (self.line, ""))
            if not text:
                raise ValueError(f"{self.path}, line {self.line}: the file ends; wanted {wanted}.")
            spaced = text.replace("{", "\n{\n").replace("}", "\n}\n").split("\n")
            self._waiting = [part.strip() for part in reversed(spaced) if part.strip()]
        return self._waiting.pop()

    def fail(self, wanted: str, got: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.line}: wanted {wanted}; got {got[:200]!r}.")

    def expect(self, literal: str) -> None:
        got = self.take(f"`{literal}`")
        if got.upper() != literal:
            raise self.fail(f"`{literal}`", got)

    def field(self, keyword: str, wanted: str) -> list[str]:
        """What follows a keyword on its line."""
        got = self.take(f"`{keyword}`")
        if not got.upper().startswith(keyword.upper()):
            raise self.fail(f"`{keyword}` and {wanted}", got)
        return got[len(keyword) :].split()

    def number(self, keyword: str, wanted: str, *, integer: bool = False) -> float:
        words = self.field(keyword, wanted)
        numbers = _finite(words)
        if len(words) != 1 or not numbers or numbers[0] < 0 or (integer and not numbers[0].is_integer()):
            raise self.fail(f"`{keyword}` and {wanted}", " ".join(words))
        return numbers[0]

    def rest(self) -> Iterator[tuple[int, str]]:
        for number, line in self._lines:
            self.line = number
            yield number, line


def _finite(words: list[str]) -> list[float]:
    """The numbers that words are, none if any is not a finite one."""
    try:
        numbers = [text.real(word) for word in words]
    except ValueError:
        return []
    return numbers if all(map(isfinite, numbers)) else []


def _hierarchy(lines: _Lines) -> Skeleton:
    names, parents, offsets, joints, channels = [], [], [], [], []
    lines.expect("HIERARCHY")
    open_nodes: list[int] = []
    got = lines.take("`ROOT` and a name")
    if got.split()[0].upper() != "ROOT":
        raise lines.fail("`ROOT` and a name", got)
    while got.upper() != "MOTION":
        kind, name = [*got.split(None, 1), ""][:2]
        if got == "}":
            if not open_nodes:
                raise lines.fail("`MOTION`, since every brace is closed", got)
            open_nodes.pop()
        elif kind.upper() in ("ROOT", "JOINT") or " ".join(got.upper().split()) == "END SITE":
            if open_nodes and open_nodes[-1] not in joints:
                raise lines.fail("`}`, since an end site holds nothing", got)
            if (kind.upper() == "ROOT") != (not names) or (names and not open_nodes):
                raise lines.fail("one `ROOT`, and all else within its braces", got)
            if kind.upper() == "END":
                name = f"{names[open_nodes[-1]]}_end"
            elif not name.strip():
                raise lines.fail(f"`{kind}` and a name", got)
            else:
                joints.append(len(names))
            parents.append(open_nodes[-1] if open_nodes else -1)
            open_nodes.append(len(names))
            names.append(name.strip())
            lines.expect("{")
            offset = lines.field("OFFSET", "three finite numbers")
            offsets.append(_finite(offset))
            if len(offset) != 3 or not offsets[-1]:
                raise lines.fail("`OFFSET` and three finite numbers", " ".join(offset))
            if kind.upper() != "END":
                channels.append(_channels(lines))
        else:
            raise lines.fail("`JOINT`, `End Site`, `}` or `MOTION`", got)
        got = lines.take("`}`" if open_nodes else "`MOTION`")
    if open_nodes:
        raise lines.fail(f"`}}` of {names[open_nodes[-1]]!r}", got)
    table = torch.tensor(offsets, dtype=torch.float64)
    return Skeleton(tuple(names), tuple(parents), table, tuple(joints), tuple(channels))


def _channels(lines: _Lines) -> tuple[str, ...]:
    wanted = f"`CHANNELS`, how many, and as many different ones of {', '.join(CHANNELS)}"
    line = lines.field("CHANNELS", wanted)
    found = tuple(word.capitalize() for word in line[1:])
    if not line or line[0] != str(len(found)) or set(found) - set(CHANNELS) or len(set(found)) < len(found):
        raise lines.fail(wanted, " ".join(["CHANNELS", *line]))
    return found


def local_pose(skeleton: Skeleton, frames: Tensor) -> tuple[Tensor, Tensor]:
    r"""What the channels of frames say: how each joint is turned and where it is, seen from its parent.

    Rotation channels $c_1, c_2, c_3$ of a joint make the product $R_{c_1} R_{c_2} R_{c_3}$, applied to
    column vectors. Position channels of the first node are added to its offset; those of another joint stand
    in place of its offset along their axes, as programs write them that give all joints six channels.

    Args:
        skeleton: whose channels they are.
        frames: shape (..., channels), floating point, angles in degrees.

    Returns:
        Rotations of the joints, shape (..., joints, 3, 3), and offsets of the nodes, shape (..., nodes, 3),
        in the dtype of `frames`. A value that is not finite spoils its own joint alone.

    Raises:
        ValueError: if the last dimension is not the number of channels.
        TypeError: if `frames` is not floating point.
    """
    check_shape("frames", frames, sum(map(len, skeleton.channels)))
    absent = frames.shape[-1]
    angles = torch.cat((frames, torch.zeros_like(frames[..., :1])), -1)  # the last for axes without a channel
    sequences: dict[str, tuple[list[int], list[list[int]]]] = {}
    offsets = skeleton.offsets.to(frames).expand(*frames.shape[:-1], -1, -1).clone()
    column = 0
    for place, (node, channels) in enumerate(zip(skeleton.joints, skeleton.channels, strict=True)):
        turns = [(name[0], column + k) for k, name in enumerate(channels) if name.endswith("rotation")]
        turns += [(axis, absent) for axis in "XYZ" if axis not in dict(turns)]
        places, columns = sequences.setdefault("".join(axis for axis, _ in turns), ([], []))
        places.append(place)
        columns.append([number for _, number in turns])
        for k, name in enumerate(channels):
            if name.endswith("position"):
                moved = offsets[..., node, "XYZ".index(name[0])]
                moved.copy_(frames[..., column + k] + (moved if node == 0 else 0))
        column += len(channels)
    parts = [
        euler_to_matrix(torch.deg2rad(angles[..., columns]), sequence)
        for sequence, (_, columns) in sequences.items()
    ]
    order = torch.tensor([place for places, _ in sequences.values() for place in places]).argsort()
    return torch.cat(parts, -3)[..., order.to(frames.device), :, :], offsets


def forward_kinematics(skeleton: Skeleton, rotations: Tensor, offsets: Tensor | None = None) -> Tensor:
    r"""Positions of all nodes, from the rotation of each joint relative to its parent.

    With parent $p$ of node $k$, rotations $W_k = W_p R_k$ and positions $x_k = x_p + W_p o_k$; the first node
    has $W = R$ and $x = o$. Differentiable in rotations and offsets.

    Args:
        skeleton: the tree.
        rotations: of the joints, shape (..., joints, 3, 3). They need not be rotations: any matrices are
            multiplied as they are.
        offsets: of the nodes from their parents, shape (..., nodes, 3); those of the skeleton if None. That
            of the first node is its position.

    Returns:
        Positions of the nodes, shape (..., nodes, 3), in the unit of the offsets; float32 or float64, for a
        length of a meter in centimeters has but three digits in half precision.

    Raises:
        ValueError: if the last dimensions are not (joints, 3, 3) and (nodes, 3).
        TypeError: if either is not floating point.
    """
    check_shape("rotations", rotations, len(skeleton.joints), 3, 3)
    rotations = rotations.to(compute_dtype(rotations))
    if offsets is not None:
        check_shape("offsets", offsets, len(skeleton.names), 3)
    offsets = (skeleton.offsets if offsets is None else offsets).to(rotations)
    batch = torch.broadcast_shapes(rotations.shape[:-3], offsets.shape[:-2])
    world, above = rotations[..., :1, :, :], offsets[..., :1, :].expand(*batch, 1, 3)
    found = [above]
    levels, order = _levels(skeleton, rotations.device)
    for level in levels:
        turned = world.index_select(-3, level.parents)
        below = above.index_select(-2, level.parents) + _apply(turned, offsets.index_select(-2, level.nodes))
        found.append(below)
        above = below.index_select(-2, level.bearing)
        world = _multiply(
            turned.index_select(-3, level.bearing), rotations.index_select(-3, level.bearing_joints)
        )
    return torch.cat(found, -2).index_select(-2, order)


@dataclass(frozen=True)
class _Level:
    """The nodes of one depth.

    Attributes:
        nodes: their numbers.
        parents: of each, the place of its parent among the nodes of the depth above that bear others.
        bearing: places of those that bear others.
        bearing_joints: their places among the joints.
    """

    nodes: Tensor
    parents: Tensor
    bearing: Tensor
    bearing_joints: Tensor


@lru_cache(maxsize=64)
def _levels(skeleton: Skeleton, device: torch.device) -> tuple[list[_Level], Tensor]:
    """The depths below the first node, and the place of each node when they follow each other."""
    levels, order, above = [], [0], [0]
    while nodes := [node for node, parent in enumerate(skeleton.parents) if parent in above]:
        order += nodes
        parents = [above.index(skeleton.parents[node]) for node in nodes]
        above = [node for node in nodes if node in skeleton.parents]
        level = (nodes, parents, [nodes.index(node) for node in above], map(skeleton.joints.index, above))
        levels.append(_Level(*(torch.tensor(list(part), dtype=torch.int64, device=device) for part in level)))
    return levels, torch.tensor(order, device=device).argsort()


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Not `@`: under autocast, or with TF32 switched on, it would keep three digits."""
    return (a[..., None] * b[..., None, :, :]).sum(-2)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector[..., None, :]).sum(-1)
