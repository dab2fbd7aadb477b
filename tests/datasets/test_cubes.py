"""The colored cube: every pixel against a ray cast by division, and by the laws of pictures of a cube."""

from itertools import permutations, product

import numpy as np
import pytest
import torch

import svdrot
from datasets import cubes

# Images are float32; sums of at most 225 equal shares of a color.
ROUNDING = 1e-5
# Rays within rounding of an edge may fall to either side of it.
ON_AN_EDGE = 2e-4


def rotations(*shape, seed=0):
    return svdrot.random_rotation(*shape, generator=torch.Generator().manual_seed(seed))


def symmetries():
    """The 24 rotations that take a cube to itself: signed permutations of the axes."""
    matrices = [
        np.diag(signs)[:, list(order)]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]
    return torch.tensor(np.array([m for m in matrices if np.linalg.det(m) > 0]), dtype=torch.float32)


def cast(rotation, size, ambient):
    """One image by casting one ray after the other, in float64: where it enters each slab and leaves it."""
    image = np.zeros((3, size, size))
    origin = rotation.T @ [0, 0, cubes.DISTANCE]
    edge = np.tan(np.pi / 8)
    for row, column in np.ndindex(size, size):
        x = ((column + 0.5) / size * 2 - 1) * edge
        y = (1 - (row + 0.5) / size * 2) * edge
        ray = rotation.T @ [x, y, -1]
        ends = np.sort([(-1 - origin) / ray, (1 - origin) / ray], axis=0)
        if ends[0].max() <= ends[1].min():
            axis = ends[0].argmax()
            normal = -np.sign(ray[axis])
            light = max(rotation[2, axis] * normal, 0)
            color = np.array(cubes.COLORS[2 * axis + (normal < 0)])
            image[:, row, column] = color * (ambient + (1 - ambient) * light)
    return image


@pytest.mark.parametrize("ambient", [0, 0.25, 1])
def test_pixels_are_those_of_cast_rays(ambient):
    turns = torch.cat((rotations(5), symmetries()[:2]))
    images = cubes.render(turns, 32, ambient=ambient, samples=1)
    expected = np.stack([cast(turn, 32, ambient) for turn in turns.double().numpy()])
    wrong = np.abs(images.numpy() - expected).max(1) > ROUNDING
    assert wrong.mean() < 1e-3  # seven pixels of seven images


def test_a_face_is_seen_once_the_camera_is_above_its_plane():
    for height, seen in ((1.15, True), (0.95, False)):
        angle = torch.tensor([np.arcsin(height / cubes.DISTANCE), 0, 0])
        image = cubes.render(svdrot.axis_angle_to_matrix(angle), ambient=1, samples=1).numpy()
        expected = cast(svdrot.axis_angle_to_matrix(angle).numpy(), 64, 1)
        assert (np.abs(image - expected) > ROUNDING).any(0).sum() < 4
        assert bool((image == np.array(cubes.COLORS[2])[:, None, None]).all(0).any()) == seen


def test_symmetries_of_the_cube_permute_the_colors():
    group = symmetries()
    assert len(group) == 24
    colors = torch.tensor(cubes.COLORS, dtype=torch.float32)
    normals = torch.stack([sign * axis for axis in torch.eye(3) for sign in (1, -1)])
    seen = set()
    turns = rotations(3)
    for g in group:
        # What g takes to face k is painted as that face: painted[k] = colors[j], normals[k] = g normals[j].
        moved = (normals @ g.mT).round()
        to = [next(k for k in range(6) if (normals[k] == n).all()) for n in moved]
        seen.add(tuple(to))
        painted = torch.empty_like(colors)
        painted[to] = colors
        wrong = (cubes.render(turns @ g) - cubes.render(turns, colors=painted)).abs() > ROUNDING
        assert wrong.float().mean() < ON_AN_EDGE
    assert len(seen) == 24


