"""Clouds of points on the surfaces of procedural objects, each family with proportions drawn at random.

No object has a rotational symmetry, so the rotation between two copies of a cloud is unique. All lie alike,
as the objects of one category do, for that is what a network learns orientations from: x runs along the
length of a family's mean object, z across its thinnest side, and each axis points to where more of the
surface is. Nothing is read from disk.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray


def clouds(count: int, points: int = 512, *, seed: int = 0, families: Iterable[str] | None = None) -> NDArray:
    """Clouds of `count` objects, the families in turn: cloud `i` depends on `seed`, `i` and the families.

    Args:
        count: number of objects.
        points: points per object, drawn uniformly by area from the surfaces of its parts.
        seed: of the proportions and of the points.
        families: keys of `FAMILIES`; all of them if None.

    Returns:
        Shape (count, points, 3), float32. Each bounding box is centered at the origin, each farthest
        point at distance 1 from it.
    """
    names = list(FAMILIES if families is None else families)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise ValueError(f"`families` must be keys of FAMILIES, {list(FAMILIES)}; got {unknown or names}.")
    if count < 0 or points < 1:
        raise ValueError(f"`count` must be at least 0 and `points` at least 1; got {count} and {points}.")
    result = np.empty((count, points, 3), np.float32)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        family = names[i % len(names)]
        result[i] = _normalize(_cloud(family, points, rng) @ _axes(family))
    return result


@dataclass(frozen=True)
class Part:
    """A piece of surface: its area, and a map of the unit square onto it that keeps densities."""

    area: float
    surface: Callable[[NDArray, NDArray], NDArray]  # (n,), (n,) -> (n, 3)


Uniform = Callable[..., float]  # rng.uniform(low, high)


def _cloud(family: str, points: int, rng: Generator) -> NDArray:
    return _scatter(FAMILIES[family](rng.uniform), points, rng)


@cache
def _axes(family: str) -> NDArray:
    """The common axes as columns, in the coordinates in which the family is drawn up: a rotation."""
    objects = [_cloud(family, 512, np.random.default_rng((i, 24))) for i in range(24)]
    axes = np.linalg.eigh(np.mean([np.cov(cloud.T) for cloud in objects], 0))[1][:, ::-1]
    lean = np.zeros(3)  # of the surface, from the middle of the bounding box
    for cloud in objects:
        x = cloud @ axes
        lean += (x.mean(0) - (x.min(0) + x.max(0)) / 2) / x.std(0)
    axes = np.where(lean < 0, -axes, axes)
    if np.linalg.det(axes) < 0:  # the least decided axis makes it right-handed
        axes[:, np.abs(lean).argmin()] *= -1
    return axes


def _scatter(parts: list[Part], points: int, rng: Generator) -> NDArray:
    area = np.array([part.area for part in parts])
    share = rng.multinomial(points, area / area.sum())
    a, b = rng.random((2, points))
    ends = np.cumsum(share)
    return np.concatenate(
        [
            part.surface(a[end - n : end], b[end - n : end])
            for part, n, end in zip(parts, share, ends, strict=True)
        ]
    )


def _normalize(cloud: NDArray) -> NDArray:
    cloud = cloud - (cloud.min(0) + cloud.max(0)) / 2
    return cloud / np.linalg.norm(cloud, axis=1).max()


# Parts, drawn up with z upwards and, where there is a front, x forwards. A point is (x, y, z).


def _sheet(corner: ArrayLike, side: ArrayLike, other: ArrayLike) -> list[Part]:
    """Parallelogram spanned by two sides from a corner."""
    o, u, v = np.asarray(corner, float), np.asarray(side, float), np.asarray(other, float)
    return [Part(_length(_cross(u, v)), lambda a, b: o + a[:, None] * u + b[:, None] * v)]


def _triangle(p: ArrayLike, q: ArrayLike, r: ArrayLike) -> list[Part]:
    o, u, v = np.asarray(p, float), np.subtract(q, p), np.subtract(r, p)

    def surface(a: NDArray, b: NDArray) -> NDArray:
        outside = a + b > 1  # fold the square's far half onto the near one
        a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
        return o + a[:, None] * u + b[:, None] * v

    return [Part(_length(_cross(u, v)) / 2, surface)]


def _box(center: ArrayLike, size: ArrayLike) -> list[Part]:
    """The six faces of a box along the axes."""
    low, edges = np.subtract(center, np.asarray(size, float) / 2), np.diag(np.asarray(size, float))
    faces = []
    for i in range(3):
        u, v = edges[(i + 1) % 3], edges[(i + 2) % 3]
        faces += _sheet(low, u, v) + _sheet(low + edges[i], u, v)
    return faces


def _ellipsoid(center: ArrayLike, radii: ArrayLike) -> list[Part]:
    """The image of a uniform sphere: a little denser where the surface was shrunk."""
    o, r = np.asarray(center, float), np.asarray(radii, float)
    mean_square = ((r[0] * r[1]) ** 1.6 + (r[0] * r[2]) ** 1.6 + (r[1] * r[2]) ** 1.6) / 3

    def surface(a: NDArray, b: NDArray) -> NDArray:
        z, longitude = 2 * a - 1, 2 * np.pi * b
        ring = np.sqrt(1 - z * z)
        return o + r * np.stack([ring * np.cos(longitude), ring * np.sin(longitude), z], 1)

    return [Part(4 * np.pi * mean_square ** (1 / 1.6), surface)]


def _tube(path: ArrayLike, radius: ArrayLike) -> list[Part]:
    """Open tube around a polyline, with one radius or one per vertex: cylinders, cones, handles, spouts."""
    p = np.asarray(path, float)
    r = np.broadcast_to(np.asarray(radius, float), len(p))
    parts = []
    for start, end, first, last in zip(p[:-1], p[1:], r[:-1], r[1:], strict=True):
        axis = end - start
        across = np.eye(3)[np.abs(axis).argmin()]
        u = _cross(axis, across)
        u /= _length(u)
        v = _cross(axis / _length(axis), u)

        def surface(a, b, o=start, axis=axis, u=u, v=v, first=first, last=last):
            along, angle = _along_frustum(a, first, last), 2 * np.pi * b
            ring = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v
            return o + along[:, None] * axis + (first + along * (last - first))[:, None] * ring

        slant = np.hypot(_length(axis), last - first)
        parts.append(Part(np.pi * (first + last) * slant, surface))
    return parts


def _along_frustum(a: NDArray, first: float, last: float) -> NDArray:
    """Share of the axis below which a share `a` of the area lies, by the root without cancellation."""
    return (
        a * (first + last) / (first + np.sqrt(first**2 + a * (last**2 - first**2)) + 1e-12 * (first + last))
    )


def _disc(center: ArrayLike, radius: float) -> list[Part]:
    """Horizontal disc: a cone of no height."""
    o = np.asarray(center, float)

    def surface(a: NDArray, b: NDArray) -> NDArray:
        r, angle = radius * np.sqrt(a), 2 * np.pi * b
        return o + np.stack([r * np.cos(angle), r * np.sin(angle), np.zeros_like(r)], 1)

    return [Part(np.pi * radius**2, surface)]


def _arc(center: ArrayLike, u: ArrayLike, v: ArrayLike, start: float, end: float, pieces: int = 8) -> NDArray:
    """Points center + cos(t) u + sin(t) v for t in degrees from `start` to `end`."""
    t = np.radians(np.linspace(start, end, pieces + 1))[:, None]
    return np.asarray(center) + np.cos(t) * np.asarray(u) + np.sin(t) * np.asarray(v)


def _length(v: NDArray) -> float:
    return float(np.sqrt(v @ v))


def _cross(u: NDArray, v: NDArray) -> NDArray:
    """Of two vectors: 0.8 us where `np.cross` takes 25, which was half the time of `clouds`."""
    (a, b, c), (x, y, z) = u.tolist(), v.tolist()
    return np.array([b * z - c * y, c * x - a * z, a * y - b * x])


# Families: `u(low, high)` draws a proportion.


def _airplane(u: Uniform) -> list[Part]:
    body, span, sweep, chord = u(0.08, 0.13), u(0.6, 1.0), u(0.1, 0.5), u(0.2, 0.35)
    at, tail, fin = u(0.0, 0.3), u(0.25, 0.4), u(0.2, 0.35)
    parts = _tube(
        [(-1, 0, 0.05), (-0.5, 0, 0), (0.7, 0, 0), (1, 0, -0.03)], [0.3 * body, body, body, 0.2 * body]
    )
    for side in (-1, 1):
        parts += _sheet((at, side * body, -0.02), (-chord, 0, 0), (-sweep, side * span, 0.06))
        parts += _sheet((-0.8, 0, 0.05), (-0.18, 0, 0), (-0.12, side * tail, 0.02))
        parts += _tube(
            [(at - 0.1 - 0.4 * sweep, side * 0.4 * span, -0.1), (at + 0.1, side * 0.4 * span, -0.1)], 0.05
        )
    return parts + _sheet((-0.75, 0, 0.08), (-0.22, 0, 0), (-0.18, 0, fin))


def _chair(u: Uniform) -> list[Part]:
    depth, width, seat, back = u(0.8, 1.1), u(0.7, 1.1), u(0.6, 1.0), u(0.7, 1.2)
    leg, lean = u(0.05, 0.09), u(0.0, 0.3)
    parts = _box((0, 0, seat), (depth, width, 0.08))
    parts += _sheet((-depth / 2, -width / 2, seat), (0, width, 0), (-lean, 0, back))
    for x in (-1, 1):
        for y in (-1, 1):
            foot = (x * depth / 2.2, y * width / 2.2, 0)
            parts += _tube([foot, (foot[0], foot[1], seat)], leg)
    return parts


def _lamp(u: Uniform) -> list[Part]:
    base, lower, upper, reach = u(0.25, 0.4), u(0.6, 0.9), u(0.4, 0.8), u(0.4, 0.7)
    shade, deep = u(0.2, 0.32), u(0.3, 0.5)
    elbow, head = (-0.3, 0, lower), (reach, 0, lower + upper)
    parts = _disc((0, 0, 0), base) + _tube([(0, 0, 0), (0, 0, 0.08)], base)
    parts += _tube([(0, 0, 0.05), elbow, head], 0.05)
    return parts + _tube([head, (reach + 0.5 * deep, 0, lower + upper - deep)], [0.3 * shade, shade])


def _mug(u: Uniform) -> list[Part]:
    radius, height, flare, handle = u(0.35, 0.5), u(0.8, 1.2), u(1.0, 1.25), u(0.35, 0.5)
    middle = u(0.45, 0.6) * height
    parts = _disc((0, 0, 0), radius) + _tube([(0, 0, 0), (0, 0, height)], [radius, flare * radius])
    grip = _arc((flare * radius - 0.05, 0, middle), (handle, 0, 0), (0, 0, 0.35 * height), -90, 90)
    return parts + _tube(grip, u(0.06, 0.09))


def _pickup(u: Uniform) -> list[Part]:
    length, width, body, cabin = u(1.8, 2.4), u(0.7, 0.9), u(0.25, 0.4), u(0.35, 0.55)
    front, long, wheel = u(0.36, 0.44) * length, u(0.25, 0.35) * length, u(0.16, 0.24)
    parts = _box((0, 0, wheel + body / 2), (length, width, body))
    parts += _box((front - long / 2, 0, wheel + body + cabin / 2), (long, 0.9 * width, cabin))
    for x in (-0.3 * length, 0.33 * length):
        for y in (-0.5, 0.5):
            parts += _tube([(x, y * width - 0.06, wheel), (x, y * width + 0.06, wheel)], wheel)
    return parts


def _hammer(u: Uniform) -> list[Part]:
    handle, grip, face, claw = u(1.4, 2.0), u(0.06, 0.09), u(0.12, 0.18), u(0.5, 0.75)
    head = u(0.35, 0.5)
    parts = _tube([(0, 0, 0), (0, 0, handle)], [1.3 * grip, grip])
    parts += _tube([(-0.1, 0, handle), (head, 0, handle)], face)
    for y in (-1, 1):
        tip = (-claw, 0.1 * y, handle - u(0.2, 0.35))
        parts += _tube(
            [(-0.1, 0.05 * y, handle), (-0.6 * claw, 0.1 * y, handle - 0.05), tip], [0.07, 0.05, 0.02]
        )
    return parts


def _key(u: Uniform) -> list[Part]:
    bow, shaft, thick = u(0.35, 0.5), u(1.1, 1.6), u(0.05, 0.08)
    parts = _tube(_arc((0, 0, 0), (bow, 0, 0), (0, 0, 0.8 * bow), 0, 360, 16), thick)
    parts += _tube([(bow, 0, 0), (bow + shaft, 0, 0)], thick)
    for at, long in zip((0.98, 0.8, 0.62), (u(0.5, 0.7), u(0.25, 0.35), u(0.35, 0.55)), strict=True):
        parts += _box((bow + at * shaft, 0, -long / 2), (0.16, thick, long))
    return parts


def _tree(u: Uniform) -> list[Part]:
    trunk, lean, girth = u(0.8, 1.2), u(0.1, 0.3), u(0.07, 0.12)
    fork = (lean, 0, trunk)
    parts = _tube([(0, 0, 0), (0.2 * lean, 0, trunk / 2), fork], [1.4 * girth, girth, 0.8 * girth])
    for angle, reach, rise, crown in (
        (0, u(0.6, 0.8), 0.3, u(0.3, 0.4)),
        (100, u(0.4, 0.6), 0.7, u(0.2, 0.28)),
    ):
        tip = np.add(fork, (reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle)), rise))
        parts += _tube(np.array([fork, tip]), [0.7 * girth, 0.3 * girth]) + _ellipsoid(
            tip, (crown, crown, 0.7 * crown)
        )
    low = (-u(0.4, 0.6), -u(0.1, 0.3), 0.6 * trunk)
    return parts + _tube([(0.2 * lean, 0, trunk / 2), low], [0.5 * girth, 0.2 * girth])


def _dog(u: Uniform) -> list[Part]:
    length, girth, leg, neck = u(0.5, 0.75), u(0.18, 0.26), u(0.4, 0.7), u(0.2, 0.4)
    muzzle, tail, thick = u(0.2, 0.35), u(0.35, 0.6), u(0.05, 0.08)
    head = (length + 0.2, 0, leg + girth + neck)
    parts = _ellipsoid((0, 0, leg + girth), (length, girth, girth)) + _ellipsoid(head, (0.2, 0.14, 0.16))
    parts += _tube([(0.8 * length, 0, leg + girth), head], [0.13, 0.09])
    parts += _tube([head, (head[0] + muzzle, 0, head[2] - 0.05)], [0.1, 0.06])
    parts += _tube([(-length, 0, leg + girth), (-length - 0.7 * tail, 0, leg + girth + tail)], [0.05, 0.02])
    for x in (-0.65, 0.65):
        for y in (-0.6, 0.6):
            parts += _tube([(x * length, y * girth, leg + 0.5 * girth), (x * length, y * girth, 0)], thick)
    return parts


def _horn(u: Uniform) -> list[Part]:
    turns, height, wide, thick = u(1.3, 2.2), u(0.8, 1.4), u(0.4, 0.6), u(0.12, 0.2)
    t = np.linspace(0, 1, 25)
    ring = wide * (1 - 0.75 * t)
    path = np.stack(
        [ring * np.cos(2 * np.pi * turns * t), ring * np.sin(2 * np.pi * turns * t), height * t], 1
    )
    return _tube(path, thick * (1 - 0.85 * t))


def _bracket(u: Uniform) -> list[Part]:
    long, short, width, thick = u(1.4, 1.8), u(0.5, 0.8), u(0.4, 0.7), u(0.08, 0.16)
    parts = _box((long / 2, 0, thick / 2), (long, width, thick))
    parts += _box((thick / 2, 0, thick + short / 2), (thick, width, short))
    rib = u(0.3, 0.6) * short
    return parts + _triangle((thick, 0, thick), (thick + 2 * rib, 0, thick), (thick, 0, thick + rib))


def _teapot(u: Uniform) -> list[Part]:
    radius, height, spout, handle = u(0.4, 0.5), u(0.35, 0.45), u(0.6, 0.8), u(0.35, 0.45)
    parts = _ellipsoid((0, 0, 0), (radius, radius, height))
    parts += _ellipsoid((0, 0, 1.1 * height), (0.1, 0.1, 0.12))
    bend = [(0.8 * radius, 0, -0.4 * height), (radius + 0.5 * spout, 0, 0), (radius + spout, 0, 1.2 * height)]
    grip = _arc((-0.9 * radius, 0, 0), (-handle, 0, 0), (0, 0, 0.7 * height), -90, 90)
    return parts + _tube(bend, [0.2, 0.12, 0.08]) + _tube(grip, 0.06)


def _sailboat(u: Uniform) -> list[Part]:
    length, beam, mast, boom = u(0.8, 1.1), u(0.25, 0.35), u(1.3, 1.8), u(0.6, 0.9)
    step, swing = u(0.0, 0.25), u(0.1, 0.4)
    parts = _tube([(-length, 0, 0), (0.3 * length, 0, 0), (length, 0, 0.1)], [0.8 * beam, beam, 0.03])
    parts += _tube([(step, 0, 0), (step, 0, mast)], 0.03)
    parts += _triangle((step, 0, 0.35), (step, 0, mast), (step - boom, swing, 0.35))
    return parts + _triangle((step, 0, 0.8 * mast), (0.95 * length, 0, 0.2), (step + 0.05, 0.6 * swing, 0.3))


def _crane(u: Uniform) -> list[Part]:
    tower, jib, counter, thick = u(1.3, 1.8), u(1.0, 1.4), u(0.35, 0.5), u(0.05, 0.09)
    hook, drop = u(0.6, 0.9) * jib, u(0.4, 0.8)
    parts = _box((0, 0, 0.05), (0.5, 0.5, 0.1)) + _tube([(0, 0, 0.1), (0, 0, tower + 0.25)], thick)
    parts += _tube([(-counter, 0, tower), (jib, 0, tower)], thick) + _box(
        (-counter, 0, tower - 0.12), (0.2, 0.25, 0.3)
    )
    parts += _tube([(hook, 0, tower), (hook, 0, tower - drop)], 0.03)
    return parts + _box((hook, 0, tower - drop - 0.1), (0.2, 0.2, 0.2))


def _faucet(u: Uniform) -> list[Part]:
    height, reach, pipe, lever = u(0.7, 1.1), u(0.5, 0.8), u(0.08, 0.12), u(0.4, 0.6)
    neck = _arc((reach / 2, 0, height), (-reach / 2, 0, 0), (0, 0, 0.6 * reach), 0, 180)
    parts = _disc((0, 0, 0), 0.25) + _tube(
        np.array([(0, 0, 0), *neck.tolist(), (reach, 0, height - u(0.1, 0.3))]), pipe
    )
    knob = (0, 0.15, 0.4 * height)
    return (
        parts
        + _ellipsoid(knob, (0.12, 0.12, 0.12))
        + _tube([knob, (0.1, 0.15 + lever, 0.4 * height + 0.2)], 0.05)
    )


def _wheelbarrow(u: Uniform) -> list[Part]:
    length, width, wheel, handle = u(0.8, 1.1), u(0.5, 0.7), u(0.18, 0.28), u(0.6, 0.9)
    parts = _sheet((0, -width / 2, 0.4), (length, 0, 0.1), (0, width, 0))
    parts += _sheet((length, -width / 2, 0.5), (0.2, 0, 0.35), (0, width, 0))
    parts += _tube([(length, -0.05, wheel), (length, 0.05, wheel)], wheel)
    for side in (-0.5, 0.5):
        parts += _sheet((0, side * width, 0.4), (length, 0, 0.1), (0, 0.3 * side, 0.25))
        parts += _tube(
            [(length, 0.1 * side, wheel), (0, side * width, 0.38), (-handle, side * width, 0.5)], 0.04
        )
        parts += _tube([(0.1, side * width, 0.4), (0.1, side * width, 0)], 0.04)
    return parts


FAMILIES: dict[str, Callable[[Uniform], list[Part]]] = {
    "airplane": _airplane,
    "chair": _chair,
    "lamp": _lamp,
    "mug": _mug,
    "pickup": _pickup,
    "hammer": _hammer,
    "key": _key,
    "tree": _tree,
    "dog": _dog,
    "horn": _horn,
    "bracket": _bracket,
    "teapot": _teapot,
    "sailboat": _sailboat,
    "crane": _crane,
    "faucet": _faucet,
    "wheelbarrow": _wheelbarrow,
}
