"""The heads that experiments compare: which there are, in which order, and how figures draw them.

All follows from the representations of the library: one that is added there is here, with a label and a style
of its own.
"""

from collections.abc import Iterable
from itertools import product
from typing import Annotated, NamedTuple

from experiments.shared.figures import COLORS, DASHES
from experiments.shared.settings import Rule
from svdrot.nn import REPRESENTATIONS

# Names of heads: a representation and a strategy. "raw" learns nine numbers and projects at inference only.
HEADS: dict[str, tuple[str, str]] = {
    **{name: (name, "always") for name in REPRESENTATIONS},
    "raw": ("svd", "inference"),
}
Head = Annotated[str, Rule(f"one of {', '.join(HEADS)}", lambda name: name in HEADS)]
Representation = Annotated[
    str, Rule(f"one of {', '.join(REPRESENTATIONS)}", lambda name: name in REPRESENTATIONS)
]


class Style(NamedTuple):
    color: str
    dashes: str  # a line style of matplotlib: print has no colors


# Of the published figures; the others take what is left, in their order.
PUBLISHED = {
    "svd": Style("#D55E00", "-"),
    "6d": Style("#0072B2", "-"),
    "10d": Style("#009E73", "-"),
    "quaternion": Style("#CC79A7", "--"),
    "axis_angle": Style("#E69F00", "-."),
    "euler": Style("#444444", ":"),
    "5d": Style("#56B4E9", "-"),
    "2vec": Style("#0072B2", "--"),
    "mrp": Style("#E69F00", ":"),
    "raw": Style("#D55E00", "--"),
}


def ordered(heads: Iterable[str]) -> list[str]:
    """Sort heads as in `HEADS`; those that the library does not have come last, by name."""
    places = {head: place for place, head in enumerate(HEADS)}
    return sorted(set(heads), key=lambda head: (places.get(head, len(places)), head))


def styles(heads: Iterable[str]) -> dict[str, Style]:
    """Give each of the heads of a figure a style, in order; a head of `HEADS` has the same in all figures."""
    heads = ordered(heads)
    everyone = ordered({*HEADS, *heads})
    free = [
        style for dashes, color in product(DASHES, COLORS) if (style := Style(color, dashes)) not in TAKEN
    ]
    others = [head for head in everyone if head not in PUBLISHED]
    found = PUBLISHED | {head: free[place % len(free)] for place, head in enumerate(others)}
    return {head: found[head] for head in heads}


TAKEN = set(PUBLISHED.values())


def label(head: str) -> str:
    """Spell a head as texts and figures do."""
    return head.replace("_", "-")


def check(heads: Iterable[str]) -> None:
    """Refuse heads that are not different.

    Raises:
        ValueError: if one is there twice.
    """
    if len(set(heads := list(heads))) < len(heads):
        raise ValueError(f"`heads` must differ; got {', '.join(heads)}.")
