r"""Pairs of clouds with the transform between them, target = R source + t: from folders, and made of objects.

A folder holds a pair, in files of any form that `svdrot.io` reads:

    source.*   or src.*     the cloud that is to be moved
    target.*   or ref.*     the cloud that stays
    transform.*, T_target_source.*, T_ref_src.* or gt.*   the matrix (4, 4), as txt, npy or json

where the clouds may also be arrays of these names in an npz. `read_log` and `read_information` read lists
of pairs as 3DMatch and the scenes of Choi et al. have them.

`object_pair` makes pairs as networks for objects are trained and tested with, by the protocols of DCP, PRNet
and RPM-Net on any surface. Every pair depends on the seed and its index alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svdrot.io import text
from svdrot.io.arrays import load_numpy
from svdrot.io.points import read_points
from svdrot.io.transforms import check_rotations, read_transform
from svdrot.representations import quaternion_to_matrix
from svdrot.transform import Transform

SOURCE = ("source", "src")
TARGET = ("target", "ref")
TRANSFORM = ("transform", "T_target_source", "T_ref_src", "gt")


@dataclass(frozen=True)
class Pair:
    """Two clouds, (N, 3) and (M, 3) in float64, and the rigid transform from source to target."""

    source: Tensor
    target: Tensor
    truth: Transform
    name: str


def find_pairs(root: Path) -> list[Path]:
    """The folders directly below `root` that hold a pair, by name, or `root` itself if it holds one.

    Raises:
        FileNotFoundError: if there is none; says what was looked for.
    """
    root = Path(root)
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    found = [path for path in [root, *folders] if _has_pair(path)]
    if not found:
        wanted = " and ".join(
            " or ".join(f"{name}.*" for name in names) for names in (SOURCE, TARGET, TRANSFORM)
        )
        raise FileNotFoundError(
            f"no pairs of clouds in {root.resolve()} or the folders directly below it: looked for {wanted}."
        )
    return found


def _has_pair(folder: Path) -> bool:
    held = _held(folder)
    return all(any(name in held for name in names) for names in (SOURCE, TARGET, TRANSFORM))


def _held(folder: Path) -> dict[str, Path]:
    """Paths by the names of files without their suffix, and of arrays in npz, as `read_points` takes them."""
    held: dict[str, Path] = {}
    for file in sorted(folder.glob("*.npz")):
        arrays = load_numpy(file, file.read_bytes())
        if isinstance(arrays, np.ndarray):
            raise ValueError(f"{file} is one array, not an npz: name it .npy.")
        held |= {name: Path(f"{file}:{name}") for name in arrays}
    files = [file for file in sorted(folder.glob("*")) if file.is_file() and file.suffix.lower() != ".npz"]
    return held | {file.stem: file for file in files}


def read_pair(folder: Path) -> Pair:
    """The pair that a folder holds. Its transform is rigid: the rotation the nearest one, the scale 1.

    Raises:
        FileNotFoundError: if the source, the target or the transform is missing; says what is there.
        ValueError: with the file, if it is broken.
    """
    folder = Path(folder)
    held = _held(folder)
    paths = []
    for names in (SOURCE, TARGET, TRANSFORM):
        name = next((name for name in names if name in held), None)
        if name is None:
            wanted = " or ".join(f"{name}.*" for name in names)
            raise FileNotFoundError(f"{folder.resolve()} has no {wanted}; it holds {sorted(held)}.")
        paths.append(held[name])
    source, target, transform = paths
    truth = read_transform(transform)
    truth = Transform(truth.rotation, truth.translation, torch.ones_like(truth.scale))
    return Pair(read_points(source), read_points(target), truth, folder.resolve().name)


# Lists of pairs.


@dataclass(frozen=True)
class FragmentPairs:
    """Pairs of fragments of a scene, in the order of the file.

    Attributes:
        pairs: numbers i < j of the fragments, shape (P, 2).
        fragments: how many the scene has.
        values: shape (P, 4, 4) or (P, 6, 6), float64.
    """

    pairs: Tensor
    fragments: int
    values: Tensor


def read_log(path: Path, *, tolerance: float = 1e-3) -> tuple[FragmentPairs, Transform]:
    """The pairs of a file gt.log, or of results, and their transforms (P,), from fragment j to fragment i.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line: not `i j fragments` and four rows of four finite numbers, not
            rigid within `tolerance`, cut, or nothing.
    """
    path = Path(path)
    found, lines = _blocks(path, 4)
    rotation, translation = found.values[:, :3, :3].contiguous(), found.values[:, :3, 3].contiguous()
    check_rotations(path, lines, rotation, tolerance)
    last = found.values.new_tensor([0, 0, 0, 1])
    for k in (found.values[:, 3] != last).any(-1).nonzero()[:1, 0].tolist():
        raise ValueError(f"{path}, line {lines[k]}: the last row of the matrix must be 0 0 0 1.")
    return found, Transform(rotation, translation, torch.ones_like(translation[:, 0]))


def read_information(path: Path) -> FragmentPairs:
    """The pairs of a file gt.info and the moments of their true correspondences, (P, 6, 6).

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: with the file and the line: not `i j fragments` and six rows of six finite numbers, cut,
            or nothing.
    """
    return _blocks(Path(path), 6)[0]


def _blocks(path: Path, size: int) -> tuple[FragmentPairs, list[int]]:
    """Blocks of a line `i j fragments` and `size` rows of as many numbers, and the lines they begin at."""
    lines = list(text.lines(path))
    if not lines:
        raise ValueError(f"{path} holds no pairs.")
    heads, values, begins, of = [], [], [], 0
    for first in range(0, len(lines), size + 1):
        block = lines[first : first + size + 1]
        head = text.numbers(path, *block[0], 3, "`i j fragments`")
        if len(block) <= size:
            raise ValueError(
                f"{path}, line {block[-1][0]}: the file ends within the {size} rows of the pair at line "
                f"{block[0][0]}."
            )
        if not all(number.is_integer() and abs(number) < 2**53 for number in head):
            raise ValueError(
                f"{path}, line {block[0][0]}: wanted integers `i j fragments`; got {block[0][1]!r}."
            )
        i, j, fragments = map(int, head)
        of = of or fragments
        if not (0 <= i < of and 0 <= j < of and fragments == of):
            wanted = (
                f"two of {of} fragments, as many as in the lines before" if heads else "two of the fragments"
            )
            raise ValueError(f"{path}, line {block[0][0]}: wanted {wanted}, from 0 on; got {block[0][1]!r}.")
        heads.append([i, j])
        values.append([text.numbers(path, *line, size, f"a row of {size}") for line in block[1:]])
        begins.append(block[0][0])
    return FragmentPairs(torch.tensor(heads), of, torch.tensor(values, dtype=torch.float64)), begins


# Pairs made of objects.


@dataclass(frozen=True)
class Protocol:
    """How two clouds are made of the points of one surface, in the unit ball.

    Attributes:
        points: of each cloud, before parts are cut away.
        angle: largest Euler angle about each axis, radians, of R = Rx Ry Rz with angles uniform from 0. None
            draws rotations uniformly.
        translation: largest, along each axis.
        noise: standard deviation along each axis, cut off at `clip`.
        shared_noise: the source with its noise is copied, so that the target has the same.
        resampled: each cloud is made of points of its own, of which some happen to be the same.
        half_space: share of the surface that is kept, on one side of a plane of its own for each cloud.
        nearest: number of points that are kept, those nearest to one far point at the same place in the
            frames of both; None keeps all.
    """

    points: int = 1024
    angle: float | None = math.pi / 4
    translation: float = 0.5
    noise: float = 0.0
    clip: float = 0.05
    shared_noise: bool = False
    resampled: bool = False
    half_space: float = 1.0
    nearest: int | None = None


# Wang and Solomon, ICCV 2019 (without noise it is that of RPM-Net, too) and NeurIPS 2019; Yew and Lee, CVPR
# 2020. PRNet is tested without noise as well. In RPM-Net it is the source that is moved by what is drawn.
PROTOCOLS = {
    "DCP": Protocol(),
    "DCP noisy": Protocol(noise=0.01, shared_noise=True),
    "PRNet": Protocol(noise=0.01, nearest=768),
    "RPM-Net noisy": Protocol(noise=0.01, resampled=True),
    "RPM-Net partial": Protocol(noise=0.01, resampled=True, half_space=0.7),
    "RPM-Net partial, any rotation": Protocol(noise=0.01, resampled=True, half_space=0.7, angle=None),
}


@dataclass(frozen=True)
class ObjectPair(Pair):
    """A pair of which more is known.

    Attributes:
        surface: all points without noise, shape (S, 3), in the frame of the source.
        matches: indices into source and target of the same point of the surface, shape (M, 2).
    """

    surface: Tensor
    matches: Tensor


def object_pairs(
    shapes: Sequence[Path | Tensor],
    protocol: Protocol,
    indices: Sequence[int],
    *,
    seed: int = 0,
    samples: int = 2048,
) -> list[ObjectPair]:
    """The pairs of some indices, which go round the shapes.

    Args:
        shapes: files of meshes, of whose surface points are drawn anew for each pair, or clouds (S, 3).
        protocol: one of `PROTOCOLS`, or another.
        indices: any, at least 0. Pair k is the same whichever others are asked for.
        seed: of all pairs.
        samples: points drawn of a mesh.
    """
    pairs = []
    for index in indices:
        shape = shapes[index % len(shapes)]
        if isinstance(shape, Tensor):
            cloud, name = shape, str(index % len(shapes))
        else:
            cloud = _surface(
                Path(shape), samples, int(np.random.SeedSequence([seed, index, 1]).generate_state(1)[0])
            )
            name = Path(shape).stem
        pairs.append(object_pair(cloud, protocol, index=index, seed=seed, name=f"{name} {index}"))
    return pairs


@lru_cache(maxsize=512)  # one protocol after the other is made of the same surfaces, 48 KB each
def _surface(path: Path, samples: int, seed: int) -> Tensor:
    return unit_ball(read_points(path, samples=samples, seed=seed))


def unit_ball(points: Tensor) -> Tensor:
    """Points moved and scaled so that their mean is 0 and the furthest is at distance 1, as in ModelNet40."""
    centered = points - points.mean(-2, keepdim=True)
    return centered / torch.linalg.vector_norm(centered, dim=-1).amax(-1)[..., None, None]


def object_pair(
    surface: Tensor, protocol: Protocol, *, index: int, seed: int = 0, name: str = ""
) -> ObjectPair:
    """One pair of the points of a surface.

    Args:
        surface: shape (S, 3), S at least the `points` of the protocol, of which they are the first or, where
            it resamples, any.
        protocol: one of `PROTOCOLS`, or another.
        index: of the pair; with `seed` it decides all that is drawn.
        seed: of all pairs.
        name: of the pair.

    Raises:
        ValueError: if the surface has too few points, or any that is not finite.
    """
    clean = surface.detach().double().cpu().numpy()
    kept = math.ceil(protocol.half_space * protocol.points)
    if clean.ndim != 2 or clean.shape[1] != 3 or len(clean) < protocol.points or not np.isfinite(clean).all():
        raise ValueError(
            f"`surface` must be at least {protocol.points} finite points (S, 3); got {tuple(surface.shape)}, "
            f"{int(np.isfinite(clean).all(-1).sum())} rows of them finite."
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    rotation, translation = _rotation(protocol.angle, rng), rng.uniform(-1, 1, 3) * protocol.translation
    if protocol.resampled:
        chosen = [
            rng.choice(_beyond_a_plane(clean, protocol.half_space, rng), kept, replace=False)
            for _ in range(2)
        ]
    else:
        chosen = [rng.permutation(protocol.points) for _ in range(2)]
    jitter = np.clip(rng.normal(0, 1, (2, len(clean), 3)) * protocol.noise, -protocol.clip, protocol.clip)
    noise = (jitter[0], jitter[0] if protocol.shared_noise else jitter[1] @ rotation)
    clouds = [
        clean[chosen[0]] + noise[0][chosen[0]],
        (clean[chosen[1]] + noise[1][chosen[1]]) @ rotation.T + translation,
    ]
    if protocol.nearest is not None:
        far = rng.random(3) + 500 * rng.choice([-1, 1])
        for k in range(2):
            order = np.argsort(np.linalg.norm(clouds[k] - far, axis=1), kind="stable")[: protocol.nearest]
            clouds[k], chosen[k] = clouds[k][order], chosen[k][order]
    _, first, second = np.intersect1d(chosen[0], chosen[1], return_indices=True)
    source, target, whole, matches = map(torch.from_numpy, (*clouds, clean, np.stack((first, second), 1)))
    truth = Transform(
        torch.from_numpy(rotation), torch.from_numpy(translation), torch.ones((), dtype=torch.float64)
    )
    return ObjectPair(source, target, truth, name, whole, matches)


def _rotation(angle: float | None, rng: np.random.Generator) -> NDArray:
    if angle is None:
        return quaternion_to_matrix(torch.from_numpy(rng.normal(size=4))).numpy()
    (a, b, c), (d, e, f) = np.cos(angles := rng.uniform(0, angle, 3)), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
    about_y = np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
    about_z = np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _beyond_a_plane(points: NDArray, share: float, rng: np.random.Generator) -> NDArray:
    """Indices of the `share` of the points that is furthest in a random direction."""
    height = points @ rng.normal(size=3)
    return np.argsort(height, kind="stable")[len(points) - math.ceil(share * len(points)) :]
