"""Numbers that sum up errors and seeds, and which of two contestants is ahead."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Rows = list[dict[str, Any]]
PERCENTILES = (5, 25, 75, 95, 99)


def metrics(errors: ArrayLike, limits: Sequence[float] = ()) -> dict[str, float]:
    """Sum up errors of any shape: mean, median, spread, percentiles, and percent below each of the limits."""
    errors = np.asarray(errors, np.float64).ravel()
    return {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "std": float(errors.std()),
        **{f"p{q}": float(np.percentile(errors, q)) for q in PERCENTILES},
        "max": float(errors.max()),
        **{f"acc@{limit}": 100 * float((errors < limit).mean()) for limit in limits},
    }


def deviation(values: Iterable[float]) -> float:
    """Return the standard deviation over seeds, NaN of a single one."""
    values = np.array([*values], np.float64)
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def spread(values: Sequence[float]) -> str:
    """Write seeds as mean ± standard deviation, or, if they are fewer than `DECIDING`, as mean and range."""
    mean = sum(values) / len(values)
    digits = 0 if mean >= 100 else 1 if mean >= 10 else 2
    low, high = min(values), max(values)
    if len(values) >= DECIDING:
        return f"{mean:.{digits}f} ± {deviation(values):.{digits}f}"
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else "")


# Which is ahead.


def holds(yes: bool) -> str:
    """Say in a verdict whether an expectation holds."""
    return "**Holds.**" if yes else "**Does not hold.**"


def met(yes: bool) -> str:
    """Say the same within a sentence."""
    return "as expected" if yes else "**not** as expected"


def comparison(
    row: Mapping[str, Any], other: Mapping[str, Any], words: tuple[str, str] = ("better", "worse")
) -> str:
    """Return one of the words, or undecided: by all seeds of the row against all of the other."""
    if row["highest"] < other["lowest"]:
        return words[0]
    return words[1] if row["lowest"] > other["highest"] else "undecided"


DECIDING = 5  # seeds


def decide(rows: Rows, expected: Iterable[tuple[str, str]]) -> Rows:
    """Tell for each pair of heads which is ahead, on seeds that both have.

    Decided is what holds for at least `DECIDING` seeds without overlap: every training of the one has a
    smaller mean error than every training of the other.

    Args:
        rows: trainings, with head, seed and mean.
        expected: pairs of heads, of which the first should come out ahead.
    """
    lines = []
    means = {(row["head"], row["seed"]): row["mean"] for row in rows}
    for first, second in expected:
        seeds = sorted({seed for head, seed in means if head == first and (second, seed) in means})
        if not seeds:
            continue
        a, b = ([means[head, seed] for seed in seeds] for head in (first, second))
        ahead = [y - x for x, y in zip(a, b, strict=True)]
        apart = "yes" if max(a) < min(b) else "the contrary" if max(b) < min(a) else "no: they overlap"
        lines.append(
            {"expected ahead": first, "of": second, "seeds": len(seeds)}
            | {"ahead by": sum(ahead) / len(ahead)}
            | {"at least": min(ahead), "at most": max(ahead)}
            | {"ahead in": sum(value > 0 for value in ahead)}
            | {"decided": apart if len(seeds) >= DECIDING else f"no: fewer than {DECIDING} seeds"}
        )
    return lines


def told(decisions: Rows) -> str:
    """Put the decisions in words."""

    def pairs(decided: str) -> str:
        kept = [row for row in decisions if row["decided"].startswith(decided)]
        return ", ".join(f"{row['expected ahead']} before {row['of']}" for row in kept)

    parts = {
        "Decided, as expected": pairs("yes"),
        "Decided against the expectation": pairs("the contrary"),
        "Not decided, the seeds overlap": pairs("no: they"),
        f"Not decided with fewer than {DECIDING} seeds": pairs("no: fewer"),
    }
    return " ".join(f"{kind}: {which}." for kind, which in parts.items() if which)
