"""Pose graphs as text: g2o, in the plane and in space, and TORO's records of space.

    VERTEX_SE3:QUAT id  x y z qx qy qz qw                 EDGE_SE3:QUAT i j  x y z qx qy qz qw  information
    VERTEX_SE2      id  x y theta                         EDGE_SE2      i j  x y theta          information
    VERTEX3         id  x y z roll pitch yaw              EDGE3         i j  x y z roll pitch yaw  information

A pose takes coordinates in the frame of its vertex to those of the world, and an edge is measured as X_i^-1
X_j: it takes coordinates in frame j to frame i. Angles are in radians; roll, pitch and yaw turn about the
fixed axes x, y and z in this order, R_z(yaw) R_y(pitch) R_x(roll): so read, the loops of the noise-free
`sphere2500_groundtruth.txt` close to 2.5e-4 degrees, in the opposite order to 0.7. The information is a
symmetric matrix of the size of the pose's tangent, its upper triangle by rows, translation first; a pose of
the plane is put into z = 0, with zeros where it says nothing. Numbers of the information are kept as they
are; g2o means by its rotational part that of (qx, qy, qz), half the angle.

Empty lines and what follows a `#` are skipped, and so are the records of g2o that say nothing about poses of
vertices and about pairs of them (`SKIPPED`). Any other record is an error, since a misspelt edge that is
skipped is an edge lost without a word.
"""

import gzip
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot.io.files import replacing
from svdrot.representations import euler_to_matrix, matrix_to_quaternion, quaternion_to_matrix
from svdrot.transform import Transform

SKIPPED = frozenset(
    "FIX PARAMS_SE2OFFSET PARAMS_SE3OFFSET PARAMS_CAMERACALIB PARAMS_CAMERAPARAMETERS PARAMS_STEREOCAMERA "
    "VERTEX_XY VERTEX_TRACKXYZ VERTEX_LINE2D VERTEX_PLANE VERTEX_CAM "
    "EDGE_SE2_XY EDGE_BEARING_SE2_XY EDGE_SE2_LINE2D EDGE_SE3_TRACKXYZ EDGE_POINTXYZ EDGE_PROJECT_DEPTH "
    "EDGE_PROJECT_DISPARITY EDGE_PROJECT_P2MC EDGE_PRIOR_SE2 EDGE_PRIOR_SE2_XY EDGE_SE2_PRIOR "
    "EDGE_SE3_PRIOR EDGE_SE3_PRIORXYZ ROBOTLASER1 RAWLASER1 LASER_SENSOR ODOM".split()
)
QUATERNION_SLACK = 0.01  # files have three digits at least; a quaternion less near to unit length is damaged


@dataclass(frozen=True)
class PoseGraph:
    """Hold vertices and measured relative poses, in float64.

    Attributes:
        ids: of the vertices in the file, (M,), in its order; in increasing order if only edges name them.
        poses: of the vertices, batch (M,), as the file estimates them; None if it has only edges.
        edges: indices (i, j) into `ids`, not ids, shape (E, 2).
        relative: X_i^-1 X_j, batch (E,).
        information: of x, y, z and the three angles, shape (E, 6, 6).
        skipped: how many records of which kind were not read.

    Example:
        >>> import torch, svdrot
        >>> step = svdrot.Transform(torch.eye(3)[None], torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1))
        >>> edges = torch.tensor([[0, 1]])
        >>> graph = svdrot.io.PoseGraph(torch.tensor([10, 20]), None, edges, step, torch.eye(6)[None])
        >>> found = svdrot.averaging.synchronize_rotations(graph.edges, graph.relative.rotation)
        >>> found.rotations.shape
        torch.Size([2, 3, 3])
    """

    ids: Tensor
    poses: Transform | None
    edges: Tensor
    relative: Transform
    information: Tensor
    skipped: dict[str, int] = field(default_factory=dict)


def _from_quaternions(numbers: NDArray[Any]) -> tuple[NDArray[Any], Tensor]:
    return numbers[:, :3], quaternion_to_matrix(torch.from_numpy(numbers[:, [6, 3, 4, 5]]))


def _from_euler(numbers: NDArray[Any]) -> tuple[NDArray[Any], Tensor]:
    return numbers[:, :3], euler_to_matrix(torch.from_numpy(numbers[:, 3:6].copy()), "xyz")


def _from_plane(numbers: NDArray[Any]) -> tuple[NDArray[Any], Tensor]:
    x, y, theta = numbers[:, :3].T
    zero = np.zeros_like(x)
    return np.stack((x, y, zero), 1), euler_to_matrix(
        torch.from_numpy(np.stack((zero, zero, theta), 1)), "xyz"
    )


