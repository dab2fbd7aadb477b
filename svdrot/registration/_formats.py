"""The points of one file, by its format: arrays (N, 3), float64, in the order of the file.

A file that holds less or more than its header announces is refused. The libraries do not do so: trimesh 5.2
takes a binary PLY that lost its faces for a cloud, and refuses one whose faces have three and four corners;
open3d 0.20 answers files that were cut with memory never written to, its older reader makes noise of float64
PCD, and an OFF face beyond the vertices ends the process. So text and plain records are read here, and open3d
unpacks binary PCD.
"""

import importlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[tuple[int, str]]
"""Lines and their numbers in the file, from 1."""

# x y z, and after them nothing, an intensity, a normal or a colour, that and an intensity, normal and colour.
COLUMNS = (3, 4, 6, 7, 9)
_WANTED = "3, 4, 6, 7 or 9 columns, the first three x y z"


def optional(name: str, purpose: str) -> ModuleType:
    """The optional package `name`.

    Raises:
        ImportError: if it cannot be loaded; says what needs it, how to install it, and what went wrong.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        system = " and the system libraries libusb-1.0, libGL and libX11" if name == "open3d" else ""
        raise ImportError(
            f'{purpose} needs {name}{system}: pip install "svdrot[registration]". It did not load: {error}'
        ) from error


def table(path: Path, rows: Rows, widths: Sequence[int] = (), delimiter: str | None = None) -> NDArray:
    """Rows of numbers, all as long as the first, whose length is one of `widths` if there are any.

    Raises:
        ValueError: with the file and the first line that is something else.
    """
    width = len(rows[0][1].split(delimiter)) if rows else 3
    if rows and (not widths or width in widths):
        try:
            numbers = np.loadtxt([line for _, line in rows], delimiter=delimiter, comments=None, ndmin=2)
            if numbers.shape == (len(rows), width):
                return numbers
        except ValueError:
            pass  # told below, with the line
    elif widths:
        width = widths[0]
    for number, line in rows:
        words = line.split(delimiter)
        if len(words) != width or not all(map(is_number, words)):
            wanted = _WANTED if widths == COLUMNS and number == rows[0][0] else f"{width} numbers"
            raise ValueError(f"{path}, line {number}: wanted {wanted}; got {_shown(line)}.")
    if rows:
        raise ValueError(f"{path}, lines {rows[0][0]} to {rows[-1][0]}: wanted {width} numbers in each.")
    return np.empty((0, width))


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")


def lines(data: bytes, comment: str = "#", first: int = 1) -> Rows:
    """The lines that hold something other than a comment."""
    text = data.decode("utf-8-sig", errors="replace")
    stripped = ((n, line.partition(comment)[0].strip()) for n, line in enumerate(text.splitlines(), first))
    return [(n, line) for n, line in stripped if line]


def xyz(path: Path, data: bytes) -> NDArray:
    """Numbers between spaces, commas or semicolons; a csv may name its columns in the first line."""
    rows = lines(data)
    if not rows:
        return np.empty((0, 3))
    number, first = rows[0]
    delimiter = next((sign for sign in ";," if sign in first), None)
    names = [name.strip(" \"'").lower() for name in first.split(delimiter)]
    if path.suffix.lower() != ".csv" or any(map(is_number, names)):
        return table(path, rows, COLUMNS, delimiter)[:, :3]
    if not {"x", "y", "z"} <= {*names}:
        raise ValueError(
            f"{path}, line {number}: wanted numbers, or columns x, y and z; got {_shown(first)}."
        )
    return table(path, rows[1:], [len(names)], delimiter)[:, [names.index(axis) for axis in "xyz"]]


def pts(path: Path, data: bytes) -> NDArray:
    """As `xyz`; scanners put the number of points before them."""
    rows = lines(data)
    if not rows or not rows[0][1].isdecimal():
        return xyz(path, data)
    (number, count), *rows = rows
    if int(count) != len(rows):
        raise ValueError(f"{path}, line {number}: wanted {int(count)} points; got {len(rows)}.")
    return table(path, rows, COLUMNS)[:, :3]


def npy(path: Path, data: bytes) -> NDArray:
    array = load_numpy(path, data)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} is an npz, not one array: name it .npz.")
    return _xyz_columns(path, array)


def npz(path: Path, data: bytes) -> NDArray:
    """The array `points`, or the only one, or that named by the path, as `FILE.npz:NAME`."""
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


def load_numpy(path: Path, data: bytes) -> NDArray | Mapping[str, NDArray]:
    """What `numpy.save` or `numpy.savez` wrote."""
    # A pickle would run code of the file; without one, that is an error like any other.
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, MemoryError, KeyError, *_BROKEN) as error:
        raise ValueError(f"{path} cannot be read as a file of numpy: {error}") from error


def _xyz_columns(path: Path, array: NDArray) -> NDArray:
    if array.ndim != 2 or array.shape[1] not in COLUMNS:
        raise ValueError(f"{path}: wanted shape (N, 3), or {_WANTED}; got {array.shape}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: wanted real numbers; got {array.dtype}.")
    return array[:, :3].astype(np.float64)


def kitti(path: Path, data: bytes) -> NDArray:
    """Records of four float32, little endian: x y z and the intensity."""
    if len(data) % 16:
        raise ValueError(f"{path}: wanted 16 bytes a point; has {len(data)}, {len(data) % 16} too many.")
    return np.frombuffer(data, "<f4").reshape(-1, 4)[:, :3].astype(np.float64)


@dataclass(frozen=True)
class _Property:
    name: str
    type: str  # of numpy
    length: str  # of numpy: that of the number before a list; empty if this is one number


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property]

    @property
    def has_lists(self) -> bool:
        return any(p.length for p in self.properties)

    def record(self, order: str, lengths: Sequence[int] = ()) -> np.dtype:
        """A row, of lists of these lengths."""
        rest = iter(lengths)
        fields = []
        for i, p in enumerate(self.properties):
            if p.length:
                fields.append((f"length {i}", order + p.length))
                fields.append((f"list {i}", order + p.type, (next(rest),)))
            else:
                fields.append((p.name, order + p.type))
        return np.dtype(fields)


_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4",
    "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def ply(path: Path, data: bytes) -> NDArray:
    """The vertices."""
    end = re.search(rb"(?:^|\n)end_header[ \t]*\r?\n", data)
    if not data.startswith(b"ply") or end is None:
        raise ValueError(f"{path} is no PLY, or cut: wanted a header from `ply` to `end_header`.")
    order, elements = _ply_header(path, data[: end.start()])
    vertex = next((element for element in elements if element.name == "vertex"), None)
    names = [p.name for p in vertex.properties if not p.length] if vertex else []
    if vertex is None or not {"x", "y", "z"} <= {*names} or vertex.has_lists:
        raise ValueError(f"{path}: wanted vertices with properties x, y and z; its header has {names}.")
    if len({*names}) < len(names):
        raise ValueError(f"{path}: wanted properties of different names; its header has {names}.")
    body = data[end.end() :]
    if not order:
        return _ply_text(path, lines(body, "\n", 1 + data[: end.end()].count(b"\n")), elements, vertex)
    offset, points = 0, np.empty((0, 3))
    for element in elements:
        start, offset = offset, _ply_end(path, body, offset, element, order)
        if element is vertex:
            rows = np.frombuffer(body, vertex.record(order), vertex.count, start)
            points = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], 1)
    if body[offset:].strip():
        raise ValueError(f"{path} holds {len(body) - offset} bytes more than its header announces.")
    return points


def _ply_header(path: Path, header: bytes) -> tuple[str, list[_Element]]:
    order, elements = None, []
    for number, line in enumerate(header.decode(errors="replace").splitlines(), 1):
        match line.split():
            case ["ply"] | ["comment" | "obj_info", *_] | []:
                pass
            case ["format", kind, "1.0"] if kind in _PLY_ORDERS:
                order = _PLY_ORDERS[kind]
            case ["element", name, count] if count.isdecimal():
                elements.append(_Element(name, int(count), []))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= {*_PLY_TYPES}:
                elements[-1].properties.append(_Property(name, _PLY_TYPES[kind], _PLY_TYPES[length]))
            case ["property", kind, name] if elements and kind in _PLY_TYPES:
                elements[-1].properties.append(_Property(name, _PLY_TYPES[kind], ""))
            case _:
                raise ValueError(f"{path}, line {number}: not a line of a PLY header: {_shown(line)}.")
    if order is None:
        raise ValueError(f"{path}: its header has no line `format`.")
    return order, elements


def _ply_text(path: Path, rows: Rows, elements: list[_Element], vertex: _Element) -> NDArray:
    announced = sum(element.count for element in elements if element.properties)
    _check_count(path, len(rows), announced, "lines after the header")
    found, start = np.empty((0, 3)), 0
    for element in elements:
        if not element.properties:
            continue
        part = rows[start : start + element.count]
        start += element.count
        if element is vertex:
            names = [p.name for p in vertex.properties]
            found = table(path, part, [len(names)])[:, [names.index(axis) for axis in "xyz"]]
        elif len(element.properties) == 1 and element.has_lists:
            _check_lists(path, part)
    return found


def _check_lists(path: Path, rows: Rows, least: int = 0) -> None:
    """Each row is n and n numbers, or with a `least` n more than that, as colours of faces."""
    for number, line in rows:
        words = line.split()
        length = int(words[0]) if words[0].isdecimal() else -1
        if length < least or (len(words) <= length if least else len(words) != 1 + length):
            raise ValueError(f"{path}, line {number}: wanted n and n numbers; got {_shown(line)}.")


def _check_count(path: Path, found: int, announced: int, what: str) -> None:
    if found != announced:
        raise ValueError(f"{path} holds {found} {what}; its header announces {announced}. Was it cut?")


def _ply_end(path: Path, body: bytes, offset: int, element: _Element, order: str) -> int:
    """Where the rows of the element end."""
    if not element.count:
        return offset
    cut = ValueError(f"{path} ends before its {element.count} rows of `{element.name}` do: it was cut.")
    if not element.has_lists:
        end = offset + element.record(order).itemsize * element.count
        if end > len(body):
            raise cut
        return end
    # Mostly all lists are as long as those of the first row, which are then columns; else row by row.
    try:
        lengths, _ = _ply_row(body, offset, element, order)
        record = element.record(order, lengths)
        end = offset + record.itemsize * element.count
        if end <= len(body):
            block = np.frombuffer(body, record, element.count, offset)
            columns = [name for name in record.names or () if name.startswith("length ")]
            if all((block[name] == n).all() for name, n in zip(columns, lengths, strict=True)):
                return end
        for _ in range(element.count):
            _, offset = _ply_row(body, offset, element, order)
    except (ValueError, MemoryError) as error:
        raise cut from error
    return offset


def _ply_row(body: bytes, offset: int, element: _Element, order: str) -> tuple[list[int], int]:
    """The lengths of the lists of the row at `offset`, and its end. ValueError past the end of the file."""
    lengths = []
    for p in element.properties:
        if p.length:
            length = np.frombuffer(body, order + p.length, 1, offset)
            if not np.isfinite(length[0]):
                raise ValueError
            lengths.append(int(length[0]))
            offset += length.itemsize
        offset += np.dtype(p.type).itemsize * (lengths[-1] if p.length else 1)
    if offset > len(body) or min(lengths, default=0) < 0:
        raise ValueError
    return lengths, offset


def pcd(path: Path, data: bytes) -> NDArray:
    """The fields x y z, as they are: the viewpoint is not applied."""
    end = re.search(rb"(?:^|\n)DATA (\w+)[ \t]*\r?\n", data)
    if end is None:
        raise ValueError(f"{path} is no PCD, or cut: wanted a header that ends with `DATA ...`.")
    header = data[: end.start()].decode(errors="replace").splitlines()
    entries = {words[0]: words[1:] for line in header if (words := line.split())}
    fields, count = entries.get("FIELDS", []), entries.get("POINTS", [])
    if not {"x", "y", "z"} <= {*fields} or len(count) != 1 or not count[0].isdecimal():
        raise ValueError(f"{path}: wanted FIELDS x y z and POINTS in its header; got {fields}, {count}.")
    if end[1] == b"ascii":
        rows = lines(data[end.end() :], "#", 1 + data[: end.end()].count(b"\n"))
        _check_count(path, len(rows), int(count[0]), "points")
        repeats = entries.get("COUNT", ["1"] * len(fields))
        if len(repeats) != len(fields) or not all(word.isdecimal() for word in repeats):
            raise ValueError(f"{path}: wanted a COUNT for each of FIELDS {fields}; got {repeats}.")
        columns = np.repeat(fields, [*map(int, repeats)]).tolist()
        if not {"x", "y", "z"} <= {*columns}:
            raise ValueError(f"{path}: wanted a COUNT of x, y and z; got {repeats} of {fields}.")
        return table(path, rows, [len(columns)])[:, [columns.index(axis) for axis in "xyz"]]
    found = _pcd_by_open3d(path, data)
    _check_count(path, len(found), int(count[0]), "points")
    return found


def _pcd_by_open3d(path: Path, data: bytes) -> NDArray:
    open3d = optional("open3d", "a binary PCD")
    # A copy, since open3d 0.20 knows the format by the suffix, in small letters alone.
    with (
        tempfile.TemporaryDirectory() as folder,
        open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error),
    ):
        copy = Path(folder, "cloud.pcd")
        copy.write_bytes(data)
        cloud = open3d.t.io.read_point_cloud(str(copy))
    if "positions" not in cloud.point:
        raise ValueError(f"{path} cannot be read as PCD: its data are cut or broken.")
    return cloud.point.positions.numpy().astype(np.float64)


def obj(path: Path, data: bytes) -> NDArray:
    """The lines `v`, once each, faces or not."""
    rows = lines(data)
    vertices = [(n, line[1:].strip()) for n, line in rows if line.split(None, 1)[0] == "v"]
    points = table(path, vertices, COLUMNS)[:, :3]
    for number, line in rows:
        word, *corners = line.split()
        if word != "f":
            continue
        indices = [corner.partition("/")[0].removeprefix("-") for corner in corners]
        if len(indices) < 3 or not all(i.isdecimal() and 0 < int(i) <= len(points) for i in indices):
            raise ValueError(
                f"{path}, line {number}: wanted three or more of {len(points)} vertices; got {_shown(line)}."
            )
    return points


def off(path: Path, data: bytes) -> NDArray:
    """The vertices, of an OFF with or without colours and normals."""
    rows = list(lines(data))
    keyword = re.match(r"(?:ST)?C?N?OFF\b|OFF(?=\d)", rows[0][1]) if rows else None
    if keyword is None:
        raise ValueError(f"{path}, line 1: wanted `OFF`, as text, in three dimensions.")
    number, first = rows.pop(0)
    if rest := first[keyword.end() :].strip():  # ModelNet's have "OFF490 518 0" in one line
        rows.insert(0, (number, rest))
    counts = rows.pop(0)[1].split() if rows else []
    if len(counts) not in (2, 3) or not all(word.isdecimal() for word in counts):
        raise ValueError(
            f"{path}: wanted the numbers of vertices, faces and edges after `OFF`; got {counts}."
        )
    vertices, faces = map(int, counts[:2])
    _check_count(path, len(rows), vertices + faces, "lines of vertices and faces")
    _check_lists(path, rows[vertices:], least=1)
    numbers = table(path, rows[:vertices])
    if numbers.shape[1] < 3:
        raise ValueError(f"{path}, line {rows[0][0]}: wanted x y z; got {_shown(rows[0][1])}.")
    return numbers[:, :3]


_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl(path: Path, data: bytes) -> NDArray:
    """The corners of the triangles, each point once, where it occurs first."""
    if len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little"):
        corners = np.frombuffer(data, _STL_TRIANGLE, offset=84)["corners"].reshape(-1, 3)
    elif data.lstrip().startswith(b"solid"):
        corners = _stl_text(path, lines(data, "\n"))
    else:
        announced = (
            f"announces {int.from_bytes(data[80:84], 'little')} triangles" if len(data) >= 84 else "is short"
        )
        raise ValueError(f"{path} is no STL, or cut: its header {announced}, and it has {len(data)} bytes.")
    _, first = np.unique(corners, axis=0, return_index=True)
    return corners[np.sort(first)].astype(np.float64)


def _stl_text(path: Path, rows: Rows) -> NDArray:
    vertices = [(n, line[6:].strip()) for n, line in rows if line.lower().startswith("vertex")]
    corners = table(path, vertices, [3])
    facets = sum(line.lower().startswith("facet") for _, line in rows)
    if len(corners) != 3 * facets or not rows[-1][1].lower().startswith("endsolid"):
        raise ValueError(
            f"{path}, line {rows[-1][0]}: ends after {len(corners)} corners of {facets} triangles, "
            f"with {_shown(rows[-1][1])}. Was it cut?"
        )
    return corners
