"""Files of machine code: what is read is what was written, and nothing found on disk ever stops a process.

The name of a file tells the kernel, its type, and a fingerprint of all that the code was made from. Its
content is the SHA-256 of the name and the code, and then the code: a linker that is given a file which was
cut, changed or renamed ends the process. Such a file is told of and made anew.

The files lie beside the sources, as Python's own byte code does, or, where nobody may write there, in the
user's cache; both are looked through. Where neither can be written, each process compiles for itself, after
one warning. They are read, not executed from where they lie, so a folder may forbid that.

(Wheels with machine code in them would have to be one for each system, processor family and version of
Python, and would still serve only common processors: with half its registers, a projection takes 130 us, not
75. So the one wheel is of Python alone.)
"""

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SUFFIX = ".kernel"


def folders() -> list[Path]:
    """Where files may lie, in the order in which they are looked for and written."""
    return [Path(__file__).parent / "__pycache__", *_users()]


def _users() -> Iterator[Path]:
    try:
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "svdrot"
    except RuntimeError:  # an account without a home, as in some containers
        return


def read(name: str) -> bytes | None:
    """The code that was written under a name, or None."""
    damaged = []
    for file in _files(name):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        code = content[len(_digest(name, b"")) :]
        if content == _digest(name, code) + code:
            return code
        damaged.append(file)
    for file in damaged:
        warnings.warn(f"{file} is damaged: it is not used, and made anew.", RuntimeWarning, stacklevel=2)
    return None


def write(name: str, code: bytes) -> None:
    """Keep the code, whole or not at all, where it can be kept."""
    errors = []
    for file in _files(name):
        new = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(_digest(name, code) + code)
            new.replace(file)
            return
        except OSError as error:
            errors.append(f"{file.parent} ({error.strerror})")
            _remove(new)
    _tell_of_no_place("; ".join(errors))


def clear() -> list[Path]:
    """Remove the files of all kernels and versions; returns those that are gone."""
    return [file for file in kept() if _remove(file)]


def kept() -> list[Path]:
    return [file for folder in folders() for file in sorted(folder.glob(f"*{SUFFIX}*"))]


def _files(name: str) -> list[Path]:
    return [folder / f"{name}{SUFFIX}" for folder in folders()]


def _digest(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + code).digest()


def _remove(file: Path) -> bool:
    try:
        file.unlink()
    except OSError:
        return False
    return True


@cache
def _tell_of_no_place(errors: str) -> None:
    warnings.warn(
        f"Compiled kernels cannot be kept: {errors}. Each process will compile them anew, for some seconds. "
        "Set XDG_CACHE_HOME to a folder that can be written.",
        RuntimeWarning,
        stacklevel=2,
    )
