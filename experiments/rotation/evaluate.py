"""How well does a checkpoint of `landmark_alignment` align given clouds, turned by given rotations?

Every cloud is centered and scaled as in training, and turned by every rotation; all its points are, unless
`points` says how many are drawn, the same ones in every run and none of them twice. The network, which sees
cloud and copy, estimates the rotation. Printed are the errors of one estimate and of the best of several
starts of estimates of what the earlier ones have left, the shares of errors below 5 and 10 degrees, and the
same of the principal axes of cloud and copy, which need no network, and are exact for the same points.

    python -m experiments.rotation.evaluate --clouds FOLDER --rotations FILE
    python -m experiments.rotation.evaluate --clouds FOLDER --rotations FILE --points 64 --noise 0.005

Clouds are the files of the folder that `svdrot.io` reads: pts, ply, pcd, obj, off, stl, npy,
npz, xyz, txt, csv, bin, also in folders below; of meshes the vertices. Hidden ones, that of the rotations,
and texts that hold no cloud are left out, and so are points that are not finite. Rotations are a npy, npz,
pt, txt or csv file: matrices (K, 3, 3), or rows of 9, or three rows of 3 each (row by row, unless the first
line names them, as r00 r10 ...), or rows of 4 (a quaternion, w x y z unless the first line says otherwise).
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

import svdrot
from experiments import shared
from experiments.rotation._disturbances import FAR, disturbed
from experiments.rotation._landmarks import normalized
from experiments.rotation._principal_axes import EXACT
from experiments.rotation.landmark_alignment import (
    LIMITS,
    Examined,
    errors,
    estimators,
    halves,
    restore,
)
from experiments.shared.settings import Amount, NotNegative, Points, Seed, Settings, Threads
from experiments.shared.statistics import metrics
from svdrot.io.points import FORMATS, read_points
from svdrot.io.text import is_number, rows_of, table


@dataclass(frozen=True)
class Config(Settings):
    clouds: Path
    """Folder of them."""
    rotations: Path
    """File of them."""
    checkpoint: Path = Path(__file__).parents[1] / "results/rotation/landmark_alignment/svd.pth"
    """Of `landmark_alignment`. That in landmark_alignment_other_points knows copies with other points."""
    points: Points = "all"
    """Drawn from each cloud, none twice; of a smaller cloud all."""
    other_points: bool = False
    """Draw other points for the copies, as two scans of an object have: with all points, half for each. The
    benchmark has the same, and a checkpoint trained on those alone fails on others."""
    noise: NotNegative = 0.0
    """Standard deviation of noise of the copies' points, in root mean square distances from the centroid."""
    outliers: Amount = 0
    """Points of a copy that are put elsewhere, at three such distances."""
    seed: Seed = 0
    """Of the points that are drawn, of noise and of outliers."""
    threads: Threads = 2


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    try:
        model, settings = restore(config.checkpoint)
        clouds, rotations = read_clouds(config.clouds, config.rotations), read_rotations(config.rotations)
    except ValueError as error:
        raise shared.run.UserError(str(error)) from error
    rows = []
    for name, estimate in estimators(model, settings["passes"], settings["starts"]).items():
        shown = tqdm(clouds, desc=name, unit="cloud", leave=False)
        found = [errors(estimate, examined(config, cloud, rotations)) for cloud in shown]
        figures = metrics(torch.cat(found), LIMITS)
        rows.append({"estimator": name, **{column: figures[column] for column in SHOWN}})
    copies = "other points" if config.other_points else "the same points"
    noise = f", noise {config.noise:g}" if config.noise else ""
    outliers = f", outliers {config.outliers}" if config.outliers else ""
    print(
        f"{len(clouds)} clouds, {len(rotations)} rotations; {config.points} points, {copies} for the copies"
        f"{noise}{outliers}.\nErrors in degrees, and shares below 5 and 10 degrees in percent. {EXACT}\n\n"
        f"{shared.results.markdown(rows)}"
    )


MANY = 1 << 16  # points at a time, of all rotated copies
SHOWN = ("mean", "median", "acc@5", "acc@10")


