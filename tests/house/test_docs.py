"""What the documentation shows runs, and what it promises holds."""

import re
from pathlib import Path

import torch

from svdrot.engine import formula, words
from svdrot.engine.graph import Node

ROOT = Path(__file__).parents[2]


def test_the_page_of_formulas_runs():
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/formulas.md").read_text(), flags=re.S)
    found: dict = {}
    exec("\n".join(code), found)
    residuals, scale = found["residuals"], found["scale"]
    squared = residuals.detach().square().sum(-1) / scale.detach() ** 2
    expected = squared / (1 + squared)
    torch.testing.assert_close(found["values"].detach(), expected)
    torch.testing.assert_close(found["loss"].detach(), expected.mean())
    gradient = 2 * residuals.detach() / 0.25 / (1 + squared[:, None]) ** 2 / len(squared)
    torch.testing.assert_close(residuals.grad, gradient, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(scale.grad, -(residuals.detach() * gradient).sum() / 0.5, rtol=1e-4, atol=0)


def test_every_word_is_on_the_page():
    page = (ROOT / "docs/formulas.md").read_text()
    public = {
        name for name, value in vars(words).items() if getattr(value, "__module__", "") == words.__name__
    }
    assert len(public) > 12
    missing = {name for name in public if f"`{name}" not in page}
    assert not missing


def test_a_map_is_a_formula_and_a_row():
    """The rotation of an angle about an axis of any length, as anybody may add it: with every derivative."""

    @formula({"axis": (3,), "angle": ()}, (4,))
    def axis_and_angle_to_quaternion(axis, angle):
        length = words.sqrt(axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2])
        half = 0.5 * angle
        return (words.cos(half), *(words.sin(half) / length * axis))

    axis = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(axis_and_angle_to_quaternion, (axis, angle), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(axis_and_angle_to_quaternion, (axis, angle))
    lengths = axis_and_angle_to_quaternion(axis, angle).square().sum(-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not any(isinstance(value, Node) for value in vars(axis_and_angle_to_quaternion).values())
