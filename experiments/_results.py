"""What a finished experiment leaves in its folder: rows as JSON, tables, and a figure."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

from experiments import _run

Rows = list[dict[str, Any]]


def write(folder: Path, config: Any, tables: Mapping[str, Rows], figure: Figure, verdict: str) -> None:
    """Write results.json, table.md and figure.png, and print the tables.

    Args:
        folder: made if it does not exist.
        config: instance of a dataclass.
        tables: rows by the caption of their table; the columns are the keys of the first row.
        figure: made without pyplot, as `Figure(figsize=..., layout="constrained")`.
        verdict: what the result says, in a sentence or two, as Markdown.
    """
    picture = io.BytesIO()  # drawing takes seconds: an interruption before the first file leaves none
    figure.savefig(picture, dpi=130)
    command = _run.command()
    content = {"command": command, **_run.environment(), "config": asdict(config), "verdict": verdict}
    with _run.replacing(folder / "results.json") as new:
        rows = {name: [{k: _finite(v) for k, v in row.items()} for row in tables[name]] for name in tables}
        new.write_text(json.dumps({**content, "tables": rows}, indent=1, default=str) + "\n")
    text = "\n\n".join(
        [f"`{command}`", *(f"**{name}**\n\n{markdown(tables[name])}" for name in tables), verdict]
    )
    with _run.replacing(folder / "table.md") as new:
        new.write_text(text + "\n")
    with _run.replacing(folder / "figure.png") as new:
        new.write_bytes(picture.getbuffer())
    Console().print(Markdown(text))
    print(f"In {folder}: table.md, figure.png, results.json.")


def holds(yes: bool) -> str:
    """What a verdict says of an expectation."""
    return "**Holds.**" if yes else "**Does not hold.**"


def met(yes: bool) -> str:
    """The same, within a sentence."""
    return "as expected" if yes else "**not** as expected"


def comparison(
    row: Mapping[str, Any], other: Mapping[str, Any], words: tuple[str, str] = ("better", "worse")
) -> str:
    """One of the words, or undecided: by all seeds of the row against all of the other."""
    if row["highest"] < other["lowest"]:
        return words[0]
    return words[1] if row["lowest"] > other["highest"] else "undecided"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def markdown(rows: Rows) -> str:
    """A Markdown table; numbers with three significant digits."""
    names = list(rows[0])
    numeric = [all(isinstance(row[name], int | float) for row in rows) for name in names]
    lines = ["| " + " | ".join(names) + " |"]
    lines += ["|" + "|".join("---:" if right else "---" for right in numeric) + "|"]
    lines += ["| " + " | ".join(readable(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def readable(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