@dataclass(frozen=True)
class _Kind:
    """Describe the numbers of a record."""

    wanted: str
    indices: int  # ids before the numbers
    pose: int  # numbers of the pose
    decode: Callable[[NDArray[Any]], tuple[NDArray[Any], Tensor]]
    axes: tuple[int, ...] = ()  # rows of the 6 x 6 information that the record has

    numbers: int = field(init=False)
    words: int = field(init=False)  # of the whole line

    def __post_init__(self) -> None:
        n = len(self.axes)
        object.__setattr__(self, "numbers", self.pose + n * (n + 1) // 2)
        object.__setattr__(self, "words", 1 + self.indices + self.numbers)


_SPACE, _PLANE = (0, 1, 2, 3, 4, 5), (0, 1, 5)
KINDS = {
    "VERTEX_SE3:QUAT": _Kind("id x y z qx qy qz qw", 1, 7, _from_quaternions),
    "EDGE_SE3:QUAT": _Kind("i j x y z qx qy qz qw and 21 numbers", 2, 7, _from_quaternions, _SPACE),
    "VERTEX_SE2": _Kind("id x y theta", 1, 3, _from_plane),
    "EDGE_SE2": _Kind("i j x y theta and 6 numbers", 2, 3, _from_plane, _PLANE),
    "VERTEX3": _Kind("id x y z roll pitch yaw", 1, 6, _from_euler),
    "EDGE3": _Kind("i j x y z roll pitch yaw and 21 numbers", 2, 6, _from_euler, _SPACE),
}


@dataclass
class _Records:
    """Collect the lines of one kind: where they are, their ids, their numbers."""

    lines: array = field(default_factory=lambda: array("q"))
    ids: array = field(default_factory=lambda: array("q"))
    numbers: array = field(default_factory=lambda: array("d"))


def read_pose_graph(path: str | Path) -> PoseGraph:
    r"""Read the graph of a text file, g2o or TORO, or of one that gzip has packed (`.gz`).

    Args:
        path: of the file.

    Returns:
        `PoseGraph`, float64, lengths in the units of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: with the file and the line, if it is not text, a record is not known, has not its count
            of numbers or one that is not finite, a quaternion has not unit length to 1 %, a vertex comes
            twice, an edge joins a vertex to itself or names one that is not there (in a file that has
            vertices), or nothing was read.

    Example:
        >>> import pathlib, torch, svdrot
        >>> _ = pathlib.Path("square.g2o").write_text(
        ...     "EDGE_SE2 10 20  1 0 1.5708  1 0 0 1 0 1\nEDGE_SE2 20 30  1 0 1.5708  1 0 0 1 0 1\n"
        ... )
        >>> graph = svdrot.io.read_pose_graph("square.g2o")
        >>> graph.ids.tolist(), graph.edges.tolist(), graph.poses
        ([10, 20, 30], [[0, 1], [1, 2]], None)
    """
    path = Path(path)
    records = {name: _Records() for name in KINDS}
    skipped = Counter()
    for number, line in enumerate(_lines(path), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        kind = KINDS.get(words[0])
        if kind is None:
            if words[0] not in SKIPPED:
                raise ValueError(
                    f"{path}, line {number}: {_shown(words[0])} is no record of a pose graph; those are "
                    f"{', '.join(KINDS)}."
                )
            skipped[words[0]] += 1
            continue
        found = records[words[0]]
        try:
            if len(words) != kind.words or "_" in line.partition(words[0])[2]:  # float("1_0") is 10
                raise ValueError
            found.lines.append(number)
            found.ids.extend(map(int, words[1 : 1 + kind.indices]))
            found.numbers.extend(map(float, words[1 + kind.indices :]))
            if not all(map(math.isfinite, found.numbers[-kind.numbers :])):
                raise ValueError
        except (ValueError, OverflowError):
            raise ValueError(
                f"{path}, line {number}: wanted `{words[0]} {kind.wanted}`, all finite; got {_shown(line)}."
            ) from None
    if not any(found.lines for found in records.values()):
        raise ValueError(f"{path} holds no vertex and no edge.")
    return _assemble(path, records, dict(skipped))


def _lines(path: Path) -> list[str]:
    """Read the lines of a text file, packed or not."""
    packed = path.read_bytes()
    try:
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked by gzip: {error}.") from error
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not text (byte {content[error.start]:#04x}).") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


@dataclass(frozen=True)
class _Table:
    """Hold vertices, or edges, of every kind in the order of the file."""

    lines: NDArray[Any]
    ids: NDArray[Any]
    poses: Transform
    information: Tensor


def _assemble(path: Path, records: dict[str, _Records], skipped: dict[str, int]) -> PoseGraph:
    """Check the ids of vertices and edges against each other, and make the graph."""
    vertices, edges = _table(path, records, 1), _table(path, records, 2)
    for line, (i, j) in zip(edges.lines, edges.ids, strict=True):
        if i == j:
            raise ValueError(f"{path}, line {line}: an edge from {i} to itself.")
    ids = vertices.ids[:, 0] if len(vertices.ids) else np.unique(edges.ids)
    # `known` are the ids in ascending order, `place` where each is in the file, `found` where the ends of
    # edges are in `known`: the next place above, with another id, if theirs is missing.
    known, place = np.unique(ids, return_index=True)
    twice = np.setdiff1d(np.arange(len(ids)), place)
    if len(twice):
        raise ValueError(f"{path}, line {vertices.lines[twice[0]]}: a second vertex {ids[twice[0]]}.")
    found = np.minimum(np.searchsorted(known, edges.ids), len(known) - 1)
    missing = np.argwhere(known[found] != edges.ids)
    if len(missing):
        edge, end = missing[0]
        raise ValueError(f"{path}, line {edges.lines[edge]}: there is no vertex {edges.ids[edge, end]}.")
    return PoseGraph(
        torch.from_numpy(ids),
        vertices.poses if len(vertices.ids) else None,
        torch.from_numpy(place[found]),
        edges.poses,
        edges.information,
        skipped,
    )


def _table(path: Path, records: dict[str, _Records], indices: int) -> _Table:
    """Gather the records with that many ids, of every kind, in the order of the file."""
    lines, ids, translations, rotations, informations = [], [], [], [], []
    for name, kind in KINDS.items():
        found = records[name]
        if kind.indices != indices:
            continue
        numbers = np.array(found.numbers).reshape(-1, kind.numbers)
        _check_quaternions(path, kind, found, numbers)
        translation, rotation = kind.decode(numbers)
        # The upper triangle that the record has, put at the rows and columns of its axes among the six.
        rows, columns = np.triu_indices(len(kind.axes))
        information = np.zeros((len(numbers), 6, 6))
        rows, columns = np.array(kind.axes, int)[rows], np.array(kind.axes, int)[columns]
        information[:, rows, columns] = information[:, columns, rows] = numbers[:, kind.pose :]
        lines.append(np.array(found.lines))
        ids.append(np.array(found.ids).reshape(-1, indices))
        translations.append(torch.from_numpy(translation.copy()))
        rotations.append(rotation)
        informations.append(torch.from_numpy(information))
    order = np.argsort(np.concatenate(lines))
    rotation = torch.cat(rotations)[order]
    poses = Transform(rotation, torch.cat(translations)[order], torch.ones_like(rotation[:, 0, 0]))
    return _Table(
        np.concatenate(lines)[order], np.concatenate(ids)[order], poses, torch.cat(informations)[order]
    )


def _check_quaternions(path: Path, kind: _Kind, found: _Records, numbers: NDArray[Any]) -> None:
    if kind.decode is not _from_quaternions:
        return
    length = np.linalg.norm(numbers[:, 3:7], axis=1)
    for row in np.flatnonzero(np.abs(length - 1) > QUATERNION_SLACK)[:1]:
        raise ValueError(
            f"{path}, line {found.lines[row]}: the quaternion has length {length[row]:.6g}, not 1."
        )


def write_pose_graph(path: str | Path, graph: PoseGraph) -> None:
    """Write g2o text, packed if the name ends in `.gz`, in full precision: never half a file.

    Args:
        path: of the file, which is replaced.
        graph: of rigid transforms. Vertices without poses are written by their edges alone.

    Raises:
        ValueError: if anything in the graph is not finite, a scale is not 1, or a vertex without pose has no
            edge: `read_pose_graph` could not find it.

    Example:
        >>> import torch, svdrot
        >>> step = svdrot.Transform(torch.eye(3)[None], torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1))
        >>> edges = torch.tensor([[0, 1]])
        >>> graph = svdrot.io.PoseGraph(torch.tensor([10, 20]), None, edges, step, torch.eye(6)[None])
        >>> svdrot.io.write_pose_graph("graph.g2o.gz", graph)
        >>> svdrot.io.read_pose_graph("graph.g2o.gz").relative.translation
        tensor([[1., 2., 3.]], dtype=torch.float64)
    """
    path = Path(path)
    transforms = [graph.relative, *([] if graph.poses is None else [graph.poses])]
    tensors = [graph.information, *(x for t in transforms for x in (t.rotation, t.translation))]
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise ValueError("`graph` must hold finite numbers only.")
    if not all((t.scale == 1).all() for t in transforms):
        raise ValueError("`graph` must hold rigid transforms; got a scale that is not 1.")
    if graph.poses is None and len(graph.edges.unique()) < len(graph.ids):
        raise ValueError("`graph` has vertices with neither pose nor edge, which a file cannot hold.")
    ids = graph.ids.tolist()
    lines = []
    if graph.poses is not None:
        for name, numbers in zip(ids, _g2o_numbers(graph.poses).tolist(), strict=True):
            lines.append(f"VERTEX_SE3:QUAT {name} {' '.join(map(repr, numbers))}")
    rows, columns = np.triu_indices(6)
    numbers = torch.cat((_g2o_numbers(graph.relative), graph.information.double()[:, rows, columns]), 1)
    for (i, j), row in zip(graph.edges.tolist(), numbers.tolist(), strict=True):
        lines.append(f"EDGE_SE3:QUAT {ids[i]} {ids[j]} {' '.join(map(repr, row))}")
    content = "".join(f"{line}\n" for line in lines).encode()
    with replacing(path) as new:
        new.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _g2o_numbers(poses: Transform) -> Tensor:
    """Return x y z qx qy qz qw, (..., 7), float64."""
    quaternion = matrix_to_quaternion(poses.rotation.double())
    return torch.cat((poses.translation.double(), quaternion[:, [1, 2, 3, 0]]), 1)
