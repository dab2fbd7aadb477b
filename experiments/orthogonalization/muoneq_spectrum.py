r"""What does equilibrating a momentum do to its spectrum, to Newton-Schulz, and to the direction?

"MuonEq", arXiv 2603.28254: rows ("r", its default), columns ("c") or both ("rc") of the momentum are divided
by their norms before Newton-Schulz. "aol" is the scaling of Turbo-Muon, rows divided by $(\sum_j |X
X^T|_{ij})^{1/2}$. The language models of the paper are out of reach here, and their losses are not compared
with.

Expected, for a 256 x 512 Gaussian matrix whose rows are scaled log-normally with deviation 1.5 and whose
columns with 0.5 (one trial; rms (p - 1) over the singular values after five steps, Keller Jordan's and Polar
Express'):

    mode   stable rank   condition   rms Jordan   rms Express
    none       2.1         12531        0.363         0.245
    r         28.8            14        0.180         0.093
    c          2.9          7905        0.319         0.199
    rc        72.8             7        0.179         0.094
    aol       16.0            95        0.190         0.094

so that "r" raises the stable rank more than 10 times, lowers the condition more than 100 times and the first
rms about 2 times, and "c" little, where it is the rows that differ. The direction changes as well: the cosine
of the polar factors is 0.946 for "r" and 0.992 for "aol".

Those rows differ because they are made to. The same figures of what Muon orthogonalizes in the training of
`muon_pose`, in its three matrices, along its steps, say what is left of that on momenta as they come.
Expected: much less; another measurement, of one network, had the condition only 1.6 times down.

In training: a network of two layers on a synthetic task whose inputs, and so the columns of the first
weights, differ in scale, every learning rate for every mode. Expected: at its best rate, the loss of "r"
after as many steps is not above Muon's.

    python -m experiments.orthogonalization.muoneq_spectrum

It makes the published results with --out experiments/results/orthogonalization/muoneq_spectrum.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments import shared
from experiments.orthogonalization import muon_pose
from experiments.shared.settings import Count, NotNegative, Out, Part, Positive, Settings
from experiments.shared.statistics import met
from svdrot.optim import STEP_SIZES, equilibrate
from svdrot.polar import newton_schulz
from svdrot.schedules import KELLER_JORDAN, POLAR_EXPRESS_5

MODES = ("none", "r", "c", "rc", "aol")
COLORS = dict(zip(MODES, ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7"), strict=True))


@dataclass(frozen=True)
class Config(Settings):
    seeds: Count = 5
    """Matrices in the table."""
    rows: Count = 256
    columns: Count = 512
    row_spread: NotNegative = 1.5
    """Deviation of the logarithm of the scales."""
    column_spread: NotNegative = 0.5
    training_seeds: Count = 3
    samples: Count = 4096
    inputs: Count = 64
    hidden: Count = 128
    classes: Count = 10
    input_spread: NotNegative = 1.5
    """Deviation of the logarithm of the inputs' scales."""
    steps: Count = 200
    batch: Count = 256
    momentum: Part = 0.95
    rates: tuple[Positive, ...] = (0.01, 0.02, 0.04, 0.08)
    """Learning rates, times 0.2 sqrt(max(m, n))."""
    pose_seeds: Count = 3
    """Trainings of `muon_pose` whose momenta are taken."""
    pose_steps: Count = 500
    pose_clouds: Count = 16
    pose_points: Count = 32
    pose_momenta: Count = 10
    """Evenly along each training, the last one at its end."""
    out: Out = Path("runs/orthogonalization/muoneq_spectrum")


def scaled(x: Tensor, mode: str) -> Tensor:
    if mode == "none":
        return x
    if mode == "aol":
        return x * (x @ x.mT).abs().sum(-1, keepdim=True).rsqrt()
    return equilibrate(x, mode)


Found = dict[str, list[dict[str, float]]]  # figures of many matrices, by mode


def figures(matrices: Iterable[Tensor]) -> tuple[Found, dict[str, Tensor]]:
    """Measure matrices, and return the first one's singular values over its norm, too."""
    found: Found = {mode: [] for mode in MODES}
    first: dict[str, Tensor] = {}
    for x in matrices:
        u, _, vh = torch.linalg.svd(x, full_matrices=False)
        plain = u @ vh
        for mode in MODES:
            u, s, vh = torch.linalg.svd(scaled(x, mode), full_matrices=False)
            s = s / s.norm()
            rms = {}
            for name, schedule in (("Jordan", KELLER_JORDAN), ("Express", POLAR_EXPRESS_5)):
                p = newton_schulz(torch.diag(s), schedule).diagonal()
                rms[f"rms {name}"] = (p - 1).square().mean().sqrt().item()
            found[mode].append(
                {"stable rank": (1 / s[0] ** 2).item(), "condition": (s[0] / s[-1]).item()}
                | rms
                | {"cosine": ((u @ vh) * plain).sum().item() / len(s)}
            )
            first.setdefault(mode, s)
    return found, first


