"""Muon, and AdamW for what is not a matrix."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, which torch's own optimizers are made of, are private in name only.

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from svdrot._checks import check_floating
from svdrot._precision import compute_dtype, no_autocast
from svdrot.polar import check_steps, newton_schulz
from svdrot.schedules import POLAR_EXPRESS, Schedule

from ._tensors import gradient, grouped, local, owners, portions, shard, whole
from .views import MatrixView, viewed

# Over the learning rate, of a matrix of m rows and n columns; names of torch.optim.Muon. The first is from
# Jordan et al.; the second, of Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, gives the
# root mean square of AdamW's updates, so that learning rates and weight decays found for AdamW apply.
STEP_SIZES: dict[str, Callable[[int, int], float]] = {
    "original": lambda m, n: math.sqrt(max(1, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}

ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8}  # of torch.optim.AdamW

SEVEN_STEPS = POLAR_EXPRESS[:7]  # 1e-5 from 1; the eighth is for machine precision

# Options that describe the model and the machine, not the training: they stay out of state dicts.
NOT_STATE = ("view", "schedule", "process_group")


class Muon(Optimizer):
    r"""Momentum of each matrix, replaced by its polar factor: $W \leftarrow (1 - \eta\lambda) W - \eta\, s\,
    \mathrm{polar}(M)$ with $M \leftarrow \mu M + (1 - \mu) G$ and a step size $s$ of the shape.

    With `schedule=KELLER_JORDAN, dtype=torch.bfloat16` it is torch.optim.Muon up to rounding, and loads its
    state dicts. All options can be set per parameter group, and all parameters of one shape in a group are
    taken together. Gradients are only read, and their scale changes nothing; parameters without one are left
    alone. Directions in which a matrix has no momentum get no step but the rounding of the others, which
    schedules enlarge, and the zero gradient none at all.

    Args:
        params: parameters, named or not, or groups of them, as for any optimizer of torch. A group with
            `algorithm="adamw"` is stepped by AdamW, with the options `lr`, `weight_decay`, `maximize`,
            `betas` and `eps`.
        lr: learning rate; a tensor without dimensions if a compiled step is to see it change.
        weight_decay: decoupled.
        momentum: mu, in [0, 1).
        nesterov: whether $(1 - \mu) G + \mu M$ is taken for M. Times a constant it is the sum form of others.
        schedule: one of `svdrot.schedules`; or a function of rows and columns that gives one, called for each
            shape when its group is added. The default brings singular values from 1e-3 of the norm to within
            1e-5 of 1, and suits bfloat16; five steps, as in `KELLER_JORDAN`, leave them off by up to 0.3.
            `newton_schulz_schedule(1e-4, safety=1.01)`, three steps more, made the number of iterations
            independent of the condition number where seven did not always (matrix factorization, see
            `experiments.orthogonalization.muon_preconditioning`).
        schatten: norm that the momentum is divided by, 2 or 8; see `newton_schulz`.
        dtype: of the products. Default: float32, or float64 for float64 parameters. Momenta have the dtype of
            their parameter.
        adjust_lr_fn: key of `STEP_SIZES`, for the size of the matrices, not of the parameter. None is
            "original".
        view: how to read the parameters as matrices. Needed for all that do not have two dimensions.
        maximize: ascend.
        process_group: of ranks that hold the same parameters with the same gradients, as
            DistributedDataParallel does: each computes its share of the directions, and all gather the rest.
            Without it every rank computes all.

    DTensors (`fully_shard`, `distribute_tensor`) are gathered, and each rank keeps its shard of the direction
    and of the momentum. Flattened shards are vectors, and refused.

    Raises:
        ValueError: if an option is out of range, or a parameter or its gradient is not what its group's
            `view` can read, sparse or empty.
        TypeError: if a parameter is not real and floating point.

    Source:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
        https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        *,
        schedule: Schedule | Callable[[int, int], Schedule] = SEVEN_STEPS,
        schatten: int = 2,
        dtype: torch.dtype | None = None,
        adjust_lr_fn: str | None = "original",
        view: MatrixView | None = None,
        maximize: bool = False,
        process_group: "dist.ProcessGroup | None" = None,  # a name that torch may be built without
        _own: dict[str, Any] | None = None,  # options of a subclass
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "schedule": schedule,
            "schatten": schatten,
            "dtype": dtype,
            "adjust_lr_fn": adjust_lr_fn,
            "view": view,
            "maximize": maximize,
            "process_group": process_group,
            "algorithm": "muon",
        }
        super().__init__(params, defaults | (_own or {}))

    def direction(self, update: Tensor, group: dict[str, Any]) -> Tensor:
        """What a step subtracts, over the learning rate, for momenta (B, m, n) in float32 or float64.

        The hook for other optimizers. Matrices come in any company, so each must be treated on its own.
        """
        m, n = update.shape[-2:]
        schedule = group["schedule"]
        if isinstance(schedule, dict):
            schedule = schedule[m, n]
        factor = newton_schulz(update, schedule, dtype=group["dtype"], schatten=group["schatten"])
        return STEP_SIZES[group["adjust_lr_fn"] or "original"](m, n) * factor

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for i, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    raise ValueError(f"The gradient of {_name(group, i)} must be dense; got {p.grad.layout}.")
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                with no_autocast(params[0]):
                    ALGORITHMS[group["algorithm"]](self, params, group)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        if group["algorithm"] not in ALGORITHMS:
            raise ValueError(f"`algorithm` must be one of {[*ALGORITHMS]}; got {group['algorithm']!r}.")
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.ndim:
            raise ValueError(f"`lr` must be a number or a tensor of shape (); got shape {tuple(lr.shape)}.")
        for option in ("lr", "weight_decay"):
            if not 0 <= group[option] < math.inf:
                raise ValueError(f"`{option}` must be finite and not negative; got {group[option]}.")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"`momentum` must be in [0, 1); got {group['momentum']}.")
        if (group["adjust_lr_fn"] or "original") not in STEP_SIZES:
            raise ValueError(f"`adjust_lr_fn` must be one of {[*STEP_SIZES]}; got {group['adjust_lr_fn']!r}.")
        for i, p in enumerate(group["params"]):
            check_floating(_name(group, i), p)
        if group["algorithm"] == "adamw":
            for option, value in ADAMW.items():
                group.setdefault(option, value)
            if not all(0 <= beta < 1 for beta in group["betas"]):
                raise ValueError(f"`betas` must be in [0, 1); got {group['betas']}.")
            if not group["eps"] >= 0:
                raise ValueError(f"`eps` must not be negative; got {group['eps']}.")
            return
        if group["dtype"] is not None and not group["dtype"].is_floating_point:
            raise ValueError(f"`dtype` must be floating point; got {group['dtype']}.")
        shapes = {viewed(_name(group, i), p, group["view"]) for i, p in enumerate(group["params"])}
        if callable(group["schedule"]):
            group["schedule"] = {shape: group["schedule"](*shape) for shape in shapes}
        schedules: Any = group["schedule"]
        for schedule in schedules.values() if isinstance(schedules, dict) else [schedules]:
            check_steps(schedule, group["schatten"])

    def state_dict(self) -> dict[str, Any]:
        """As of any optimizer, without `view`, `schedule` and `process_group`: these stay as constructed."""
        state = super().state_dict()
        for group in state["param_groups"]:
            for option in NOT_STATE:
                group.pop(option, None)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = [dict(group) for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, before in zip(self.param_groups, own, strict=True):
            for option in before.keys() - {"params"}:
                if option in NOT_STATE or option not in group:
                    group[option] = before[option]

    def _muon_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [local(gradient(p)) for p in params]
        if group["maximize"]:
            gradients = torch._foreach_neg(gradients)
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [local(self.state[p]["momentum_buffer"]) for p in params]
        mu = group["momentum"]
        torch._foreach_lerp_(momenta, gradients, 1 - mu)
        updates = torch._foreach_lerp(gradients, momenta, mu) if group["nesterov"] else momenta
        directions = self._directions(params, updates, group)

        weights = [local(p) for p in params]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_mul_(directions, -group["lr"])
        torch._foreach_add_(weights, directions)

    def _directions(
        self, params: Sequence[Tensor], updates: Sequence[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """For the local updates of parameters, the local directions, in memory of their own."""
        view = group["view"] or MatrixView()
        alike = grouped([(p.shape, p.dtype, p.device) for p in params])
        stacks = [view.matrices(torch.stack([whole(updates[i], params[i]) for i in same])) for same in alike]
        found = self._shared(stacks, group) if group["process_group"] else self._alone(stacks, group)
        directions = list(updates)
        for same, matrices in zip(alike, found, strict=True):
            restored = view.restore(matrices, params[same[0]].shape)
            for i, direction in zip(same, restored.unbind(), strict=True):
                directions[i] = shard(direction, params[i])
        return directions

    def _alone(self, stacks: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """For momenta (B, m, n) the directions."""
        found = []
        for x in stacks:
            parts = [self.direction(part.to(compute_dtype(x)), group) for part in portions(x)]
            found.append(torch.cat(parts).to(x.dtype) if parts else x)
        return found

    def _shared(self, stacks: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The same, each rank of the process group for its own matrices; a message for each dtype."""
        ranks = group["process_group"]
        rank, size = dist.get_rank(ranks), dist.get_world_size(ranks)
        costs = [x[0].numel() * min(x.shape[1:]) for x in stacks for _ in x]
        owner = [o.tolist() for o in torch.tensor(owners(costs, size)).split([len(x) for x in stacks])]
        own = [[[i for i, o in enumerate(os) if o == r] for os in owner] for r in range(size)]
        found = [torch.empty_like(x) for x in stacks]
        for alike in grouped([(x.dtype, x.device) for x in stacks]):
            sizes = [[len(own[r][s]) * stacks[s].shape[1:].numel() for s in alike] for r in range(size)]
            mine = self._alone([stacks[s][own[rank][s]] for s in alike], group)
            sent = torch.cat([x.flatten() for x in mine])
            received = sent.new_empty(size, max(map(sum, sizes)))
            dist.all_gather([*received], pad(sent, (0, received.shape[1] - len(sent))), group=ranks)
            for r, row in enumerate(received):
                for s, part in zip(alike, row[: sum(sizes[r])].split(sizes[r]), strict=True):
                    found[s][own[r][s]] = part.view(-1, *stacks[s].shape[1:])
        return found

    def _adamw_step(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.tensor(0.0)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        adamw(
            params,
            [gradient(p) for p in params],
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [self.state[p]["step"] for p in params],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )


ALGORITHMS = {"muon": Muon._muon_step, "adamw": Muon._adamw_step}


def _name(group: dict[str, Any], index: int) -> str:
    return group["param_names"][index] if "param_names" in group else f"parameter {index} of its group"
