"""The optimizers that the laws in `test_optim.py` and `muon_worker.py` hold for: ours, and toys of the hooks.

A toy is written as a user would write it, with public names only. Whoever is in OPTIMIZERS goes through all
laws, in one process and in two.
"""

from typing import ClassVar

from svdrot.optim import ROOT, MiMuon, Muon, MuonEq, elementwise, per_entry, per_matrix, per_row, update_only


class NorMuon(Muon):
    """Muon whose directions have rows of one size, by a running mean of their squares: NorMuon's rule."""

    direction_state: ClassVar = {"row_square": per_row}

    def __init__(self, params, lr=0.02, *, beta2=0.95, **options):
        super().__init__(params, lr, extra={"beta2": beta2}, **options)

    def check_options(self, group):
        if not 0 <= group["beta2"] < 1:
            raise ValueError(f"`beta2` must be in [0, 1); got {group['beta2']}.")

    @update_only
    def direction(self, update, stack):
        found = super().direction(update, stack)
        square = found.square().mean(-1, keepdim=True)
        square = stack.state["row_square"].lerp_(square, 1 - stack.group["beta2"])
        even = found / (square.sqrt() + 1e-10)
        return even * (found.norm(dim=(1, 2), keepdim=True) / (even.norm(dim=(1, 2), keepdim=True) + 1e-10))


class MVR1(Muon):
    """Muon whose gradients are corrected by their change since the last step: Muon-MVR1's rule."""

    momentum_state: ClassVar = Muon.momentum_state | {"last_gradient": per_entry}

    def __init__(self, params, lr=1e-3, *, gamma=0.025, **options):
        super().__init__(params, lr, extra={"gamma": gamma}, **options)

    def momentum(self, stack):
        mu, gradient, last = stack.group["momentum"], stack.gradient, stack.state["last_gradient"]
        corrected = gradient + stack.group["gamma"] * mu / (1 - mu) * (gradient - last)
        corrected = corrected / corrected.norm(dim=(1, 2), keepdim=True).clamp(min=1)
        stack.state["last_gradient"] = gradient
        return stack.state["momentum_buffer"].lerp_(corrected, 1 - mu)


class Mixed(Muon):
    """Muon with a share of the gradient, a mean, and shorter steps for large entries: it reads all."""

    direction_state: ClassVar = {"steps": per_matrix, "mean": per_entry}

    def direction(self, update, stack):
        stack.state["steps"] += 1
        largest = stack.gradient.abs().amax((1, 2), keepdim=True)
        found = super().direction(update, stack) + stack.gradient / largest.clamp(min=1e-37)
        stack.state["mean"] = (found + stack.state["mean"]) / 2
        return stack.state["mean"] / (1 + stack.parameter.abs()) / stack.state["steps"].sqrt()


class Descent(Muon):
    """Gradient descent: no state, no direction."""

    momentum_state: ClassVar = {}

    @elementwise
    def momentum(self, stack):
        return stack.gradient

    @update_only
    def direction(self, update, stack):
        return update


class LossScaled(Muon):
    """Muon with steps along the root of the loss, where a closure gives one."""

    def direction(self, update, stack):
        scale = 1 if stack.loss is None else stack.loss**0.5
        return scale * super().direction(update, stack)


OPTIMIZERS = {
    "Muon": Muon,
    "MuonEq": MuonEq,
    "MiMuon": lambda params, lr=1e-3, **options: MiMuon(params, lr, tau=1e-3, **options),
    "ROOT": ROOT,
    "NorMuon": NorMuon,
    "MVR1": MVR1,
    "Mixed": Mixed,
    "Descent": Descent,
    "LossScaled": LossScaled,
}
