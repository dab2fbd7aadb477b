"""Surfaces to sample: what they look like, and which motions leave them as they are.

A `Shape` gives points of its surface, the rotations about the origin that map it onto itself, and for
surfaces that slide on themselves (planes, cylinders, ...) the distance of points from the endless surface and
the free motions, as (rotation vector, velocity of the origin), in the shape's own frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Random = np.random.Generator

MESHES = ("spot_low_resolution", "fish", "penguin", "boat", "goathead")  # the wing nut looks symmetric
ALL = (*MESHES, "wingnut")
SMALL = ("spot_low_resolution", "penguin", "goathead")  # that stand on tables


@dataclass(frozen=True)
class Shape:
    name: str
    sample: Callable[[int, Random], Array]  # so many points (N, 3)
    group: tuple[Array, ...] = (np.eye(3),)
    distance: Callable[[Array], Array] | None = None  # of points from the endless surface
    free: tuple[tuple[float, ...], ...] = ()


def rotation(axis: Any, angle: float) -> Array:
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def random_rotation(random: Random) -> Array:
    q = random.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


# Triangles, (F, 3, 3).


@lru_cache
def mesh(folder: Path, name: str) -> Array:
    """Read a mesh, centered, of diagonal 1."""
    vertices, faces = [], []
    for line in (folder / f"{name}.obj").read_text(errors="replace").splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif kind == "f":
            index = [int(x.split("/")[0]) for x in rest]
            index = [i - 1 if i > 0 else len(vertices) + i for i in index]
            faces += [(index[0], index[k], index[k + 1]) for k in range(1, len(index) - 1)]
    v = np.array(vertices)
    v = v - (v.max(0) + v.min(0)) / 2
    return (v / np.linalg.norm(v.max(0) - v.min(0)))[np.array(faces)]


def on_triangles(triangles: Array, count: int, random: Random) -> Array:
    """Draw points uniformly."""
    t = triangles
    area = np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1)
    f = random.choice(len(t), count, p=area / area.sum())
    a, b = random.uniform(size=(2, count, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    return t[f, 0] + a * (t[f, 1] - t[f, 0]) + b * (t[f, 2] - t[f, 0])


def box(size: Any, center: Any = (0, 0, 0), turn: Array | None = None) -> Array:
    c = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
    c = (c if turn is None else c @ turn.T) + center
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return np.array([t for a, b, d, e in quads for t in ((c[a], c[b], c[d]), (c[a], c[d], c[e]))])


def sheet(surface: Callable[[Array, Array], Array], rows: int, columns: int) -> Array:
    """Cover a surface, a function of u and v in [0, 1]."""
    u, v = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    p = surface(u, v)
    a, b, c, d = p[:-1, :-1], p[1:, :-1], p[1:, 1:], p[:-1, 1:]
    return np.concatenate(
        (np.stack((a, b, c), 2).reshape(-1, 3, 3), np.stack((a, c, d), 2).reshape(-1, 3, 3))
    )


def unit(triangles: Array) -> Array:
    """Scale to a diagonal of 1 about the origin."""
    p = triangles.reshape(-1, 3)
    return triangles / np.linalg.norm(p.max(0) - p.min(0))


def of(name: str, triangles: Array, **more: Any) -> Shape:
    return Shape(name, lambda n, random: on_triangles(triangles, n, random), **more)


def sphere_point(polar: Array, around: Array) -> Array:
    return np.stack((np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)), -1)


# Objects without symmetry.


def blob(random: Random, rough: float = 0.25) -> Shape:
    """Make a ball with random waves of low degree."""
    waves = random.normal(size=(14, 3)) * 2.2
    phase, height = random.uniform(0, 6.3, 14), random.normal(size=14) * rough / 3
    axes = random.uniform(0.6, 1.2, 3)

    def surface(u: Array, v: Array) -> Array:
        d = sphere_point(np.pi * u, 2 * np.pi * v)
        r = 1 + (height * np.sin(d @ waves.T + phase)).sum(-1)
        return d * np.maximum(r, 0.3)[..., None] * axes

    return of("blob", unit(sheet(surface, 50, 100)))


def assembly(random: Random) -> Shape:
    """Put a few boxes, tubes and balls in random places, as machine parts have them."""
    t = []
    for _ in range(random.integers(3, 7)):
        turn = random_rotation(random) if random.uniform() < 0.5 else np.eye(3)
        size, at = random.uniform(0.15, 1, 3), random.uniform(-0.5, 0.5, 3)
        kind = random.integers(3)
        if kind == 0:
            t.append(box(size, at, turn))
        elif kind == 1:
            t.append((sheet(_pipe, 40, 2) * size) @ turn.T + at)
        else:
            t.append(
                (sheet(lambda u, v: sphere_point(np.pi * u, 2 * np.pi * v) / 2, 16, 32) * size) @ turn.T + at
            )
    triangles = np.concatenate(t)
    p = triangles.reshape(-1, 3)
    return of("assembly", unit(triangles - (p.max(0) + p.min(0)) / 2))


def _pipe(u: Array, v: Array) -> Array:
    return np.stack((np.cos(2 * np.pi * u) / 2, np.sin(2 * np.pi * u) / 2, v - 0.5), -1)


def tube(random: Random) -> Shape:
    """Bend a tube along a random closed or open curve."""
    k = np.arange(1, 4)
    a, b = (random.normal(size=(3, 3)) / k for _ in range(2))
    closed, thick = random.uniform() < 0.5, random.uniform(0.12, 0.3)

    def surface(u: Array, v: Array) -> Array:
        s = (u * 2 * np.pi * (1 if closed else 0.6))[..., None]
        c = np.cos(s * k) @ a.T + np.sin(s * k) @ b.T
        tangent = -(np.sin(s * k) * k) @ a.T + (np.cos(s * k) * k) @ b.T
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
        e = np.cross(tangent, [0.31, 0.52, 0.79])
        e /= np.linalg.norm(e, axis=-1, keepdims=True)
        w = np.cross(tangent, e)
        return c + thick * (np.cos(2 * np.pi * v)[..., None] * e + np.sin(2 * np.pi * v)[..., None] * w)

    return of("tube", unit(sheet(surface, 160, 16)))


def thing(random: Random, meshes: Path | None) -> Shape:
    """Return some object without symmetry: a mesh in four of ten, if there are any."""
    k = random.integers(10)
    if k < 4:
        name = MESHES[random.integers(5)]
        if meshes is not None:
            return of(name, mesh(meshes, name))
    return (blob, assembly, tube)[max(0, k - 4) // 2](random)


# Symmetric ones.


def about_z(n: int) -> tuple[Array, ...]:
    return tuple(rotation((0, 0, 1), 2 * np.pi * k / n) for k in range(n))


def signed_permutations() -> list[Array]:
    found = []
    for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for s in np.ndindex(2, 2, 2):
            m = np.zeros((3, 3))
            m[range(3), p] = 1 - 2 * np.array(s)
            found.append(m)
    return found


def symmetric(random: Random) -> Shape:
    """Return something with a finite group of at least two rotations."""
    k = random.integers(6)
    if k == 0:
        size = random.uniform(0.3, 1, 3)
        size[np.argmin(size)] *= 0.7
        return of("box", unit(box(size)), group=(np.eye(3), *(rotation(a, np.pi) for a in np.eye(3))))
    if k == 1:
        cube = tuple(m for m in signed_permutations() if np.linalg.det(m) > 0)
        return of("cube", unit(box(np.ones(3))), group=cube)
    n = int(random.integers(2, 7))
    if k in (2, 3):  # waves about an axis, pear-shaped along it
        depth, pear, flat = random.uniform(0.15, 0.35), random.uniform(0.15, 0.4), random.uniform(0.5, 1.4)

        def surface(u: Array, v: Array) -> Array:
            polar, around = np.pi * u, 2 * np.pi * v
            r = 1 + depth * np.sin(polar) ** 2 * np.cos(n * around) + pear * np.cos(polar)
            return sphere_point(polar, around) * r[..., None] * (1, 1, flat)

        return of(f"waves{n}", unit(sheet(surface, 50, 120)), group=about_z(n))
    # Copies of a part about the axis of a disc.
    size, at = random.uniform(0.1, 0.5, 3), np.array([0.55, 0, random.uniform(0.1, 0.3)])
    turn = rotation((1, 0, 0), random.uniform(0, 1))

    def disc(u: Array, v: Array) -> Array:
        return np.stack((v * 0.6 * np.cos(2 * np.pi * u), v * 0.6 * np.sin(2 * np.pi * u), 0.0 * v), -1)

    parts = [sheet(disc, 60, 2)] + [box(size, at, turn) @ g.T for g in about_z(n)]
    return of(f"rotor{n}", unit(np.concatenate(parts)), group=about_z(n))


def nearly_symmetric(random: Random) -> Shape:
    """Add to such a thing one part, 12 to 25 % wide, which leaves one right pose."""
    base = symmetric(random)
    width = random.uniform(0.12, 0.25)
    probe = base.sample(400, np.random.default_rng(int(random.integers(1 << 30))))
    far = probe[np.linalg.norm(probe, axis=1) > np.quantile(np.linalg.norm(probe, axis=1), 0.4)]
    at = far[random.integers(len(far))]
    bump = box(width * random.uniform(0.6, 1, 3), at * (1 + 0.3 * width), random_rotation(random))
    share = 6 * (0.8 * width) ** 2 / 1.5  # of the area, roughly

    def sample(n: int, random: Random) -> Array:
        m = random.binomial(n, min(0.5, share))
        return np.concatenate((base.sample(n - m, random), on_triangles(bump, m, random)))

    return Shape(f"near-{base.name}", sample)


def repeated(random: Random) -> Shape:
    """Stand equal columns on a strip, which fits again when it is shifted by one."""
    n, gap = int(random.integers(4, 8)), random.uniform(0.12, 0.2)
    part, turn = random.uniform(0.04, 0.1, 3), rotation((0, 0, 1), random.uniform(0, 1.5))
    t = [box(np.array(((n + 1) * gap, 0.25, 0.0)))]
    t += [box(part, ((k - (n - 1) / 2) * gap, 0.03, part[2] / 2), turn) for k in range(n)]
    return of(f"repeated{n}", np.concatenate(t))


# Surfaces that slide on themselves.


def plane(random: Random) -> Shape:
    a, b = 1, random.uniform(0.3, 1)

    def sample(n: int, random: Random) -> Array:
        return np.c_[random.uniform(-0.5, 0.5, (n, 2)) * (a, b), np.zeros(n)]

    free = ((0, 0, 1, 0, 0, 0), (0, 0, 0, 1, 0, 0), (0, 0, 0, 0, 1, 0))
    return Shape("plane", sample, distance=lambda p: np.abs(p[:, 2]), free=free)


def cylinder(random: Random) -> Shape:
    radius, arc = random.uniform(0.1, 0.3), (1 if random.uniform() < 0.6 else random.uniform(0.4, 0.9))

    def sample(n: int, random: Random) -> Array:
        th = random.uniform(0, 2 * np.pi * arc, n)
        return np.c_[radius * np.cos(th), radius * np.sin(th), random.uniform(-0.5, 0.5, n)]

    def distance(p: Array) -> Array:
        return np.abs(np.hypot(p[:, 0], p[:, 1]) - radius)

    return Shape("cylinder", sample, distance=distance, free=((0, 0, 1, 0, 0, 0), (0, 0, 0, 0, 0, 1)))


def sphere(random: Random) -> Shape:
    low = -1 if random.uniform() < 0.5 else random.uniform(-0.6, 0.3)

    def sample(n: int, random: Random) -> Array:
        z, ph = random.uniform(low, 1, n), random.uniform(0, 2 * np.pi, n)
        return 0.4 * np.c_[np.sqrt(1 - z * z) * np.cos(ph), np.sqrt(1 - z * z) * np.sin(ph), z]

    free = ((1, 0, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0))
    return Shape("sphere", sample, distance=lambda p: np.abs(np.linalg.norm(p, axis=1) - 0.4), free=free)


def revolution(random: Random) -> Shape:
    """Turn a vase."""
    wave, phase = random.uniform(3, 8), random.uniform(0, 6)
    height, taper = random.uniform(0.1, 0.3), random.uniform(-0.4, 0.4)

    def profile(z: Array) -> Array:
        return 0.25 * (1 + height * np.sin(wave * z + phase) + taper * z)

    def sample(n: int, random: Random) -> Array:
        z, ph = random.uniform(-0.5, 0.5, 6 * n), random.uniform(0, 2 * np.pi, 6 * n)
        z = z[random.uniform(size=6 * n) < profile(z) / 0.5][:n]
        ph = ph[: len(z)]
        return np.c_[profile(z) * np.cos(ph), profile(z) * np.sin(ph), z]

    def distance(p: Array) -> Array:
        return np.abs(np.hypot(p[:, 0], p[:, 1]) - profile(p[:, 2]))

    return Shape("revolution", sample, distance=distance, free=((0, 0, 1, 0, 0, 0),))


def corridor(random: Random) -> Shape:
    """Build a floor and two walls, with a ceiling or without; or a channel with slanted sides."""
    wide, high = random.uniform(0.12, 0.4), random.uniform(0.12, 0.4)
    lid, slant = random.uniform() < 0.5, random.uniform(-0.2, 0.4)
    outline = [
        (-wide / 2 - slant * high, high),
        (-wide / 2, 0),
        (wide / 2, 0),
        (wide / 2 + slant * high, high),
    ]
    corners = np.array([*outline, outline[0]] if lid else outline)
    a, b = corners[:-1], corners[1:]
    length = np.linalg.norm(b - a, axis=1)

    def sample(n: int, random: Random) -> Array:
        k, s = random.choice(len(a), n, p=length / length.sum()), random.uniform(size=(n, 1))
        return np.c_[random.uniform(-0.5, 0.5, n), a[k] + s * (b[k] - a[k])]

    def distance(p: Array) -> Array:
        q = p[:, None, 1:] - a
        s = np.clip((q * (b - a)).sum(-1) / length**2, 0, 1)
        return np.linalg.norm(q - s[..., None] * (b - a), axis=-1).min(1)

    return Shape("corridor", sample, distance=distance, free=((0, 0, 0, 1, 0, 0),))


# Scenes.


def room(random: Random) -> Shape:
    """Build a floor, two to four walls, and furniture."""
    lx, ly, lz = 1, random.uniform(0.6, 1), random.uniform(0.3, 0.5)
    walls = [
        box(np.array((lx, 0.0, lz)), (0, ly / 2, lz / 2)),
        box(np.array((0.0, ly, lz)), (-lx / 2, 0, lz / 2)),
        box(np.array((lx, 0.0, lz)), (0, -ly / 2, lz / 2)),
        box(np.array((0.0, ly, lz)), (lx / 2, 0, lz / 2)),
    ]
    t = [box(np.array((lx, ly, 0.0))), *walls[: random.integers(2, 5)]]
    for _ in range(random.integers(2, 6)):
        size = random.uniform(0.08, 0.3, 3)
        at = (*(random.uniform(-0.4, 0.4, 2) * (lx, ly)), size[2] / 2)
        t.append(box(size, at, rotation((0, 0, 1), random.uniform(0, 1.5))))
    return of("room", np.concatenate(t) / 1.3)


def table(random: Random, meshes: Path | None) -> Shape:
    """Stand one small object on a plane: it alone says where."""
    name = SMALL[random.integers(3)]
    body = of(name, mesh(meshes, name)) if random.uniform() < 0.5 and meshes else assembly(random)
    low = body.sample(20_000, np.random.default_rng(0))[:, 2].min()
    size, at, share = random.uniform(0.15, 0.35), random.uniform(-0.2, 0.2, 2), random.uniform(0.12, 0.3)

    def sample(n: int, random: Random) -> Array:
        m = int(n * share)
        flat = np.c_[random.uniform(-0.36, 0.36, (n - m, 2)), np.zeros(n - m)]
        return np.concatenate((flat, (body.sample(m, random) - (0, 0, low)) * size + (*at, 0)))

    return Shape("table", sample)
