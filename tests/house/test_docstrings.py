"""Every public name says what it does, what it takes and returns, and shows it in an example that runs."""

import doctest
import enum
import inspect
import re

import pytest
from robustness.subjects import DOORS, public_functions

PUBLIC = public_functions(doors=True)


def members(value) -> dict[str, str]:
    """Docstrings of the public methods and properties that a class has of its own, by their names."""
    own = vars(value) if isinstance(value, type) else {}
    texts = {name: inspect.getdoc(own[name]) for name in own if not name.startswith("_")}
    kinds = property | staticmethod | classmethod
    return {
        name: text
        for name, text in texts.items()
        if text and (isinstance(own[name], kinds) or inspect.isfunction(own[name]))
    }


MEMBERS = {f"{name}.{own}": text for name, value in PUBLIC.items() for own, text in members(value).items()}
TEXTS = {name: inspect.getdoc(value) or "" for name, value in PUBLIC.items()} | MEMBERS
# Functions of a door have the documentation of their library; the example of the door is that of its module.
OWN = [name for name in PUBLIC if not name.startswith(f"{DOORS}.")]
EXAMPLES = [*OWN, *(name for name, text in MEMBERS.items() if ">>>" in text)]


def parameters(value) -> list[str]:
    """Arguments by which a function or a class is called."""
    if isinstance(value, enum.EnumMeta):  # nobody calls it to make another enumeration
        return []
    inherited = ("self", "args", "kwargs")  # by `nn.Module`, of a class that is made without arguments
    names = inspect.signature(value).parameters
    return [name for name in names if not name.startswith("_") and name not in inherited]


def section(text: str, *titles: str) -> str:
    """What stands under one of the titles, up to the next."""
    found = re.search(rf"^({'|'.join(titles)}):[ \n](.*?)(?=^\w[\w, ]*:|\Z)", text, re.M | re.S)
    return found[2] if found else ""


@pytest.mark.parametrize("name", TEXTS)
def test_the_first_sentence_stands_alone(name):
    first = TEXTS[name].partition("\n\n")[0].strip()
    assert first.endswith((".", ":")), f"{name}: {first!r}"
    assert not first.startswith(("Of ", "As ")), (
        f"{name} begins with {first[:40]!r}: wanted a sentence with a verb."
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_arguments_and_results_are_told(name):
    value, text = PUBLIC[name], inspect.getdoc(PUBLIC[name]) or ""
    told = (
        section(text, "Args", "Attributes", "Shape")
        + section(text, "Attributes")
        + section(text, "Args, Raises")
    )
    for argument in parameters(value):
        assert re.search(rf"\b{re.escape(argument)}\b", told), f"{name}: nothing is said of `{argument}`."
    if inspect.isfunction(value) and inspect.signature(value).return_annotation not in (None, "None"):
        assert section(text, "Returns", "Shape", "Yields"), f"{name}: nothing is said of what it returns."


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(TEXTS[name], {}, name, None, None)
    assert example.examples, f"{name} has no example."
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.DocTestRunner(optionflags=flags).run(example, out=told.append)
    assert not failed, "".join(told)