def test_the_face_towards_the_camera_is_in_the_middle():
    turns = rotations(600)
    toward = turns[:, 2]
    height, axis = toward.abs().sort(-1, descending=True)
    clear = height[:, 0] - height[:, 1] > 0.1
    axis = axis[clear, 0]
    face = 2 * axis + (toward[clear].gather(1, axis[:, None])[:, 0] < 0)
    assert set(face.tolist()) == set(range(6))
    middle = cubes.render(turns[clear], ambient=1)[:, :, 31:33, 31:33].mean((-2, -1))
    colors = torch.tensor(cubes.COLORS, dtype=torch.float32)
    torch.testing.assert_close(middle, colors[face], rtol=0, atol=ROUNDING)


def test_a_turn_about_the_line_of_sight_turns_the_picture():
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # anticlockwise, as x is right and y is up
    turns = rotations(20)
    turned = torch.rot90(cubes.render(turns), 1, (-2, -1))
    assert ((cubes.render(quarter @ turns) - turned).abs() > ROUNDING).float().mean() < ON_AN_EDGE


def test_a_smaller_picture_is_the_mean_of_a_larger():
    turns = rotations(20)
    large = cubes.render(turns, 96, samples=1)
    small = torch.nn.functional.avg_pool2d(large, 3)
    assert ((cubes.render(turns, 32, samples=3) - small).abs() > ROUNDING).float().mean() < ON_AN_EDGE


def test_the_cube_is_whole_and_inside_the_picture():
    corner = torch.tensor([1.0, 1, 1]) / 3**0.5
    upright = svdrot.special_orthogonalize(torch.outer(torch.tensor([0.0, 1, 0]), corner))
    turns = torch.cat((rotations(300), upright[None], symmetries()))
    white = cubes.render(turns, colors=torch.ones(6, 3), ambient=1)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert (white[..., border] == 0).all()
    assert white.amax() <= 1 + ROUNDING
    # A silhouette is convex: in no row is there a hole, nor a speck of the ground between two faces.
    full = (white[:, 0] > 1 - ROUNDING).int()
    padded = torch.nn.functional.pad(full, (1, 1))
    assert (padded.diff(dim=-1).clamp(min=0).sum(-1) <= 1).all()
    # A face towards the camera is 1 / (4 SLOPE) of the width, but for half a ray at either side.
    area = white[:, 0].mean((-2, -1))
    face_on = torch.full((24,), 1 / (4 * cubes.SLOPE) ** 2)
    torch.testing.assert_close(area[-24:], face_on, rtol=0, atol=0.02)
    assert 0.3 < area.min() and area.max() < 0.6


def test_light_dims_faces_turned_away():
    """The brightest channel is the cosine to the line of sight, beside what is ambient."""
    turns = rotations(200)
    image = cubes.render(turns, ambient=0.4, samples=1)
    brightest = image.flatten(1).amax(1)
    expected = 0.4 + 0.6 * turns[:, 2].abs().amax(1)
    torch.testing.assert_close(brightest, expected, rtol=0, atol=ROUNDING)


def test_images_come_one_by_one_or_together():
    turns = rotations(5, 17)
    whole = cubes.render(turns, 16)
    assert whole.shape == (5, 17, 3, 16, 16) and whole.dtype == torch.float32 and not whole.requires_grad
    torch.testing.assert_close(cubes.render(turns[3, 7], 16), whole[3, 7], rtol=0, atol=0)
    torch.testing.assert_close(cubes.render(turns.double(), 16), whole, rtol=0, atol=1e-6)
    assert cubes.render(turns[:0], 16).shape == (0, 17, 3, 16, 16)
    assert not cubes.render(turns.requires_grad_(), 16).requires_grad


def test_broken_rotations_spoil_their_own_image():
    turns = rotations(40)
    turns[7, 1, 2] = torch.nan
    turns[33, 0, 0] = torch.inf
    nan = cubes.render(turns, 8).isnan().flatten(1)
    assert nan.all(1).nonzero()[:, 0].tolist() == [7, 33] and nan.any(1).sum() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"rotations": torch.zeros(2, 3)},
        {"size": 0},
        {"samples": 0},
        {"samples": 16},
        {"ambient": 1.5},
        {"colors": torch.ones(3, 6)},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_is_refused(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        cubes.render(**{"rotations": torch.eye(3), **arguments})
