"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block ends well: never half a file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder.")
    # Small letters: numpy and open3d know the format by the suffix, in these alone.
    new = path.with_name(f".{os.getpid()}-{path.stem}{path.suffix.lower()}")
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