def medians(found: Found) -> list[dict[str, Any]]:
    return [
        {"mode": mode} | {name: _column(many, name).median().item() for name in many[0]}
        for mode, many in found.items()
    ]


def ratios(found: Found) -> list[dict[str, Any]]:
    """Return how much each mode improves each figure, matrix by matrix."""
    rows = []
    for mode in MODES[1:]:
        for name in ("stable rank", "condition", "rms Jordan", "rms Express"):
            gain = _column(found[mode], name) / _column(found["none"], name)
            up = name == "stable rank"
            gain = gain if up else 1 / gain
            rows.append(
                {"mode": mode, "of": name, "to be": "up" if up else "down"}
                | {
                    "median": gain.median().item(),
                    "smallest": gain.min().item(),
                    "largest": gain.max().item(),
                }
            )
    return rows


def _column(many: list[dict[str, float]], name: str) -> Tensor:
    return torch.tensor([one[name] for one in many])


def put_in(config: Config) -> Iterator[Tensor]:
    """Draw matrices whose rows and columns differ as the settings say."""
    for seed in range(config.seeds):
        generator = torch.Generator().manual_seed(seed)
        a, b = (
            torch.randn(n, generator=generator, dtype=torch.float64) for n in (config.rows, config.columns)
        )
        gauss = torch.randn(config.rows, config.columns, generator=generator, dtype=torch.float64)
        yield (config.row_spread * a).exp()[:, None] * gauss * (config.column_spread * b).exp()


def momenta(config: Config) -> dict[str, list[Tensor]]:
    """Return by layer what Muon orthogonalizes in the trainings of `muon_pose`, at its rates there."""
    setting = muon_pose.Config(steps=config.pose_steps, clouds=config.pose_clouds, points=config.pose_points)
    taken = {
        math.ceil(config.pose_steps * i / config.pose_momenta) for i in range(1, config.pose_momenta + 1)
    }
    found: dict[str, list[Tensor]] = {}
    for seed in range(config.pose_seeds):
        run = muon_pose.Run("Muon", -2, -4, seed, config.pose_steps, tuning=False)
        training = muon_pose.begin(setting, run)
        while training.step < config.pose_steps:
            training.advance()
            if training.step not in taken:
                continue
            for group in training.optimizer.param_groups[:-1]:  # the last one is AdamW's
                for name, p in zip(group["param_names"], group["params"], strict=True):
                    buffer = training.optimizer.state[p]["momentum_buffer"]
                    update = p.grad.lerp(buffer, group["momentum"])  # Nesterov's
                    found.setdefault(f"{name}, {p.shape[0]} x {p.shape[1]}", []).append(update.double())
    return found


