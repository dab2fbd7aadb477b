"""Makers of arguments: functions of a `Draw`, and functions that give such functions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svdrot import representations, symmetries
from svdrot.conventions import CONVENTIONS
from svdrot.registration import Transform
from svdrot.representations import TABLE as CONVERTED

from .arrays import clouds, matrices, rotations, unit, vectors
from .draws import Draw


def rotation(draw: Draw) -> Tensor:
    lead = draw.lead()
    array = rotations(draw, *lead)
    if draw.chance(0.1):
        array = array + 10.0 ** -draw.random.randrange(2, 8) * draw.normal(*array.shape)
    if draw.chance(0.07):
        array, draw.sound = matrices(draw, 3, 3, *lead), False
    return draw.tensor(array, 2, scaled=not draw.sound)


def rotation_list(draw: Draw) -> Tensor:
    return draw.tensor(rotations(draw, *draw.lead(), draw.count), 3, scaled=False)


def knots(draw: Draw) -> Tensor:
    """Anywhere, or a path of turns by half a radian or so."""
    draw.memo["knots"] = n = max(2, draw.count)
    lead = draw.lead()
    if draw.chance(0.5):
        return draw.tensor(rotations(draw, *lead, n), 3, scaled=False)
    turns = _small_turns(draw, *lead, n)
    for k in range(1, n):
        turns[..., k, :, :] = turns[..., k - 1, :, :] @ turns[..., k, :, :]
    return draw.tensor(turns, 3, scaled=False)


def _small_turns(draw: Draw, *shape: int) -> np.ndarray:
    """By Cayley's map."""
    x, y, z = np.moveaxis(0.15 * draw.normal(*shape, 3), -1, 0)
    zero, one = np.zeros_like(x), np.eye(3)
    rows = (zero, -z, y), (z, zero, -x), (-y, x, zero)
    skew = np.stack([np.stack(row, -1) for row in rows], -2)
    return np.linalg.solve(one - skew, one + skew)


def times(draw: Draw) -> Tensor | None:
    """Of the knots: none, in any steps, or in equal ones."""
    if draw.chance(0.3):
        return None
    n = draw.memo["knots"]
    steps = draw.numpy.random(n) + 0.1 if draw.chance(0.7) else np.ones(n)
    return draw.tensor(np.cumsum(steps), 1, scaled=False)


def instants(draw: Draw) -> Tensor:
    """Anywhere, or in the middle of a step of many equal ones."""
    anywhere = draw.chance(0.5)
    return draw.tensor(draw.normal(draw.count) if anywhere else 2.3 + 0.4 * draw.numpy.random(draw.count), 1)


def matrix(m: int | None = None, n: int | None = None, same: bool = False) -> Callable[[Draw], Tensor]:
    """Any matrices; of random sides where these are None, square where `n` is 0."""

    def make(draw: Draw) -> Tensor:
        rows = m or draw.pick(1, 2, 3, 3, 3, 4, 5, 9)
        columns = rows if n == 0 else n or draw.pick(1, 2, 3, 3, 3, 4, 5, 9)
        array = matrices(draw, rows, columns, *(draw.batch if same else draw.lead()))
        draw.memo["matrix"] = array
        return draw.tensor(array, 2)

    return make


def factor(draw: Draw) -> Tensor:
    array = draw.memo["matrix"]
    k = min(array.shape[-2:])
    x = array + 1e-9 * draw.normal(*array.shape)
    u, _, vh = np.linalg.svd(x, full_matrices=False) if x.size else (x[..., :k], 0, x[..., :k, :])
    draw.sound = False  # exact for matrices of full rank
    return draw.tensor(u @ vh + 0.01 * draw.normal(*array.shape), 2, scaled=False)


def vector(n: int) -> Callable[[Draw], Tensor]:
    return lambda draw: draw.tensor(vectors(draw, n, *draw.lead()), 1)


