"""The run of the tests with other versions: what it installs, runs, counts and removes."""

import subprocess
import tempfile

import matrix
import pytest
from packaging.requirements import Requirement


def test_the_oldest_versions_are_the_lower_bounds():
    bounds = [matrix.at_lower_bound(Requirement(line)) for line in ("a>=1.2", "a<3,>=1.2.3", "a==1.8.0", "a")]
    assert bounds == ["a==1.2", "a==1.2.3", "a==1.8.0", "a"]
    names = {requirement.name for requirement in matrix.requirements()}
    assert names == {"torch", "numpy", "numba", "llvmlite", "scipy", *matrix.TOOLS}


def test_tests_of_the_library_need_nothing_else():
    found = matrix.library_tests()
    assert "tests/svdrot/test_projection.py" in found and "tests/svdrot/evaluation/test_streaming.py" in found
    assert not {
        "tests/datasets/test_shapes_and_planes.py",
        "tests/experiments/shared/test_training.py",
    } & set(found)


def test_outcomes_are_counted(tmp_path):
    report = tmp_path / "report.xml"
    assert matrix.outcomes(report) == {"passed": 0, "skipped": 0, "failed": 0}
    report.write_text('<testsuites><testsuite tests="9" errors="1" failures="2" skipped="3"/></testsuites>')
    assert matrix.outcomes(report) == {"passed": 3, "skipped": 3, "failed": 3}


def test_an_environment_that_fails_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho half > $3/made\nexit 3\n")  # python -m venv FOLDER
    interpreter.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        matrix.tested(str(interpreter), [], [])
    assert list(tmp_path.iterdir()) == [interpreter]


def test_a_python_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(matrix, "find_interpreters", lambda: {"3.99": "python"})
    with pytest.raises(SystemExit, match=r"Python 3\.\d+.*not on this machine; found: 3\.99"):
        matrix.main([])
