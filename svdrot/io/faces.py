"""Whether a file of points has faces, by its header or its lines; the faces are read by trimesh."""

import re
from pathlib import Path


def has_faces(path: Path) -> bool:
    """Tell whether a file announces a surface: OBJ, OFF and PLY with faces, and every STL."""
    suffix = path.suffix.lower()
    if suffix == ".stl":
        return True
    if suffix not in FACES or not path.is_file():
        return False
    return FACES[suffix].search(path.read_bytes()) is not None


# A line of a face; the second of three counts; a number of faces that is not 0.
FACES = {
    ".obj": re.compile(rb"(?m)^[ \t]*f[ \t]"),
    ".off": re.compile(rb"^\s*\w*OFF\s+(?:#[^\n]*\s+)*\d+\s+0*[1-9]\d*\s"),
    ".ply": re.compile(rb"\A[^\0]*?element\s+face\s+0*[1-9]\d*[^\0]*?end_header"),
}
