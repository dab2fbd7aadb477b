"""The doors as a whole: loaded when they are used, documented, and with examples that run."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import roma
import scipy.spatial.transform

from svdrot import compat

PAGE = (Path(__file__).parents[3] / "docs/compat.md").read_text()
DOORS = ["svdrot.compat", "svdrot.compat.roma", "svdrot.compat.pytorch3d", "svdrot.compat.scipy"]


def test_doors_are_loaded_when_they_are_used():
    code = (
        "import sys, svdrot; svdrot.special_orthogonalize; assert 'svdrot.compat' not in sys.modules\n"
        "import svdrot.compat; assert 'svdrot.compat.roma' not in sys.modules\n"
        "svdrot.compat.roma; assert 'svdrot.compat.scipy' not in sys.modules and 'roma' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert dir(compat) == compat.__all__
    with pytest.raises(AttributeError, match="has no attribute 'kornia'; it has pytorch3d, roma, scipy"):
        _ = compat.kornia


@pytest.mark.parametrize("name", DOORS)
def test_examples_run(name):
    module = importlib.import_module(name)
    example = doctest.DocTestParser().get_doctest(module.__doc__ or "", {}, name, None, None)
    assert example.examples
    told: list[str] = []
    failed, _ = doctest.DocTestRunner().run(example, out=told.append)
    assert not failed, "".join(told)


def test_what_is_not_offered_is_on_the_page():
    table = PAGE.partition("Not offered, because:")[2].partition("##")[0]
    named = set(re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE))
    theirs = {name for name in scipy.spatial.transform.__all__ if name[0].isupper()}
    missing = {name for name in theirs if not hasattr(compat.scipy, name)}
    assert missing == {name.rpartition(".")[2] for name in named if name.startswith("scipy")} & theirs
    assert not {name for name in vars(roma) if callable(vars(roma)[name])} - {
        *vars(compat.roma),
        "PackageNotFoundError",  # what roma imports of others
        "version",
    }
    for name in named:
        assert not hasattr(compat.pytorch3d.transforms, name.rpartition(".")[2])
