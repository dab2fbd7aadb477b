"""Text files of numbers, a row to a line, with errors that say the file and the line."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[tuple[int, str]]
"""Lines and their numbers in the file, from 1."""

# x y z, and after them nothing, an intensity, a normal or a color, that and an intensity, normal and color.
COLUMNS = (3, 4, 6, 7, 9)
WANTED = "3, 4, 6, 7 or 9 columns, the first three x y z"


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, with their numbers from 1.

    A line that begins with `#` is a comment.

    Raises:
        ValueError: if the file is not text.
    """
    for number, line in enumerate(read(path).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def read(path: Path) -> str:
    """Read all of a file.

    Raises:
        ValueError: if the file is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # the mark that some editors put first is no number
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: byte {error.start} is not UTF-8.") from error


def real(word: str) -> float:
    """Read a number as `float` does, but for the underscores of Python.

    Raises:
        ValueError: if it is no number.
    """
    if "_" in word:
        raise ValueError(f"wanted a number; got {word!r}")
    return float(word)


def numbers(path: Path, number: int, line: str, count: int, wanted: str) -> list[float]:
    """Read the `count` finite numbers of a line, as `wanted` calls them.

    Raises:
        ValueError: with the file and the line, if it holds anything else.
    """
    try:
        row = [real(word) for word in line.split()]
    except ValueError:
        row = []
    if len(row) != count or not all(map(isfinite, row)):
        shown = line if len(line) < 200 else f"{line[:200]} ..."
        raise ValueError(f"{path}, line {number}: wanted {count} finite numbers, {wanted}; got {shown!r}.")
    return row


def rows_of(data: bytes, comment: str = "#", first: int = 1) -> Rows:
    """Return the lines that hold something other than a comment, with their numbers, from `first`."""
    text = data.decode("utf-8-sig", errors="replace")
    stripped = ((n, line.partition(comment)[0].strip()) for n, line in enumerate(text.splitlines(), first))
    return [(n, line) for n, line in stripped if line]


def table(path: Path, rows: Rows, widths: Sequence[int] = (), delimiter: str | None = None) -> NDArray[Any]:
    """Read rows of numbers, all as long as the first, whose length is one of `widths` if there are any.

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
            wanted = WANTED if widths == COLUMNS and number == rows[0][0] else f"{width} numbers"
            raise ValueError(f"{path}, line {number}: wanted {wanted}; got {shown(line)}.")
    if rows:
        raise ValueError(f"{path}, lines {rows[0][0]} to {rows[-1][0]}: wanted {width} numbers in each.")
    return np.empty((0, width))


def is_number(word: str) -> bool:
    """Tell whether `real` reads a word."""
    try:
        real(word)
    except ValueError:
        return False
    return True


def shown(line: str) -> str:
    """Quote a line, shortened to 60 characters."""
    return repr(line if len(line) <= 60 else line[:57] + "...")


def check_count(path: Path, found: int, announced: int, what: str) -> None:
    """Raise unless a file holds as many as its header announces."""
    if found != announced:
        raise ValueError(f"{path} holds {found} {what}; its header announces {announced}. Was it cut?")


def check_lists(path: Path, rows: Rows, least: int = 0) -> None:
    """Raise unless each row is n and n numbers, or with a `least` n more than that, as colors of faces."""
    for number, line in rows:
        words = line.split()
        length = int(words[0]) if words[0].isdecimal() else -1
        if length < least or (len(words) <= length if least else len(words) != 1 + length):
            raise ValueError(f"{path}, line {number}: wanted n and n numbers; got {shown(line)}.")
