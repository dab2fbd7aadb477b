"""Points as arrays: npy and npz of numpy, and the records of KITTI's LiDAR."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.io.text import COLUMNS, WANTED


def npy(path: Path, data: bytes) -> NDArray[Any]:
    """Read one array."""
    array = load_numpy(path, data)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an npz, not one array: name it .npz.")
    return _xyz_columns(path, array)


def npz(path: Path, data: bytes) -> NDArray[Any]:
    """Read the array `points`, or the only one, or that named by the path, as `FILE.npz:NAME`."""
    arrays = load_numpy(path, data)
    if isinstance(arrays, np.ndarray):
        raise ValueError(f"{path} is one array, not an npz: name it .npy.")
    named = str(path).rpartition(":")[2] if ":" in path.suffix else ""
    name = named or ("points" if len(arrays) != 1 else next(iter(arrays)))
    if name not in arrays:
        raise ValueError(
            f"{path} has no array `{name}`, but {', '.join(arrays) or 'none'}; FILE.npz:NAME names one."
        )
    return _xyz_columns(path, arrays[name])


# What zipfile raises of files with wrong bytes.
_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def load_numpy(path: Path, data: bytes) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    """Read what `numpy.save` or `numpy.savez` wrote."""
    # A pickle would run code of the file; without one, that is an error like any other.
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, MemoryError, KeyError, *_BROKEN) as error:
        raise ValueError(f"{path} cannot be read as a file of numpy: {error}") from error


def _xyz_columns(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Check an array of points and return its first three columns in float64."""
    if array.ndim != 2 or array.shape[1] not in COLUMNS:
        raise ValueError(f"{path}: wanted shape (N, 3), or {WANTED}; got {array.shape}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: wanted real numbers; got {array.dtype}.")
    return array[:, :3].astype(np.float64)


def kitti(path: Path, data: bytes) -> NDArray[Any]:
    """Read records of four float32, little endian: x y z and the intensity."""
    if len(data) % 16:
        raise ValueError(f"{path}: wanted 16 bytes a point; has {len(data)}, {len(data) % 16} too many.")
    return np.frombuffer(data, "<f4").reshape(-1, 4)[:, :3].astype(np.float64)


def write_npz(path: Path, points: NDArray[Any]) -> None:
    """Write the array `points`."""
    np.savez(path, points=points)


def write_kitti(path: Path, points: NDArray[Any]) -> None:
    """Write intensities of 0, and coordinates rounded to float32."""
    path.write_bytes(np.pad(points, ((0, 0), (0, 1))).astype("<f4").tobytes())