def converted(draw: Draw) -> Tensor:
    """Numbers of a representation: of the one that the name of the function begins with, or any."""
    kind = draw.memo.get("from") or draw.pick(*CONVERTED)
    draw.memo["from"] = kind
    shape = CONVERTED[kind].shape
    if kind == "matrix":
        return rotation(draw)
    return draw.tensor(vectors(draw, *shape, *draw.lead()), len(shape))


def conventional(there: bool) -> Callable[[Draw], Tensor]:
    def make(draw: Draw) -> Tensor:
        draw.memo["library"] = library = draw.pick(*CONVENTIONS)
        draw.memo["from"] = kind = draw.pick(*CONVENTIONS[library])
        if kind == "matrix":
            return rotation(draw)
        shape = CONVENTIONS[library][kind].shape if there else CONVERTED[kind].shape
        return draw.tensor(draw.normal(*draw.lead(), *shape), len(shape))

    return make


def points(draw: Draw) -> Any:
    """(..., N, 3), as one tensor."""
    return draw.tensor(clouds(draw, *draw.lead(), draw.count, 3), 2)


def image_points(draw: Draw) -> Tensor:
    return draw.tensor(clouds(draw, *draw.lead(), draw.count, 2), 2)


def view(draw: Draw) -> Tensor:
    """One of two views of a scene, (..., N, 2), with noise.

    Fewer than nine points do not determine a matrix, and rounding chooses one of many.
    """
    draw.definite &= draw.count > 8
    draw.sound &= draw.count > 8
    if "scene" not in draw.memo:
        draw.memo["scene"] = scene = draw.normal(draw.count, 3) + np.array([0.0, 0.0, 5.0])
        points = scene
    else:
        turn = np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])
        points = draw.memo["scene"] @ turn.T + np.array([3.0, 0.5, 1.0])
    image = points[:, :2] / points[:, 2:]
    return draw.tensor(image + 0.01 * draw.normal(*draw.lead(), *image.shape), 2)


def essential(draw: Draw) -> Tensor:
    """[t] R, or now and then any matrix."""
    lead = draw.lead()
    if draw.chance(0.2):
        return draw.tensor(matrices(draw, 3, 3, *lead), 2)
    columns = np.swapaxes(rotations(draw, *lead), -1, -2)
    return draw.tensor(np.swapaxes(np.cross(draw.normal(*lead, 1, 3), columns), -1, -2), 2)


def pairs_of_points(draw: Draw) -> Any:
    """(..., N, d), or a list of clouds."""
    dim = draw.memo.setdefault("dim", draw.dim)
    lengths = draw.memo.setdefault("lengths", [draw.random.randrange(5) for _ in range(2)])
    if draw.memo.setdefault("list", draw.chance(0.15)):
        return [draw.tensor(clouds(draw, n, dim), 2) for n in lengths]
    return draw.tensor(clouds(draw, *draw.lead(), draw.count, dim), 2)


def per_point(make: Callable[[Draw, tuple[int, ...]], Tensor]) -> Callable[[Draw], Any]:
    """None, (..., N), or a list where the points are one."""

    def made(draw: Draw) -> Any:
        if draw.chance(0.5):
            return None
        if draw.memo.get("list"):
            return [make(draw, (n,)) for n in draw.memo["lengths"]]
        return make(draw, (*draw.lead(), draw.memo.get("rows", draw.count)))

    return made


