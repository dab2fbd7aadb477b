"""What the trainings of `muon_pose` say of its optimizers: a verdict and a figure."""

from typing import Any

from matplotlib.figure import Figure

from experiments.shared import figures
from experiments.shared.statistics import comparison, holds

TWICE = "AdamW, twice the steps"
COLORS = {
    "AdamW": "#000000",
    "Muon": "#D55E00",
    "MuonEq": "#E69F00",
    "MiMuon, tau 1e-6": "#0072B2",
    "MiMuon, tau 1e-4": "#56B4E9",
    "ROOT": "#009E73",
    TWICE: "#777777",
}


def verdict(rows: dict[str, Any]) -> str:
    by_name = {row["optimizer"]: row for row in rows["final"]}
    adamw, twice = by_name["AdamW"], by_name[TWICE]
    seeds = len({row["seed"] for row in rows["seeds"]})
    text = [
        f"Means of the seeds, of which there are {seeds}, and in brackets their range. AdamW ends at a mean"
        f" error of {adamw['mean deg']:.2f} degrees ({adamw['lowest']:.2f} to {adamw['highest']:.2f})."
    ]
    others = [row for row in rows["final"] if row is not adamw]
    for row in others:
        said, cost = comparison(row, adamw), row["ms per step"] / adamw["ms per step"]
        text.append(
            f"{row['optimizer']}: {row['mean deg']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f}),"
            f" {row['over AdamW']:.2f} of AdamW's seed by seed ({row['lowest ratio']:.2f} to"
            f" {row['highest ratio']:.2f}), **{said}**"
            f" {'against' if said == 'undecided' else 'than'} AdamW"
            f"{'' if row is twice else f', at {cost:.1f} times the time a step'}."
        )
    if "Muon" in by_name:
        muon = by_name["Muon"]
        ahead = muon["over AdamW"] <= 0.9 and comparison(muon, adamw) == "better"
        text.append(f"Expected Muon ahead of AdamW by 10 % or more: {holds(ahead)}")
        for row in others:
            name, ratio, said = row["optimizer"], row["mean deg"] / muon["mean deg"], comparison(row, muon)
            if name == "MuonEq":
                text.append(
                    f"MuonEq within 10 % of Muon: the ratio of their means is {ratio:.2f} ({said})."
                    f" {holds(abs(ratio - 1) <= 0.1)}"
                )
            if name.startswith("MiMuon"):
                between = sorted([muon["mean deg"], adamw["mean deg"]])
                text.append(
                    f"{name} between Muon and AdamW, with {row['orthogonalized']:.0%} of its matrix steps"
                    f" orthogonalized: {holds(between[0] <= row['mean deg'] <= between[1])}"
                )
            if name == "ROOT":
                text.append(
                    f"ROOT not ahead of Muon: the ratio is {ratio:.2f} ({said}). {holds(said != 'better')}"
                )
    for said in ("better", "worse"):
        names = [row["optimizer"] for row in others if comparison(row, twice) == said]
        text.append(f"{said.capitalize()} than AdamW with twice the steps: {', '.join(names) or 'none'}.")
    edge = sorted({row["optimizer"] for row in rows["tuning"] if not row["inside the grid"]})
    if edge:
        text.append(f"The best rate lies at the edge of the grid for {', '.join(edge)}.")
    return " ".join(text)


def figure(rows: dict[str, Any]) -> Figure:
    panels = Figure(figsize=(15, 4.6), layout="constrained")
    grid, curves, final = panels.subplots(1, 3)

    for name in dict.fromkeys(row["optimizer"] for row in rows["tuning"]):
        tried = [row for row in rows["tuning"] if row["optimizer"] == name]
        rates, errors = [row["rate"] for row in tried], [row["mean deg"] for row in tried]
        grid.plot(rates, errors, "o-", ms=4, color=COLORS[name])
        for row in tried:
            if row["chosen"]:
                grid.plot(row["rate"], row["mean deg"], "o", ms=10, mfc="none", color=COLORS[name])
    grid.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="mean error, degrees")
    grid.set_title("learning rates, short training; ring: chosen")

    for name, of_seeds in rows["curves"].items():
        if all(of_seeds):
            style = {"ls": ":" if name == TWICE else "-", "label": name}
            figures.curve_band(curves, of_seeds, "loss", COLORS[name], **style)
    curves.set(xlabel="step", ylabel="training loss", yscale="log")
    curves.set_title("training loss: mean and range over seeds")
    curves.legend(fontsize=8)

    for i, row in enumerate(rows["final"]):
        name = row["optimizer"]
        errors = [other["mean deg"] for other in rows["seeds"] if other["optimizer"] == name]
        figures.seeds_and_mean(final, i, errors, COLORS[name])
    labels = [f"{row['optimizer']}\n{row['ms per step']:.1f} ms a step" for row in rows["final"]]
    final.set_yticks(range(len(labels)), labels)
    final.set_ylim(len(labels) - 0.5, -0.5)
    final.set(xlabel="mean error, degrees")
    final.set_title("held out: seeds and mean")
    for axis in (grid, curves):
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    for axis in (grid, curves, final):
        axis.grid(alpha=0.3, which="both")
    return panels
