"""PLY, as text and as bytes of either order: the vertices, whatever else a file holds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svdrot.io.text import Rows, check_count, check_lists, rows_of, shown, table


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
        """Return the type of a row whose lists have these lengths."""
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


def ply(path: Path, data: bytes) -> NDArray[Any]:
    """Read the vertices."""
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
        return _ply_text(path, rows_of(body, "\n", 1 + data[: end.end()].count(b"\n")), elements, vertex)
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
    """Read the byte order, empty for text, and the elements."""
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
                raise ValueError(f"{path}, line {number}: not a line of a PLY header: {shown(line)}.")
    if order is None:
        raise ValueError(f"{path}: its header has no line `format`.")
    return order, elements


def _ply_text(path: Path, rows: Rows, elements: list[_Element], vertex: _Element) -> NDArray[Any]:
    announced = sum(element.count for element in elements if element.properties)
    check_count(path, len(rows), announced, "lines after the header")
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
            check_lists(path, part)
    return found


def _ply_end(path: Path, body: bytes, offset: int, element: _Element, order: str) -> int:
    """Return where the rows of the element end."""
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
    """Return the lengths of the lists of the row at `offset`, and its end.

    Raises:
        ValueError: past the end of the file.
    """
    lengths = []
    for p in element.properties:
        if p.length:
            length = np.frombuffer(body, order + p.length, 1, offset)
            if not np.isfinite(length[0]):
                raise ValueError
            lengths.append(int(length[0]))
            offset += length.itemsize
        offset += np.dtype(p.type).itemsize * (lengths[-1] if p.length else 1)  # past the list, or one number
    if offset > len(body) or min(lengths, default=0) < 0:
        raise ValueError
    return lengths, offset


def write_ply(path: Path, points: NDArray[Any]) -> None:
    properties = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    path.write_bytes(header.encode() + points.astype("<f8").tobytes())
