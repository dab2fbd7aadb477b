"""One spelling, and docstrings that begin as sentences do."""

import ast
import re
from pathlib import Path

import pytest

import svdrot

ROOT = Path(svdrot.__file__).parents[1]
FOLDERS = ("svdrot", "datasets", "experiments", "tests", "docs")
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyi", ".md") and "results" not in path.parts
)
FILES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")]

# British, and the American word for it.
BRITISH = {
    "centre": "center",
    "centred": "centered",
    "colour": "color",
    "neighbour": "neighbor",
    "behaviour": "behavior",
    "favour": "favor",
    "fibre": "fiber",
    "metre": "meter",
    "normalis": "normaliz",
    "minimis": "minimiz",
    "maximis": "maximiz",
    "optimis": "optimiz",
    "orthogonalis": "orthogonaliz",
    "initialis": "initializ",
    "generalis": "generaliz",
    "linearis": "lineariz",
    "regularis": "regulariz",
    "summaris": "summariz",
    "recognis": "recogniz",
    "serialis": "serializ",
    "parametris": "parametriz",
    "synchronis": "synchroniz",
    "analyse": "analyze",
    "modelling": "modeling",
    "labelled": "labeled",
    "cancelled": "canceled",
    "grey": "gray",
}
# Words that other people's data, formats and old names have.
QUOTED = {"_deprecated.py", "test_public_face.py", "test_english.py"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_spelling_is_american(file):
    if file.name in QUOTED:
        return
    found = re.findall("|".join(BRITISH), file.read_text(), re.IGNORECASE)
    assert not found, {word: BRITISH[word.lower()] for word in found}


def docstrings(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield getattr(node, "name", file.stem), text


@pytest.mark.parametrize(
    "file", sorted((ROOT / "svdrot").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_docstrings_begin_as_sentences_do(file):
    """Not with "Of ..." or "As ...", which lean on a name or on another docstring."""
    for name, text in docstrings(file):
        assert not re.match(r"(Of|As) ", text), f"{name}: {text.splitlines()[0]}"
