"""Random calls of all that is public, and whether the laws that they keep can be broken.

The long version is a command, `python -m tests.support.robustness`.
"""

from pathlib import Path

import pytest
import torch
from robustness import laws, subjects
from robustness.calls import Call, Campaign
from robustness.draws import Draw
from robustness.laws import findings
from robustness.makers import MAKERS
from robustness.subjects import Subject
from robustness.values import rotation
from robustness.workers import Report

CALLS = 600  # half a minute, most of which makes kernels


def test_every_public_function_is_called_or_has_a_reason():
    public = subjects.public_functions()
    assert not set(subjects.NOT_CALLED) - set(public), "NOT_CALLED has names that are not public."
    called = subjects.subjects()
    assert {"svdrot.slerp", "svdrot.losses.geodesic", "svdrot.distributions.Bingham.log_prob"} <= set(called)
    assert {"svdrot.euler_to_mrp", "svdrot.evaluation.poses.add"} <= set(called)


def test_every_maker_makes_something():
    wanted = {name for subject in subjects.subjects().values() for name in _keys(subject)}
    assert set(MAKERS) == wanted


def _keys(subject) -> list[str]:
    own = [(f"{subject.name}.{name}", name) for name in subject.makers]
    return [full if full in MAKERS else name for full, name in own]


def test_a_new_function_is_told_how_to_enroll(monkeypatch):
    def new(matrix, curious):
        """A function whose second parameter nobody knows."""

    monkeypatch.setattr(subjects, "public_functions", lambda: {"svdrot.new": new})
    with pytest.raises(LookupError, match=r"`curious` of svdrot\.new has no maker: add one to MAKERS"):
        subjects.subjects()
    monkeypatch.setattr(subjects, "public_functions", lambda: {"svdrot.New": type("New", (), {})})
    with pytest.raises(LookupError, match="add functions that make and use one to `scenarios`"):
        subjects.subjects()


@pytest.mark.long
def test_random_calls_keep_the_laws():
    campaign = Campaign()
    report = Report()
    for number in range(CALLS):
        for finding in findings(campaign.call(0, number)):
            report.add(number, finding)
    assert not report.kinds, f"Repeat one by `python -m tests.support.robustness --only <call>`:\n{report}"


def broken_laws(function, *, spoiled=None) -> set[str]:
    """By a function of one tensor, in many calls of it."""
    subject = Subject("svdrot.broken", function, {"matrix": rotation}, None)
    found = set()
    for number in range(100):
        draw = Draw(0, number)
        draw.batch, draw.odd, draw.scale = (5,), False, 1.0
        call = Call(subject, draw, {"matrix": rotation(draw)}, spoiled, False)
        found |= {finding.law for finding in findings(call)}
    return found


def test_a_function_that_keeps_the_laws_breaks_none():
    assert broken_laws(lambda matrix: matrix * 2) == set()


def changing(matrix):
    with torch.no_grad():
        matrix.view(-1)[:1].add_(1) if matrix.is_contiguous() else None
    return matrix * 2


def spreading(matrix):
    return matrix + matrix.sum(0)


def by_memory(matrix):
    return matrix * matrix.stride(-1)


def endless_gradient(matrix):
    return (matrix - matrix.detach()).abs().sqrt()


def nowhere(matrix):
    return torch.empty(1, device="meta")


def other_kind(matrix):
    raise RuntimeError("no")


def nameless(matrix):
    raise ValueError("no")


def named(matrix):
    raise ValueError("`matrix` is not liked.")


@pytest.mark.parametrize(
    "function, law",
    [
        (changing, "no input is changed"),
        (spreading, "a NaN stays in its place"),
        (by_memory, "layout in memory changes nothing"),
        (endless_gradient, "finite gradients of finite input"),
        (nowhere, "results are where the arguments are"),
    ],
)
def test_a_law_that_is_broken_is_told(function, law):
    assert law in broken_laws(function)


@pytest.mark.parametrize(
    "error, law", [(other_kind, "TypeError or a ValueError"), (nameless, "names the argument")]
)
def test_an_error_that_says_nothing_is_told(monkeypatch, error, law):
    monkeypatch.setattr(laws, "ROOT", Path(__file__).parent)  # as if it were ours
    assert any(law in found for found in broken_laws(error, spoiled="matrix is nothing"))
    assert broken_laws(named, spoiled="matrix is nothing") == set()
    assert broken_laws(named) == {"good input is taken"}


def test_a_call_is_its_seed_and_number():
    campaign = Campaign()
    for number in range(50):
        one, other = (campaign.call(3, number) for _ in range(2))
        assert (one.subject, one.spoiled) == (other.subject, other.spoiled)
        for a, b in zip(one.draw.made, other.draw.made, strict=True):
            assert a.before == b.before and a.tensor.shape == b.tensor.shape
