"""The README and the pages of docs: code runs, what they name is there, figures are those of the results."""

import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy
import pytest
import torch

import svdrot

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (README, *ROOT.glob("docs/*.md"))}
SHORT = 120  # lines of the README
CODE = {
    f"{name} {k}": code
    for name, text in PAGES.items()
    if name != "docs/formulas.md"  # has a test of its own
    for k, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
}
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGES["README.md"], re.DOTALL | re.MULTILINE
)


def names():
    """What the examples take for granted."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    network.head = torch.nn.Linear(8, 3)
    source, turn = normal(200, 3), svdrot.random_rotation(generator=generator)
    x, y = normal(2, 2000)
    scan = torch.stack((x, y, x.sin() + 0.5 * (2 * y).cos() * x + 0.2 * y**2), 1)
    return {
        "torch": torch,
        "numpy": numpy,
        "svdrot": svdrot,
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


def run(code):
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), names())
    return printed.getvalue()


@pytest.mark.parametrize("code", CODE.values(), ids=CODE)
def test_the_code_runs(code):
    run(code)


@pytest.mark.parametrize("code, output", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_four_lines_print_what_they_show(code, output):
    assert code.count("\n") <= 4
    assert run(code) == output


def test_the_readme_is_short_and_its_prose_has_no_figures():
    text = PAGES["README.md"]
    assert len(EXAMPLES) == 5 and text.count("\n") <= SHORT
    prose = re.sub(r"^```.*?^```|^\|.*?$|\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?<![\w\"])\d[\d,.]*", prose) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), link
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if heading else []
        slugs = {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in headings}
        assert not heading or heading in slugs, link


def test_every_page_is_linked():
    linked = {link.partition("#")[0] for link in re.findall(r"\]\((docs/[^)]+)\)", PAGES["README.md"])}
    assert linked == set(PAGES) - {"README.md"}


def test_commands_and_files_exist():
    modules = set(re.findall(r"python -m (experiments\.[\w.]+\w)(?![\w.<])", "".join(PAGES.values())))
    assert len(modules) >= 5
    for module in modules:
        assert importlib.util.find_spec(module), module
    files = set(re.findall(r"[\w{},]+\.py\b", PAGES["docs/house.md"].split("```")[1]))
    there = {path.name for path in (ROOT / "svdrot").rglob("*.py")}
    assert len(files) > 20
    for file in files:
        assert file in there, file


HEADS = {"modified Rodrigues": "mrp", "axis-angle": "axis_angle", "Euler": "euler"}


def cells(line):
    return [cell.strip(" *") for cell in line.strip().strip("|").split("|")]


def tables(file):
    """The rows of each table of a file of results, by their first cells."""
    parts = re.split(r"^\|[-: |]+\|$", (ROOT / file).read_text(), flags=re.MULTILINE)[1:]
    rows = [re.findall(r"^\|.*\|$", part.split("\n\n")[0], re.MULTILINE) for part in parts]
    return [{cells(row)[0]: cells(row) for row in table} for table in rows]


def test_errors_of_heads_are_those_of_the_results():
    header, *tasks = (
        re.search(r"^\| task \|.*?\n\n", PAGES["docs/heads.md"], re.DOTALL | re.MULTILINE)[0]
        .strip()
        .split("\n")
    )
    assert len(tasks) == 6
    for line in tasks[1:]:
        (file,) = re.findall(r"\(\.\./(.*?)\)", line)
        found = tables(file)[0]
        for name, figure in list(zip(cells(header), cells(line), strict=True))[1:]:
            mean = found[HEADS.get(name, name)][2].split(" ± ")[0] if figure else ""
            assert figure == mean, (file, name)


def test_errors_of_landmarks_are_those_of_the_results():
    results = {
        name: json.loads((ROOT / f"experiments/results/rotation/{name}/results.json").read_text())["tables"]
        for name in ("landmark_alignment", "landmark_alignment_other_points")
    }

    def told(condition, points, estimator, figure, *, name="landmark_alignment", of="mean"):
        (table,) = (rows for caption, rows in results[name].items() if f"with {condition}:" in caption)
        (row,) = (r for r in table if r["points"] == points and r["estimator"].startswith(estimator))
        digits = len(figure.partition(".")[2])
        assert f"{row[of]:.{digits}f}" == figure, (condition, points, estimator)

    page = re.sub(r"\s+", " ", PAGES["docs/heads.md"])
    figures = re.search(
        r"off by \[(\S+) degrees in the mean, (\S+) in the median\].*? all points .*? and by (\S+) by the"
        r" best.*?; from 64 points by (\S+) and (\S+)\. ",
        page,
    )
    assert figures
    one, median, best, few, few_best = figures.groups()
    told("the same points", "all", "one", one)
    told("the same points", "all", "one", median, of="median")
    told("the same points", "all", "4", best)
    told("the same points", "64", "one", few)
    told("the same points", "64", "4", few_best)
    lines = re.findall(
        r"^\| (the same|with [^|]+|other points[^|]+) \| (\S+) \| (\S+) \|$", PAGES["docs/heads.md"], re.M
    )
    assert len(lines) == 5
    for copies, network, axes in lines:
        words = {"the same": "the same points", "noise": "noise of 0.5 % of the radius", "one": "one outlier"}
        condition = next((full for word, full in words.items() if word in copies), "other points")
        points = "64" if "of 64 points" in copies else "all"
        told(condition, points, "4", network)
        told(condition, points, "principal axes", axes)
    more = re.search(
        r"the last is (\S+), and of 64 points (\S+) \((\S+) in the median\) in place of (\S+)\. ", page
    )
    assert more
    every, few, median, before = more.groups()
    other = {"name": "landmark_alignment_other_points"}
    told("other points", "all", "4", every, **other)
    told("other points", "64", "4", few, **other)
    told("other points", "64", "4", median, of="median", **other)
    told("other points", "64", "4", before)


def test_times_are_those_of_the_results():
    forward, backward, *_ = tables("experiments/results/benchmarks/projection/table.md")
    rows = re.findall(
        r"^\| ([\d,]+) \| (\S+ .s) \| (.*)x / (.*)x \| (\S+ .s) \| (.*)x / (.*)x \|$",
        PAGES["docs/projection.md"],
        re.M,
    )
    assert len(rows) == 5
    for batch, *figures in rows:
        wanted = [table[batch][k] for table in (forward, backward) for k in (1, 7, 8)]
        assert figures == wanted, batch
    rows = re.findall(r"^\| ([\d,]+) \| (\S+ .s) \| (\S+)x \| (\S+)x \|$", PAGES["README.md"], re.M)
    assert len(rows) == 3
    for batch, *figures in rows:
        assert figures == [forward[batch][k] for k in (1, 7, 8)], batch
    batches, *_ = tables("experiments/results/benchmarks/polar/table.md")
    rows = re.findall(
        r"^\| (\d+) \| ([\d,]+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) / (\S+) \| .*$",
        PAGES["docs/polar.md"],
        re.M,
    )
    assert len(rows) == 5
    for n, *figures in rows:
        assert figures == [batches[n][k] for k in (1, 2, 6, 5, 8, 9)], n


def test_times_of_steps_are_those_of_the_results():
    _, _, adam, _ = tables("experiments/results/benchmarks/parametrizations/table.md")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGES["docs/learnable.md"], re.M)
    assert len(rows) == len(adam) == 9
    for n, figures in rows:
        assert figures.split(" | ") == [adam[n][k] for k in (1, 2, 3, 5, 8, 6)], n


def test_rates_of_the_verdict_are_those_of_the_results():
    rates = tables("experiments/results/registration/verdict_battery/table.md")[0]
    section = PAGES["docs/registration.md"].partition("## Whether to believe it")[2]
    rows = re.findall(r"^\| ([^|]+) \| (\S+) of (\S+) \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    assert {name for name, *_ in rows} == set(rates) - {"rate"}
    for name, count, of, *rest in rows:
        assert [of, count, *rest] == rates[name][1:], name