def examined(config: Config, cloud: Tensor, rotations: Tensor) -> Iterator[Examined]:
    """Draw points of a cloud and its copies, whatever else is in the folder; some copies at a time."""
    generator = Generator().manual_seed(config.seed)
    cloud = normalized(cloud).float()[torch.randperm(len(cloud), generator=generator)]
    source, target = halves(cloud, config.points, config.other_points)
    far = torch.full((config.outliers,), FAR)
    for some in rotations.split(max(1, MANY // len(source))):
        copies = disturbed(target.expand(len(some), -1, -1), config.noise, far, generator)
        yield source[None], (copies @ some.mT)[None], some[None]


def read_clouds(folder: Path, rotations: Path | None = None) -> list[Tensor]:
    """Read the clouds (points, 3) of a folder, but for the file `rotations`, float64, sorted by name.

    Raises:
        FileNotFoundError: if there is no such folder, or no file of a cloud in it.
        ValueError: with the file, if it is broken, or holds points that are all the same.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"`clouds` must be a folder; there is none at {folder}.")
    other = None if rotations is None else rotations.resolve()
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in FORMATS and path.is_file() and path.resolve() != other
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    clouds = {path: cloud for path in paths if (cloud := _read_cloud(path)) is not None}
    if not clouds:
        raise FileNotFoundError(f"{folder} has no clouds in files that end in {' '.join(FORMATS)}.")
    for path, cloud in clouds.items():
        if not normalized(cloud).isfinite().all():
            raise ValueError(f"{path}: the points are all the same, or too far apart for float64.")
    return [*clouds.values()]


def _read_cloud(path: Path) -> Tensor | None:
    """Read a cloud; None for a text that holds none, such as notes or labels, which is told."""
    try:
        return read_points(path, drop_nan=True)
    except ValueError as error:
        if path.suffix.lower() not in (".txt", ".csv"):
            raise
        print(f"evaluate: left out: {error}", file=sys.stderr)
        return None


TOLERANCE = 1e-3  # of the entries of a matrix and of the length of a quaternion: three decimals pass


def read_rotations(path: Path) -> Tensor:
    """Read rotations (K, 3, 3), float32, from a file of matrices, of rows of 9, or of quaternions.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, with the number of the first that is no rotation.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`rotations` must be a file; there is none at {path}.")
    array = torch.from_numpy(_numbers(path))
    if array.shape[-2:] == (4, 4) and (array[..., 3, :] == array.new_tensor([0, 0, 0, 1])).all():
        raise ValueError(f"{path}: wanted rotations; got transforms, of homogeneous coordinates.")
    if array.ndim == 2 and array.shape[1] == 3 and len(array) % 3 == 0:
        array = array.reshape(-1, 3, 3)
    if array.ndim < 3 and array.shape[-1:] == (4,):
        quaternions = array.reshape(-1, 4)
        matrix = svdrot.quaternion_to_matrix(quaternions)
        off = (torch.linalg.vector_norm(quaternions, dim=-1) - 1).abs()
    elif array.shape[-2:] == (3, 3) or (array.ndim < 3 and array.shape[-1:] == (9,)):
        matrix = array.reshape(-1, 3, 3)
        off = (matrix - svdrot.special_orthogonalize(matrix)).abs().amax((-2, -1))
    else:
        raise ValueError(f"{path}: wanted (K, 3, 3), (K, 9), (3 K, 3) or (K, 4); got {tuple(array.shape)}.")
    if not len(matrix):
        raise ValueError(f"{path} holds no rotations.")
    if (wrong := ~(off <= TOLERANCE)).any():
        k = int(wrong.int().argmax())
        raise ValueError(
            f"{path}: number {k + 1} of {len(matrix)} is no rotation: it is off by {off[k]:.2g}."
        )
    return svdrot.special_orthogonalize(matrix).float()


def _numbers(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix in (".txt", ".csv"):
        return _columns(path)
    try:
        if suffix in (".npy", ".npz"):
            return _only(np.load(path)).astype(np.float64, casting="same_kind")
        if suffix in (".pt", ".pth"):
            return _only(torch.load(path, map_location="cpu", weights_only=True)).double().numpy()
    except (ValueError, TypeError, AttributeError, EOFError, RuntimeError, UnpicklingError) as error:
        raise ValueError(f"{path}: wanted one array of numbers: {error}") from error
    raise ValueError(f"{path}: the suffix must be .npy, .npz, .pt, .txt or .csv; got {path.suffix!r}.")


def _only(held: Any) -> Any:
    """Return the one array of a file."""
    if not hasattr(held, "keys"):
        return held
    if len(names := [*held.keys()]) != 1:
        raise ValueError(f"it holds {', '.join(names) or 'none'}.")
    return held[names[0]]


def _columns(path: Path) -> np.ndarray:
    """Read rows of numbers, in our order where the first line names them."""
    data = path.read_bytes()
    rows = [(number, re.sub("[,;]", " ", line)) for number, line in rows_of(data)]
    first = data.decode(errors="replace").lstrip("\ufeff \r\n").split("\n", 1)[0]
    order = None
    if first.startswith("#"):  # names, or any remark
        order = _order(re.sub("[,;#]", " ", first).split())
    elif rows and not any(map(is_number, names := rows[0][1].split())):
        order = _order(names)
        if order is None:
            wanted = "w x y z, or r00 to r22, in any order"
            raise ValueError(f"{path}: wanted numbers, or names of columns: {wanted}; got {rows[0][1]!r}.")
        rows = rows[1:]
    if not rows:
        return np.empty((0, 9))
    numbers = table(path, rows, [] if order is None else [len(order)])
    return numbers if order is None else numbers[:, order]


def _order(names: list[str]) -> list[int] | None:
    """Find where w x y z, or the rows of a matrix, stand among columns of these names; else None."""
    words = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in names]
    quaternion = [re.sub(r"^(quat|rot|q|r)", "", word) for word in words]
    if sorted(quaternion) == sorted("wxyz"):
        return [quaternion.index(axis) for axis in "wxyz"]
    places = [re.sub(r"^[a-z]*", "", word) for word in words]
    for base in (0, 1):
        wanted = [f"{row + base}{column + base}" for row in range(3) for column in range(3)]
        if sorted(places) == wanted:
            return [places.index(place) for place in wanted]
    return None


if __name__ == "__main__":
    shared.run.main(main, Config, __doc__)
