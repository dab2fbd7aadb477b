"""What CONTRIBUTING.md says of additions: each kind is added by public hooks, and meets the laws untold."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
TESTS, SUPPORT = ROOT / "tests" / "svdrot", ROOT / "tests" / "support"
# A law or two of each kind that must be among those that ran, so that none is left out without a word.
LAWS = {
    "cayley": {
        "test_a_head_gives_rotations_and_finite_gradients",
        "test_a_head_learns",
        "test_half_precision_and_autocast",
        "test_a_loss_of_raw_numbers_is_the_map_and_then_the_loss",
    },
    "cauchy": {
        "test_outliers",
        "test_kernels_are_95_per_cent_efficient",
        "test_weights_are_slopes_of_costs",
        "test_ends",
    },
    "toy": {
        "test_points_survive",
        "test_files_of_something_else",
        "test_a_file_under_the_name_of_another_format",
    },
}
FILES = (
    "nn/test_heads.py",
    "nn/test_rotation_loss.py",
    "registration/clouds/test_icp.py",
    "test_robust_kernels.py",
    "io/test_files.py",
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Tests that ran on what `toys.py` adds, as (function, parameters, whether it passed)."""
    report = tmp_path_factory.mktemp("toys") / "report.xml"
    files = [str(TESTS / name) for name in FILES]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "toys",
        "--junitxml",
        report,
    ]
    command += ["-k", " or ".join(LAWS), *files]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, SUPPORT)))},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    cases = ElementTree.parse(report).iter("testcase")
    return [(case.attrib["name"].partition("[")[0], case.attrib["name"], len(case) == 0) for case in cases]


@pytest.mark.parametrize("toy", LAWS)
def test_the_laws_run_on_what_is_added(toy, ran):
    own = {function for function, name, passed in ran if passed and re.search(rf"[.\[-]{toy}\b", name)}
    assert own >= LAWS[toy], own


def test_every_recipe_names_files_and_tests_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    kinds = (
        "representation",
        "optimizer",
        "robust kernel",
        "point format",
        "data set",
        "experiment",
        "backend",
    )
    for kind in kinds:
        assert re.search(rf"^## .*{kind}", text, re.M), f"CONTRIBUTING.md does not tell how to add a {kind}."
    paths = re.findall(r"`((?:svdrot|tests|datasets|experiments|docs)/[\w./]+)`", text)
    assert len(paths) > 15
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
