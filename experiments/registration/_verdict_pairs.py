"""Pairs of small clouds with known truth, each from its kind and its number alone.

    pair = make("partial", 7, meshes)
    pair.error(pose)                     # over the size, modulo symmetries and free motions

Clouds of 200 to 4,000 points, with noise of 0 to 2 % of the size, overlaps of 5 to 100 % by cuts or by two
views, outliers up to 30 %, densities of 1 to 10.
"""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from experiments.registration import _verdict_shapes as shapes
from experiments.registration._verdict_shapes import Array, Random, Shape

KINDS = {  # how many of 115
    "full": 8, "partial": 14, "views": 8, "noisy": 8, "outliers": 6, "density": 6,
    "different": 14, "mirror": 3, "scaled": 3,
    "symmetric": 8, "near-symmetric": 6, "repeated": 2,
    "plane": 4, "corridor": 4, "cylinder": 3, "sphere": 2, "revolution": 3,
    "room": 5, "table": 4, "low overlap": 4,
}  # fmt: skip
FREE = {
    "plane": shapes.plane,
    "corridor": shapes.corridor,
    "cylinder": shapes.cylinder,
    "sphere": shapes.sphere,
    "revolution": shapes.revolution,
}
WITHOUT = ("different", "mirror", "scaled")  # a right pose
AXES = {"plane": 0, "corridor": 0, "cylinder": 2, "revolution": 2, "repeated": 0}  # along which they are cut


@dataclass(frozen=True)
class Pair:
    kind: str
    number: int
    source: Array  # (N, 3)
    target: Array  # (M, 3)
    truth: Array  # (4, 4)
    shape: Shape
    possible: bool  # whether any pose is right
    free: Array  # (6, k): rotation vectors, and velocities of the origin, in the frame of the target
    clean: Array  # the source without noise and outliers
    frame: tuple[Array, Array]  # rotation and translation from the shape's frame to the target's
    place: Array  # rotation from the shape's frame to the source's
    size: float  # diagonal of the source, in its shape's frame

    def error(self, pose: Array) -> float:
        """Return the root mean square distance of the source's points from where they belong, over the size.

        That is from the endless surface, for one that has free motions, and infinite where no pose is right.
        """
        if not self.possible:
            return np.inf
        rotation, translation = self.frame
        if self.shape.distance is not None:
            moved = self.clean @ pose[:3, :3].T + pose[:3, 3]
            return float(
                np.sqrt(np.mean(self.shape.distance((moved - translation) @ rotation) ** 2)) / self.size
            )
        return min(rms(self.clean, pose, truth) for truth in self.truths()) / self.size

    def truths(self) -> list[Array]:
        """Return the right poses, one for each rotation of the shape's group."""
        rotation, translation = self.frame
        found = []
        for g in self.shape.group:
            truth = np.eye(4)
            truth[:3, :3], truth[:3, 3] = rotation @ g @ self.place.T, translation
            found.append(truth)
        return found


def rms(points: Array, first: Array, second: Array) -> float:
    d = points @ (first - second)[:3, :3].T + (first - second)[:3, 3]
    return float(np.sqrt((d * d).sum(1).mean()))


def kinds(count: int) -> list[str]:
    """Return the kind of each number, in the shares of `KINDS`."""
    names = [kind for kind, n in KINDS.items() for _ in range(n)]
    order = np.random.default_rng(5).permutation(len(names))
    return [names[order[i % len(names)]] for i in range(count)]


@dataclass
class _Plan:
    """How many points of each cloud, what is done to them, and what is kept of them."""

    n: int
    m: int
    noise: float
    outliers: float = 0.0
    crop: tuple[str, float] | None = None
    factor: float = 1.0


