r"""Images of a cube with six colored faces: rotations to be told from pixels, without data to be had first.

A camera at $(0, 0, 5)$ looks at the center of the cube $[-1, 1]^3$; x points right in the image, y up, and z
to the camera. Its field of view of 45 degrees holds the cube whichever way that is turned. A face is as
bright as it is turned to the light, which is beside the camera.

As in experiment 2.1 of Geist et al., "Learning with 3D rotations, a hitchhiker's guide to SO(3)", ICML 2024:
2,048 images of 64 x 64 pixels each to train, validate and test. Their scene is another one of this kind.

A ray $o + t d$, seen from the cube, enters the slab of axis i at $t_i = (a_i - 1) / e_i$ and leaves it at
$(a_i + 1) / e_i$, with $a_i = |o_i|$ and $e_i = -\operatorname{sign}(o_i) d_i$. It meets the cube on the face
where it enters last, if it has left no other slab before. Multiplied by e these are comparisons of linear
functions of the pixel's place, one in x with one in y, without a division; where $a_i < 1$ they do not hold
together, for no point of the cube is behind the camera.
"""

import math

import torch
from torch import Tensor

from svdrot._checks import check_positive, check_shape
from svdrot._precision import to_compute

DISTANCE = 5.0
SLOPE = math.tan(math.radians(45 / 2))  # of the rays to the edges of the image; the cube needs 0.369 at most

# Red, green and blue look along their axes; the faces opposite have the opposite colors.
COLORS = ((1, 0, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 1, 0))

CHUNK = 32  # images whose masks fit into the cache of a core together


def render(
    rotations: Tensor,
    size: int = 64,
    *,
    colors: Tensor | None = None,
    ambient: float = 0.25,
    samples: int = 2,
) -> Tensor:
    """Images of the cube, turned from its own frame into the camera's.

    Args:
        rotations: shape (..., 3, 3), on any device.
        size: pixels along each edge.
        colors: red, green and blue from 0 to 1 of the faces +x, -x, +y, -y, +z, -z, shape (6, 3); `COLORS`
            if None.
        ambient: brightness of a face that is edge-on to the light, from 0 to 1; 1 leaves the plain colors.
        samples: rays along each edge of a pixel, whose color is their mean, up to 15; 1 has hard edges.

    Returns:
        Images on a black ground, shape (..., 3, size, size) in float32, red, green and blue from 0 to 1, the
        first row on top. They have no gradient. A rotation that is not finite gives an image of NaN.

    Raises:
        ValueError: if a shape is wrong or a number out of its range.
        TypeError: if `rotations` is not floating point.
    """
    check_shape("rotations", rotations, 3, 3)
    check_positive("size", size)
    if not 1 <= samples <= 15:
        raise ValueError(f"`samples` must be from 1 to 15; got {samples}.")
    if not 0 <= ambient <= 1:
        raise ValueError(f"`ambient` must be from 0 to 1; got {ambient}.")
    colors = torch.tensor(COLORS, dtype=torch.float32) if colors is None else colors
    if colors.shape != (6, 3):
        raise ValueError(f"`colors` must have shape (6, 3); got {tuple(colors.shape)}.")
    colors = colors.to(rotations.device, torch.float32)
    flat = to_compute(rotations.detach(), 2).float().reshape(-1, 3, 3)
    images = flat.new_empty(len(flat), 3, size, size)
    for first in range(0, len(flat), CHUNK):
        part = slice(first, first + CHUNK)
        images[part] = _render(flat[part], size, colors, ambient, samples)
    return images.reshape(*rotations.shape[:-2], 3, size, size)


def _render(r: Tensor, size: int, colors: Tensor, ambient: float, samples: int) -> Tensor:
    toward = r[:, 2]  # R^T (0, 0, 1)
    sign = torch.where(toward < 0, -1.0, 1.0)
    a = DISTANCE * toward.abs()
    # Rays (x, y, -1) in the frame of the cube: e = x ex + y ey + e1.
    ex, ey, e1 = -sign * r[:, 0], -sign * r[:, 1], sign * r[:, 2]

    i, j = [0, 0, 1], [1, 2, 2]
    # Entering the slab i after the slab j: (a_i - 1) e_j >= (a_j - 1) e_i.
    late = [(a - 1)[:, i] * e[:, j] - (a - 1)[:, j] * e[:, i] for e in (ex, ey, e1)]
    # Entering the slab i before leaving the slab j: (a_j + 1) e_i >= (a_i - 1) e_j, for either order.
    ij, ji = [*i, *j], [*j, *i]
    early = [(a + 1)[:, ji] * e[:, ij] - (a - 1)[:, ij] * e[:, ji] for e in (ex, ey, e1)]
    fx, fy, f1 = (torch.cat(parts, 1)[..., None, None] for parts in zip(late, early, strict=True))

    step = 2 * SLOPE / (size * samples)
    rays = (torch.arange(size * samples, device=r.device) + 0.5) * step - SLOPE
    # Bytes, whose sums are taken without a conversion: up to 15 * 15 rays.
    hits = torch.zeros(len(r), 3, size, size, dtype=torch.uint8, device=r.device)
    for row in range(samples):
        above = f1 - fy * rays[row::samples, None]
        for column in range(samples):
            holds = above >= -fx * rays[None, column::samples]
            last, before = holds[:, :3], holds[:, 3:]
            hits[:, 0] += (last[:, 0] & last[:, 1] & before[:, 0] & before[:, 1]).view(torch.uint8)
            hits[:, 1] += (~last[:, 0] & last[:, 2] & before[:, 2] & before[:, 3]).view(torch.uint8)
            hits[:, 2] += (~(last[:, 1] | last[:, 2]) & before[:, 4] & before[:, 5]).view(torch.uint8)

    light = (ambient + (1 - ambient) * toward.abs()) / samples**2
    face = 2 * torch.arange(3, device=r.device) + (sign < 0)
    paint = colors[face] * light[..., None]
    paint = paint + torch.where(toward.isfinite(), 0.0, torch.nan)[..., None]
    first, second, third = (hits[:, k, None] * paint[:, k, :, None, None] for k in range(3))
    return first + second + third
