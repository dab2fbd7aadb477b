"""The README: its code runs, what it names is there, and its figures are those of the results."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import svdrot

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def names():
    """What the examples take for granted."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    network.head = torch.nn.Linear(8, 3)
    source, turn = normal(200, 3), svdrot.random_rotation(generator=generator)
    scan = torch.cat((normal(2000, 2), normal(2000, 2).sin().sum(1, keepdim=True)), 1)
    return {
        "torch": torch,
        "network": network,
        "source": source,
        "target": source @ turn.mT,
        "weights": normal(200).exp(),
        "mask": normal(200) > 0,
        "points": source,
        "other": svdrot.registration.kabsch(source, source),
        "scan_a": scan,
        "scan_b": scan @ turn.mT,
        "features": normal(16, 512),
        "truth": svdrot.random_rotation(16, generator=generator),
    }


@pytest.mark.parametrize("code", CODE, ids=range(len(CODE)))
def test_the_code_runs(code, request):
    if "register(" in code:
        request.getfixturevalue("open3d")
    exec(compile(code, "README.md", "exec"), names())


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert len(links) > 30
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link


def test_commands_and_files_exist():
    modules = set(re.findall(r"python -m (experiments\.[\w.]+\w)(?![\w.<])", TEXT))
    assert len(modules) >= 5
    for module in modules:
        assert importlib.util.find_spec(module), module
    _, house = TEXT.split("## The house", 1)
    files = set(re.findall(r"[\w{},]+\.py\b", house.split("```")[1]))
    there = {path.name for path in (ROOT / "svdrot").rglob("*.py")}
    assert len(files) > 20
    for file in files - {"pairs_{reference,cpu,gpu}.py"}:
        assert file in there, file


HEADS = {"Rodrigues": "mrp", "axis-angle": "axis_angle", "Euler": "euler"}


def cells(line):
    return [cell.strip(" *") for cell in line.strip().strip("|").split("|")]


def tables(file):
    """The rows of each table of a file of results, by their first cells."""
    parts = re.split(r"^\|[-: |]+\|$", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    rows = [re.findall(r"^\|.*\|$", part.split("\n\n")[0], re.MULTILINE) for part in parts]
    return [{cells(row)[0]: cells(row) for row in table} for table in rows]


def test_errors_of_heads_are_those_of_the_results():
    header, *tasks = re.search(r"^\| task \|.*?\n\n", TEXT, re.DOTALL | re.MULTILINE)[0].strip().split("\n")
    assert len(tasks) == 6
    for line in tasks[1:]:
        (file,) = re.findall(r"\((.*?)\)", line)
        found = tables(file)[0]
        for name, figure in list(zip(cells(header), cells(line), strict=True))[1:]:
            mean = found[HEADS.get(name, name)][2].split(" ± ")[0] if figure else ""
            assert figure == mean, (file, name)


def test_times_are_those_of_the_results():
    forward, backward, *_ = tables("experiments/results/projection_cpu/table.md")
    rows = re.findall(
        r"^\| ([\d,]+) \| (\S+ .s) \| (.*)x / (.*)x \| (\S+ .s) \| (.*)x / (.*)x \|$", TEXT, re.M
    )
    assert len(rows) == 5
    for batch, *figures in rows:
        wanted = [table[batch][k] for table in (forward, backward) for k in (1, 5, 6)]
        assert figures == wanted, batch
    batches, *_ = tables("experiments/results/polar_cpu/table.md")
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) / (\S+) \| .*$", TEXT, re.M)
    assert len(rows) == 5
    for n, *figures in rows:
        assert figures == [batches[n][k] for k in (1, 2, 6, 5, 8, 9)], n