def make(kind: str, number: int, meshes: Path | None) -> Pair:
    """Draw a pair; objects are meshes in four of ten where a folder of them is given."""
    random = np.random.default_rng([sorted(KINDS).index(kind), number])
    n, m = map(int, random.integers(500, 2500, 2))
    plan = _Plan(n, m, random.choice([0, 0.001, 0.003, 0.006]) * random.uniform(0.5, 1.5))
    shape = other = _shape(kind, random, meshes)
    if kind in ("different", "symmetric", "near-symmetric", "mirror", "scaled"):
        shape, other = _mixed(kind, shape, plan, random, meshes)
    else:
        _planned(kind, plan, random)
    a, b = shape.sample(8 * plan.n, random), other.sample(8 * plan.m, random)
    b = b * ((-1, 1, 1) if kind == "mirror" else 1) * plan.factor
    keep = _kept(kind, a, b, plan, random)
    chosen = ((a, keep[0], plan.n), (b, keep[1], plan.m))
    a, b = (cloud[kept][random.permutation(kept.sum())[:count]] for cloud, kept, count in chosen)
    place, turn = shapes.random_rotation(random), shapes.random_rotation(random)
    shift = random.uniform(-1, 1, 3)
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = turn @ place.T, shift
    both = _disturbed(a, plan, random) @ place.T, _disturbed(b, plan, random) @ turn.T + shift
    free = [
        [*(turn @ w[:3]), *(turn @ w[3:] + np.cross(shift, turn @ w[:3]))]
        for w in np.array(shape.free, float).reshape(-1, 6)
    ]
    size = float(np.linalg.norm(a.max(0) - a.min(0)))
    possible, frame = kind not in WITHOUT, (turn, shift)
    twists = np.array(free).reshape(-1, 6).T
    clean = a @ place.T
    return Pair(kind, number, *both, truth, shape, possible, twists, clean, frame, place, size)


def of_different_meshes(number: int, meshes: Path) -> Pair:
    """Draw 300 to 8,000 points of each of two meshes of one size, turned at random: no pose is right.

    All ordered pairs of different meshes come by turns.
    """
    pairs = list(permutations(shapes.ALL, 2))
    random = np.random.default_rng([len(KINDS), number])
    names = pairs[number % len(pairs)]
    clouds = []
    for name in names:
        count = int(np.exp(random.uniform(np.log(300), np.log(8000))))
        points = shapes.on_triangles(shapes.mesh(meshes, name), count, random)
        clouds.append(points @ shapes.random_rotation(random).T)
    a, b = clouds
    size, still = float(np.linalg.norm(np.ptp(a, axis=0))), (np.eye(3), np.zeros(3))
    shape = Shape(" on ".join(names), lambda n, random: a[:n])
    return Pair(
        "different", number, a, b, np.eye(4), shape, False, np.zeros((6, 0)), a, still, np.eye(3), size
    )


def _shape(kind: str, random: Random, meshes: Path | None) -> Shape:
    if kind in FREE:
        return FREE[kind](random)
    if kind == "table":
        return shapes.table(random, meshes)
    makers = {
        "near-symmetric": shapes.nearly_symmetric,
        "symmetric": shapes.symmetric,
        "room": shapes.room,
        "repeated": shapes.repeated,
    }
    return makers[kind](random) if kind in makers else shapes.thing(random, meshes)


def _planned(kind: str, plan: _Plan, random: Random) -> None:
    uniform = random.uniform
    if kind == "partial":
        plan.crop = "cut", uniform(0.3, 0.9)
    elif kind == "views":
        plan.crop = "view", np.radians(uniform(20, 75))
    elif kind == "noisy":
        plan.noise = uniform(0.006, 0.02)
        plan.crop = ("cut", uniform(0.6, 0.95)) if uniform() < 0.3 else None
    elif kind == "outliers":
        plan.outliers = uniform(0.05, 0.3)
        plan.crop = ("cut", uniform(0.5, 0.95)) if uniform() < 0.5 else None
    elif kind == "density":
        n, m = int(random.integers(400, 800)), int(random.integers(2500, 4000))
        plan.n, plan.m = (n, m) if uniform() < 0.5 else (m, n)
        plan.crop = ("cut", uniform(0.5, 0.95)) if uniform() < 0.5 else None
    elif kind == "low overlap":
        plan.crop = "cut", uniform(0.05, 0.2)
    elif kind in FREE:
        plan.noise = random.choice([0, 0.001, 0.003, 0.01]) * uniform(0.5, 1)
        plan.crop = ("slide", uniform(0.4, 1)) if kind != "sphere" else None
    elif kind in ("room", "table"):
        plan.noise = uniform(0.0005, 0.004)
        plan.n, plan.m = map(int, random.integers(1500, 3000, 2))
        plan.crop = ("cut", uniform(0.5, 0.95)) if kind == "room" else ("patch", 0.0)
    elif kind == "repeated":
        plan.crop = ("slide", uniform(0.4, 0.8)) if uniform() < 0.5 else None
        plan.n, plan.m = map(int, random.integers(1500, 2500, 2))


