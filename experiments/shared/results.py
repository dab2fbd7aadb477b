"""What a finished experiment leaves in its folder: rows as JSON, tables, and a figure."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.shared import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = list[dict[str, Any]]


def write(
    folder: Path, config: Any, tables: Mapping[str, Rows], figure: "Figure | None", verdict: str, **more: Any
) -> None:
    """Write results.json, table.md and figure.png, each whole or not at all, and print the tables.

    Args:
        folder: made if it does not exist.
        config: instance of a dataclass.
        tables: rows by the caption of their table; a column for each key, in the order they first come.
        figure: made without pyplot, as `Figure(figsize=..., layout="constrained")`; None where matplotlib is
            not installed.
        verdict: what the result says, in a sentence or two, as Markdown.
        more: by name, what else results.json should hold, such as the numbers that cells of tables round.
    """
    picture = drawn(figure) if figure else None  # takes seconds: interrupted, no file is left
    record(folder, config, tables, verdict, **more)
    text = page(run.command(), tables, verdict)
    with run.replacing(folder / "table.md") as new:
        new.write_text(text + "\n")
    if picture is not None:
        with run.replacing(folder / "figure.png") as new:
            new.write_bytes(picture)
    show(text)
    print(f"In {folder}: table.md, {'' if picture is None else 'figure.png, '}results.json.")


def show(text: str) -> None:
    """Print Markdown, as it stands where rich is not installed."""
    try:
        from rich.console import Console
        from rich.markdown import Markdown
    except ImportError:
        print(text)
    else:
        Console().print(Markdown(text))


def record(folder: Path, config: Any, tables: Mapping[str, Rows], verdict: str, **more: Any) -> None:
    """Write results.json alone: what made the rows, and the rows."""
    content = {"command": run.command(), **run.environment(), "config": asdict(config), "verdict": verdict}
    rows = {name: [{k: _finite(v) for k, v in row.items()} for row in tables[name]] for name in tables}
    with run.replacing(folder / "results.json") as new:
        new.write_text(json.dumps({**content, "tables": rows, **more}, indent=1, default=str) + "\n")


def _finite(value: Any) -> Any:
    """Write out NaN and infinity, which JSON does not have."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def drawn(figure: "Figure") -> bytes:
    """Draw a figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130)
    return picture.getvalue()


def page(command: str, tables: Mapping[str, Rows], verdict: str) -> str:
    """Put the command, the tables below their captions and the verdict in Markdown."""
    parts = [f"**{name}**\n\n{markdown(rows)}" for name, rows in tables.items()]
    return "\n\n".join([f"`{command}`", *parts, verdict])


def markdown(rows: Rows) -> str:
    """Make a Markdown table, of numbers with three significant digits; a dash where a row lacks a column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [all(isinstance(row.get(name, 0), int | float) for row in rows) for name in names]
    lines = ["| " + " | ".join(names) + " |"]
    lines += ["|" + "|".join("---:" if right else "---" for right in numeric) + "|"]
    lines += ["| " + " | ".join(readable(row.get(name, "–")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def readable(value: Any) -> str:
    """Write a number with three significant digits, an integer with all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
