"""Text files of numbers, a row to a line, with errors that say where."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers from 1; `#` begins a comment, at the start of a line.

    Raises:
        ValueError: if the file is not text.
    """
    for number, line in enumerate(read(path).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def read(path: Path) -> str:
    """All of a file.

    Raises:
        ValueError: if the file is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # the mark that some editors put first is no number
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: byte {error.start} is not UTF-8.") from error


def real(word: str) -> float:
    """As `float`, but for the underscores of Python.

    Raises:
        ValueError: if it is no number.
    """
    if "_" in word:
        raise ValueError(f"wanted a number; got {word!r}")
    return float(word)


def numbers(path: Path, number: int, line: str, count: int, wanted: str) -> list[float]:
    """The `count` finite numbers of a line, as `wanted` calls them.

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