def _mixed(kind: str, shape: Shape, plan: _Plan, random: Random, meshes: Path | None) -> tuple[Shape, Shape]:
    """Plan a pair that may be whole, cut, seen, noisy or with outliers, and return what is sampled."""
    uniform, p = random.uniform, random.uniform()
    if p < 0.2:
        plan.crop = "cut", uniform(0.6, 0.95)
    elif p < 0.3:
        plan.crop = "view", np.radians(uniform(20, 60))
    if uniform() < 0.2:
        plan.noise = uniform(0.006, 0.015)
    if uniform() < 0.15:
        plan.outliers = uniform(0.05, 0.2)
    other = shape
    if kind == "different":
        if uniform() < 0.3:
            plan.n, plan.m = int(random.integers(200, 600)), int(random.integers(1500, 4000))
        other = shapes.symmetric(random) if random.integers(3) == 2 else shapes.thing(random, meshes)
        while other.name == shape.name and other.name in shapes.MESHES:
            other = shapes.thing(random, meshes)
        if uniform() < 0.3:
            shape, other = other, shape
    if kind == "scaled":
        plan.factor = random.choice([uniform(0.85, 0.94), uniform(1.06, 1.18)])
    if kind in ("mirror", "scaled"):  # of those that keep nothing of themselves when mirrored or stretched
        makers = shapes.blob, shapes.tube if kind == "mirror" else shapes.assembly
        shape = other = makers[random.integers(2)](random)
        plan.noise = min(plan.noise, 0.006)
    return shape, other


def _kept(kind: str, a: Array, b: Array, plan: _Plan, random: Random) -> tuple[Any, Any]:
    """Return which points of both are seen."""
    how, amount = plan.crop or ("", 0.0)
    if how in ("cut", "slide"):
        axis = random.normal(size=3)
        if how == "slide":
            axis = np.eye(3)[AXES[kind]]
        share = 0.5 * amount / (1 - amount / 2)  # of all, for `amount` of what each keeps
        ha, hb = a @ axis, b @ axis
        return ha < np.quantile(hb, 0.5 + share / 2), hb > np.quantile(hb, 0.5 - share / 2)
    if how == "view":
        v = random.normal(size=3)
        w = shapes.rotation(np.cross(v, random.normal(size=3)), amount) @ v
        return _visible(a, v, 0.02), _visible(b, w, 0.02)
    if how == "patch":  # other parts of the table; the object is in both
        u, v = random.normal(size=(2, 3)) * (1, 1, 0)
        return tuple(
            (cloud[:, 2] > 1e-9) | (cloud @ w > -0.25 * np.linalg.norm(w)) for cloud, w in ((a, u), (b, v))
        )
    return np.ones(len(a), bool), np.ones(len(b), bool)


def _visible(points: Array, direction: Array, cell: float) -> Any:
    """Return which points nothing lies before, seen from afar."""
    z = direction / np.linalg.norm(direction)
    x = np.cross(z, [0.3, 0.5, 0.8] if abs(z[0]) < 0.9 else [0, 1, 0])
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    i, j = (np.floor(points @ axis / cell).astype(int) for axis in (x, y))
    i, j, d = i - i.min() + 1, j - j.min() + 1, points @ z
    front = np.full((i.max() + 2, j.max() + 2), -np.inf)
    np.maximum.at(front, (i, j), d)
    wide = np.max([np.roll(front, s, (0, 1)) for s in np.ndindex(2, 2)], 0)
    return d > wide[i, j] - 2.5 * cell


def _disturbed(points: Array, plan: _Plan, random: Random) -> Array:
    """Add noise and outliers, in any order."""
    p = points + plan.noise * random.normal(size=points.shape)
    low, high = p.min(0), p.max(0)
    border = 0.1 * (high - low)
    extra = int(plan.outliers / (1 - plan.outliers) * len(p))
    p = np.concatenate((p, random.uniform(low - border, high + border, (extra, 3))))
    return p[random.permutation(len(p))]