def weights(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    array = draw.numpy.random(shape)
    array = np.where(draw.numpy.random(shape) < 0.2, 0, array)
    return draw.tensor(array, 1, scaled=False)


def mask(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    return draw.kept(torch.from_numpy(np.array(draw.numpy.random(shape) < 0.7)), shape[:-1])


def pose(draw: Draw) -> Any:
    """A transform, or for losses a pair."""
    lead = draw.lead()
    turn = draw.tensor(rotations(draw, *lead), 2, scaled=False)
    move = draw.tensor(draw.normal(*lead, 3), 1)
    if draw.memo.get("pairs") and draw.chance(0.5):
        return turn, move
    size = np.ones(lead) if draw.chance(0.5) else draw.numpy.random(lead) + 0.1
    return Transform(turn, move, draw.tensor(size, 0, scaled=False))


def rigid(draw: Draw) -> Transform:
    """Where the scale is not 1 there is no logarithm."""
    found = pose(draw)
    return Transform(found.rotation, found.translation, torch.ones_like(found.scale))


def loss_pose(draw: Draw) -> Any:
    draw.memo["pairs"] = True
    return pose(draw)


def trajectory(draw: Draw) -> Transform:
    lead = () if draw.memo.get("one") else draw.batch
    shape = (*lead, draw.count)
    turn = draw.tensor(rotations(draw, *shape), 2, scaled=False)
    return Transform(
        turn, draw.tensor(clouds(draw, *shape, 3), 1), draw.tensor(np.ones(shape), 0, scaled=False)
    )


def pose_knots(draw: Draw) -> Transform:
    """Poses along a path, as many as there are rotations in `knots`."""
    turn = knots(draw)
    move = draw.tensor(draw.normal(*turn.shape[:-1]), 2)
    return Transform(turn, move, torch.ones_like(turn[..., 0, 0]))


def one_trajectory(draw: Draw) -> Transform:
    draw.memo["one"] = True
    return trajectory(draw)


def pose_pairs(draw: Draw) -> Tensor:
    size = draw.random.randrange(4) if draw.count else 0
    return draw.kept(torch.from_numpy(draw.numpy.integers(0, max(1, draw.count), (size, 2))), ())


def fragments(draw: Draw) -> Tensor:
    return draw.kept(torch.from_numpy(np.sort(draw.numpy.integers(0, 9, (draw.count, 2)))), ())


def edges(draw: Draw) -> Tensor:
    draw.memo["edges"] = size = draw.random.randrange(9)
    i = draw.numpy.integers(0, 5, size)
    return draw.kept(torch.from_numpy(np.stack((i, (i + draw.numpy.integers(1, 5, size)) % 5), 1)), ())


def positive(draw: Draw) -> float:
    return draw.pick(0.05, 0.3, 1.0, 2.5)


def number(*values: Any) -> Callable[[Draw], Any]:
    return lambda draw: draw.pick(*values)


def scaled_tensor(draw: Draw) -> Tensor:
    return draw.tensor(draw.numpy.random(draw.lead()) + 0.1, 0, scaled=False)


def larger_scale(draw: Draw) -> Tensor:
    return draw.tensor(draw.numpy.random(draw.lead()) + 1.2, 0, scaled=False)


def row(n: int | None = None) -> Callable[[Draw], Tensor]:
    return lambda draw: draw.tensor(draw.normal(draw.count if n is None else n), 1)


def per_item(draw: Draw) -> Tensor:
    return draw.tensor(np.abs(draw.normal(*draw.lead(), draw.count)), 1)


def stamps(draw: Draw) -> Tensor:
    value = torch.from_numpy(1e9 + np.round(draw.normal(draw.random.randrange(8)), 2))
    return draw.kept(value, ())


def one_cloud(draw: Draw) -> Tensor:
    return draw.tensor(clouds(draw, draw.pick(0, 1, 3, 4, 9, 40), 3), 2)


def a_few_clouds(draw: Draw) -> list[Tensor]:
    count = draw.memo.setdefault("clouds", draw.pick(0, 1, 3))
    return [one_cloud(draw) for _ in range(count)]


def features(draw: Draw) -> Tensor:
    return draw.tensor(draw.normal(draw.count, 5), 2)


def group(draw: Draw) -> Tensor:
    made = draw.pick(symmetries.cyclic(1), symmetries.cyclic(3), symmetries.dihedral(2))
    return draw.kept(made.to(draw.dtype), ())


def shape(draw: Draw) -> tuple[int, ...]:
    draw.memo["one shape"] = draw.batch
    return draw.batch


def generator(draw: Draw) -> torch.Generator | None:
    return torch.Generator().manual_seed(draw.seed) if draw.chance(0.5) else None


def sequence(draw: Draw) -> str:
    return draw.pick(*representations.SEQUENCES)


def surface(draw: Draw) -> Tensor | None:
    return None if draw.chance(0.5) else points(draw)


def icp_scales(draw: Draw) -> Any:
    return [(0.5, 1.0, 2), (None, 0.5, 2)] if draw.memo.get("max_distance", 0) is None else None


def icp_distance(draw: Draw) -> float | None:
    draw.memo["max_distance"] = distance = draw.pick(0.5, 2.0, None)
    return distance


def icp_points(draw: Draw) -> Any:
    draw.memo.setdefault("dim", 3)
    draw.memo.setdefault("lengths", [draw.random.randrange(12) for _ in range(2)])
    return pairs_of_points(draw)


def icp_extra(*trailing: int) -> Callable[[Draw], Any]:
    def make(draw: Draw) -> Any:
        if draw.chance(0.8):
            return None
        leads = [(n,) for n in draw.memo["lengths"]] if draw.memo["list"] else [(*draw.lead(), draw.count)]
        arrays = [unit(draw.normal(*lead, 3)) for lead in leads]
        if len(trailing) == 2:
            arrays = [x[..., None] * x[..., None, :] + 0.1 * np.eye(3) for x in arrays]
        made = [draw.tensor(x, 1 + len(trailing), grad=False, scaled=False) for x in arrays]
        return made if draw.memo["list"] else made[0]

    return make


def scipy_rotation(draw: Draw) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.random(draw.count, random_state=draw.seed)


def unit_quaternion(draw: Draw) -> Tensor:
    return draw.tensor(unit(draw.normal(*draw.lead(), 4)), 1, scaled=False)


def homogeneous(draw: Draw) -> Tensor:
    draw.sound = False  # the root of a determinant, that of a similarity is not 0
    return matrix(4, 4)(draw)


def axis(draw: Draw) -> Any:
    return draw.pick((0.0, 0.0, 1.0), (1.0, 2.0, 3.0), draw.tensor(unit(draw.normal(3)), 1, scaled=False))


def perpendicular_axes(draw: Draw) -> Any:
    """Three axes, the second perpendicular to both others: numbers, or a tensor."""
    if not draw.chance(0.5):
        return draw.pick(
            ((1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.6, 0.0, 0.8)), tuple(map(tuple, np.eye(3).tolist()))
        )
    lead = draw.lead()
    first, second, other = np.moveaxis(rotations(draw, *lead), -2, 0)
    third = first * draw.normal(*lead, 1) + other
    return draw.tensor(np.stack((first, 3 * second, third), -2), 2, scaled=False)


def reflection(draw: Draw) -> bool:
    draw.memo["reflection"] = draw.pick(False, True)
    return draw.memo["reflection"]


def motion(draw: Draw) -> str:
    """What an alignment may do: of points in space, and without reflections, less than all."""
    limited = draw.memo.get("dim", 3) == 3 and not draw.memo.get("reflection")
    draw.memo["motion"] = found = draw.pick("free", "free", "yaw", "planar") if limited else "free"
    return found


def motion_axis(draw: Draw) -> Tensor | None:
    if draw.memo["motion"] == "free" or draw.chance(0.3):
        return None
    lead = draw.pick((), (2,)) if draw.memo.get("list") else draw.lead()
    return draw.tensor(draw.normal(*lead, 3), 1)


def sized(draw: Draw) -> bool:
    """Whether `register` looks for a size: then it takes any motion."""
    draw.memo["reflection"] = found = draw.pick(False, True)
    return found


def one_axis(draw: Draw) -> Tensor | None:
    return None if draw.memo["motion"] == "free" else draw.tensor(draw.normal(3) + 0.1, 1)


def covariance_matrix(draw: Draw) -> Tensor:
    x = draw.normal(*draw.lead(), 6, 6)
    return draw.tensor(x @ np.swapaxes(x, -1, -2) + np.eye(6), 2, scaled=False)


def relative(draw: Draw) -> Tensor:
    return draw.tensor(rotations(draw, draw.memo["edges"]), 2, grad=False, scaled=False)


def edge_weights(draw: Draw) -> Tensor | None:
    return None if draw.chance(0.5) else weights(draw, (draw.memo["edges"],))