def train(config: Config) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return losses (steps, rates, seeds) by mode, all runs of a mode as one batch of networks."""
    rates = torch.tensor(config.rates).repeat_interleave(config.training_seeds)[:, None, None]
    curves = {}
    for mode in MODES:
        data, weights, generators = _tasks(config)
        x, labels = (part.repeat(len(config.rates), *[1] * (part.ndim - 1)) for part in data)
        weights = [w.repeat(len(config.rates), 1, 1).requires_grad_() for w in weights]
        momenta = [torch.zeros_like(w) for w in weights]
        losses = []
        for _ in range(config.steps):
            pick = torch.stack(
                [torch.randint(config.samples, (config.batch,), generator=g) for g in generators]
            ).repeat(len(config.rates), 1)
            inputs = x.gather(1, pick[:, :, None].expand(-1, -1, config.inputs))
            losses.append(_losses(weights, inputs, labels.gather(1, pick)))
            gradients = torch.autograd.grad(losses[-1].sum(), weights)
            with torch.no_grad():
                for w, m, g in zip(weights, momenta, gradients, strict=True):
                    m.mul_(config.momentum).add_(g)
                    update = scaled(g + config.momentum * m, mode)
                    size = STEP_SIZES["match_rms_adamw"](*w.shape[-2:])
                    w -= rates * size * newton_schulz(update, KELLER_JORDAN)
        with torch.no_grad():
            full = _losses(weights, x, labels)
        curves[mode] = torch.stack([*(loss.detach() for loss in losses), full]).unflatten(
            1, (len(config.rates), config.training_seeds)
        )
    rows = []
    for mode, curve in curves.items():
        final = curve[-1]  # (rates, seeds), over all samples
        for rate, values in zip(config.rates, final, strict=True):
            rows.append(
                {"mode": mode, "rate": rate, "loss": values.mean().item()}
                | {f"seed {i}": value for i, value in enumerate(values.tolist())}
            )
    return rows, curves


def _tasks(config: Config) -> tuple[tuple[Tensor, Tensor], list[Tensor], list[torch.Generator]]:
    """Draw inputs and labels of a random network of the same size, and where to start, by seed."""
    made = []
    generators = [torch.Generator().manual_seed(100 + seed) for seed in range(config.training_seeds)]
    for generator in generators:

        def gauss(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator)

        z = gauss(config.samples, config.inputs)
        teacher = gauss(config.hidden, config.inputs) / math.sqrt(config.inputs)
        labels = ((z @ teacher.mT).relu() @ gauss(config.classes, config.hidden).mT).argmax(-1)
        scales = (config.input_spread * gauss(config.inputs)).exp()
        x = z * scales / scales.square().mean().sqrt()
        first = gauss(config.hidden, config.inputs) * math.sqrt(2 / config.inputs)
        second = gauss(config.classes, config.hidden) * math.sqrt(1 / config.hidden)
        made.append((x, labels, first, second))
    x, labels, first, second = (torch.stack(parts) for parts in zip(*made, strict=True))
    return (x, labels), [first, second], generators


def _losses(weights: list[Tensor], x: Tensor, labels: Tensor) -> Tensor:
    logits = (x @ weights[0].mT).relu() @ weights[1].mT
    return torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none").mean(-1)


def run(config: Config) -> dict[str, Any]:
    table, first = figures(put_in(config))
    by_layer = {layer: figures(matrices)[0] for layer, matrices in momenta(config).items()}
    together = {mode: [one for found in by_layer.values() for one in found[mode]] for mode in MODES}
    losses, curves = train(config)
    return {
        "spectra": medians(table),
        "ratios": ratios(table),
        "momenta": [{"layer": layer} | row for layer, found in by_layer.items() for row in medians(found)],
        "ratios of momenta": ratios(together),
        "singular values": first,
        "training": losses,
        "curves": curves,
    }


def best(rows: dict[str, Any], mode: str) -> dict[str, Any]:
    """Return the row of a mode with the smallest mean loss."""
    return min((row for row in rows["training"] if row["mode"] == mode), key=lambda row: row["loss"])


def _by_seed(row: dict[str, Any]) -> list[float]:
    return [value for name, value in row.items() if name.startswith("seed")]


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(12, 7.4), layout="constrained")
    axes = panels.subplots(2, 2)
    first = rows["singular values"]
    for mode, s in first.items():
        axes[0, 0].semilogy(range(1, len(s) + 1), s, color=COLORS[mode], label=mode)
    axes[0, 0].set(xlabel="singular value", ylabel="over the Frobenius norm", title="Spectra before")
    for mode, s in first.items():
        p = newton_schulz(torch.diag(s), KELLER_JORDAN).diagonal()
        axes[0, 1].plot(range(1, len(s) + 1), p.sort(descending=True).values, color=COLORS[mode], label=mode)
    axes[0, 1].axhline(1, color="#999999", lw=0.8)
    axes[0, 1].set(
        xlabel="singular value", ylabel="after five of Jordan's steps", title="Spectra after", ylim=0
    )
    for mode in MODES:
        found = [row for row in rows["training"] if row["mode"] == mode]
        losses = [_by_seed(row) for row in found]
        spread = [
            [row["loss"] - min(values) for row, values in zip(found, losses, strict=True)],
            [max(values) - row["loss"] for row, values in zip(found, losses, strict=True)],
        ]
        axes[1, 0].errorbar(
            [row["rate"] for row in found],
            [row["loss"] for row in found],
            spread,
            fmt="o-",
            capsize=3,
            lw=1,
            markersize=4,
            color=COLORS[mode],
            label=mode,
        )
    axes[1, 0].set(xscale="log", xlabel="learning rate", ylabel="final loss, mean and range of seeds", ylim=0)
    axes[1, 0].set_title("Training, by learning rate")
    rates = sorted({row["rate"] for row in rows["training"]})
    axes[1, 0].set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes[1, 0].minorticks_off()
    for mode, curve in rows["curves"].items():
        rate = best(rows, mode)["rate"]
        mean = curve[:-1, rates.index(rate)].mean(-1)
        window = max(1, len(mean) // 25)
        smooth = mean[: len(mean) // window * window].view(-1, window).mean(1)
        steps = [(i + 0.5) * window for i in range(len(smooth))]
        axes[1, 1].plot(steps, smooth, color=COLORS[mode], label=f"{mode}, {rate:g}")
    axes[1, 1].set(xlabel="step", ylabel="loss, mean of runs and steps", ylim=0)
    axes[1, 1].set_title("Training, at the best rate")
    for axis in axes.flat:
        axis.legend(fontsize=8)
    return panels


def verdict(rows: dict[str, Any]) -> str:
    _, r, _, rc, aol = rows["spectra"]
    gain = {(row["mode"], row["of"]): row for row in rows["ratios"]}
    rank, condition, jordan = (gain["r", of] for of in ("stable rank", "condition", "rms Jordan"))
    alone = [gain["c", of]["median"] for of in ("stable rank", "condition", "rms Jordan")]
    muon, row = best(rows, "none"), best(rows, "r")
    ahead = [a - b for a, b in zip(_by_seed(muon), _by_seed(row), strict=True)]
    mean = sum(ahead) / len(ahead)
    real = {(row["mode"], row["of"]): row for row in rows["ratios of momenta"]}
    down, other = real["r", "condition"], real["r", "stable rank"]
    conditions = {(row["layer"], row["mode"]): row["condition"] for row in rows["momenta"]}
    layers = ", ".join(
        f"{conditions[layer, 'none']:.3g} to {conditions[layer, 'r']:.3g} ({layer})"
        for layer, mode in conditions
        if mode == "none"
    )
    cosines = [row["cosine"] for row in rows["momenta"] if row["mode"] == "r"]
    return (
        f"Rows that are made to differ, equilibrated, medians of the ratios: stable rank"
        f" {rank['median']:.3g} times up ({met(rank['median'] > 10)}, above 10; from"
        f" {rank['smallest']:.3g} to {rank['largest']:.3g}, as the few largest scales happen to be),"
        f" condition {condition['median']:.3g} times down"
        f" ({met(condition['median'] > 100)}, above 100), Jordan's rms {jordan['median']:.2f} times down"
        f" ({met(1.6 < jordan['median'] < 2.6)}, about 2). Columns alone: {alone[0]:.2f}, {alone[1]:.2f} and"
        f" {alone[2]:.2f} times ({met(max(alone) < 3)}, little). Cosine with the polar factor of the matrix"
        f" itself: {r['cosine']:.3f} for r, {rc['cosine']:.3f} for rc, {aol['cosine']:.3f} for aol, so these"
        f" are other directions, not the same one faster. On momenta of Muon in the training of `muon_pose`"
        f" rows equilibrated bring the condition {down['median']:.3g} times down"
        f" ({met(down['median'] < 10)}, much less; from {down['smallest']:.3g} to {down['largest']:.3g}), in"
        f" medians of layers from {layers}, the"
        f" stable rank {other['median']:.3g} times up and Jordan's rms"
        f" {real['r', 'rms Jordan']['median']:.2f} times down, with cosines of {min(cosines):.3f} to"
        f" {max(cosines):.3f} in the medians of layers. Training: r ends at {row['loss']:.4f} (rate"
        f" {row['rate']:g}), Muon at {muon['loss']:.4f} (rate {muon['rate']:g}); r is lower by {mean:.4f} in"
        f" the mean of {len(ahead)} seeds ({met(mean >= 0)}, not above), and by {min(ahead):.4f} to"
        f" {max(ahead):.4f} in each; so few seeds have no standard error that means anything. In a task"
        f" where it is columns that differ, c ends at {best(rows, 'c')['loss']:.4f}, rc at"
        f" {best(rows, 'rc')['loss']:.4f}."
    )


def main(config: Config) -> None:
    rows = run(config)
    per_layer = config.pose_seeds * config.pose_momenta
    tables = {
        f"Medians of {config.seeds} matrices, {config.rows} x {config.columns}": rows["spectra"],
        "Ratios to the matrix as it is": rows["ratios"],
        f"Medians of {per_layer} momenta of Muon in each layer of `muon_pose`": rows["momenta"],
        f"Ratios to the momentum as it is, {per_layer} of each layer": rows["ratios of momenta"],
        f"Loss over all samples after {config.steps} steps": rows["training"],
    }
    shared.results.write(config.out, config, tables, figure(rows), verdict(rows))


if __name__ == "__main__":
    shared.run.main(main, Config(), __doc__)
