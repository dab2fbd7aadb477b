"""Muon, and AdamW for what is not a matrix."""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, which torch's own optimizers are made of, are private in name only.

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from svdrot import _kernels
from svdrot._checks import check_floating
from svdrot._precision import compute_dtype, no_autocast
from svdrot.polar import check_steps, newton_schulz
from svdrot.schedules import POLAR_EXPRESS, Schedule

from ._loading import NOT_STATE, check_spelling, check_states, translated
from ._tensors import (
    Alike,
    Once,
    alike,
    gradient,
    grouped,
    local,
    owners,
    portions,
    shard,
    stacked,
    state_names,
    whole,
)
from .hooks import Stack, StateMaker, elementwise, marked, per_entry, refused, update_only
from .views import MatrixView, viewed

# Step sizes divided by the learning rate, for an m x n matrix. Keys as in torch.optim.Muon. The first is from
# Jordan et al.; the second, of Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, gives the
# root mean square of AdamW's updates, so that learning rates and weight decays found for AdamW apply. The
# third goes on with the first where matrices are wide.
STEP_SIZES: dict[str, Callable[[int, int], float]] = {
    "original": lambda m, n: math.sqrt(max(1, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
    "spectral_unclamped": lambda m, n: math.sqrt(m / n),
}

ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8}  # of torch.optim.AdamW

SEVEN_STEPS = POLAR_EXPRESS[:7]  # 1e-5 from 1; the eighth is for machine precision


class Muon(Optimizer):
    r"""Step each matrix along the polar factor of its momentum, and what is not a matrix by AdamW.

    That is $W \leftarrow (1 - \eta\lambda) W - \eta\, s\, \mathrm{polar}(M)$ with
    $M \leftarrow \mu M + (1 - \mu) G$ and a step size $s$ of the shape.

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
        capturable: whether steps are captured in a CUDA graph, which otherwise raises. A graph repeats the
            learning rate that it saw: give a tensor on the GPU, and write into it. AdamW counts steps there.
        process_group: of ranks that hold the same parameters with the same gradients, as
            DistributedDataParallel does: each computes its share of the directions, and all gather the rest.
            Without it every rank computes all. Copies of the optimizer have the same group; it is in no state
            dict, and an optimizer that has one cannot be pickled.
        extra: for relatives: options that they add, and their defaults. A group may set others.

    DTensors (`fully_shard`, `distribute_tensor`) are gathered, and each rank keeps its shard of the direction
    and of the momentum. Flattened shards are vectors, and refused.

    Relatives override `momentum`, `direction` and `check_options`, and declare what they remember of a
    parameter in `momentum_state` and `direction_state`: names, with `per_entry`, `per_row`, `per_column`,
    `per_matrix` or another `StateMaker`. Each hook sees its own; a name in both is one state that both see.
    States are made when a parameter has its first gradient, and kept in `state[p]` under their names, in the
    dtype of the parameter: in its shape, and sharded as it is, if they have an entry for each of its own,
    else as they are, and in full on each rank; where the parts of a `view` are not equal, that is one for
    each shape of matrices, "row_square_64x32" and the like. Hooks are then called for each shape.

    `momentum` runs on every rank. With `process_group`, `direction` runs on one rank for each matrix, and the
    others get its states with its result. So all ranks hold equal states after a step, if what a `momentum`
    reads, such as the loss, is equal; without `process_group` the same must hold for `direction`.

    Raises:
        ValueError: if an option is out of range, or a parameter or its gradient is not what its group's
            `view` can read, sparse or empty.
        TypeError: if a parameter is not real and floating point.

    Source:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
        https://kellerjordan.github.io/posts/muon/.

    Example:
        >>> import torch
        >>> from svdrot.optim import Muon, split_parameters
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> optimizer = Muon(split_parameters(network, adamw=[network[-1]]), lr=0.02)
        >>> network(torch.ones(3, 4)).square().mean().backward()
        >>> optimizer.step()
    """

    momentum_state: ClassVar[dict[str, StateMaker]] = {"momentum_buffer": per_entry}
    direction_state: ClassVar[dict[str, StateMaker]] = {}

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
        capturable: bool = False,
        process_group: "dist.ProcessGroup | None" = None,  # a name that torch may be built without
        extra: dict[str, Any] | None = None,
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
            "capturable": capturable,
            "process_group": process_group,
            "algorithm": "muon",
        }
        super().__init__(params, defaults | (extra or {}))

    @elementwise
    def momentum(self, stack: Stack) -> Tensor:
        r"""Give the updates that `direction` gets, and move the momenta on: the first hook for relatives.

        Muon's is $M \leftarrow \mu M + (1 - \mu) G$, which is also the update without Nesterov's momentum.

        Args:
            stack: B matrices of one shape (m, n); here, as the hook is `elementwise`, parameters or shards.
                Its states are those of `momentum_state`.

        Returns:
            Updates, of the shape and dtype of `stack.gradient`.

        Example:
            >>> from svdrot.optim import Muon
            >>> class SignMomentum(Muon):
            ...     def momentum(self, stack):
            ...         return super().momentum(stack).sign()
        """
        gradient, mu = stack.gradient, stack.group["momentum"]
        momenta = stack.state["momentum_buffer"].lerp_(gradient, 1 - mu)
        return gradient.lerp(momenta, mu) if stack.group["nesterov"] else momenta

    @update_only
    def direction(self, update: Tensor, stack: Stack) -> Tensor:
        """Give what a step subtracts, divided by the learning rate: the second hook for relatives.

        Matrices come in any company, so each must be treated on its own. Muon's are the polar factors times a
        step size of `STEP_SIZES`.

        Args:
            update: shape (B, m, n), float32 or float64; the matrices may be some of those of a shape.
            stack: the same B matrices. Its states are those of `direction_state`.

        Returns:
            Directions, shape (B, m, n).

        Example:
            >>> from svdrot.optim import Muon
            >>> class Cautious(Muon):  # only where the gradient agrees
            ...     def direction(self, update, stack):
            ...         return super().direction(update, stack) * (update.sign() == stack.gradient.sign())
        """
        m, n = update.shape[-2:]
        group = stack.group
        schedule = group["schedule"]
        if isinstance(schedule, dict):
            schedule = schedule[m, n]
        factor = newton_schulz(update, schedule, dtype=group["dtype"], schatten=group["schatten"])
        return factor.mul_(STEP_SIZES[group["adjust_lr_fn"] or "original"](m, n))

    def check_options(self, group: dict[str, Any]) -> None:
        """Raise an error if options that a relative added are out of range; Muon's own are checked before.

        Args:
            group: a parameter group as it is added, of any algorithm.

        Raises:
            ValueError: if an option is out of range. The group is then not added.

        Example:
            >>> from svdrot.optim import Muon
            >>> class Damped(Muon):
            ...     def check_options(self, group):
            ...         if not group["damping"] > 0:
            ...             raise ValueError(f"`damping` must be positive; got {group['damping']}.")
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step all parameters that have a gradient.

        Args:
            closure: a function that computes gradients and returns the loss, called once before the step.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: if a gradient is sparse, or a hook of a relative does not give what it must.

        Example:
            >>> import torch
            >>> from svdrot.optim import Muon
            >>> p = torch.nn.Parameter(torch.zeros(2, 2))
            >>> p.grad = torch.eye(2)
            >>> Muon([p], lr=1.0).step()
            >>> p.detach().round(decimals=3) + 0
            tensor([[-1.,  0.],
                    [ 0., -1.]])
        """
        _refuse_capture(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        seen = loss.detach() if isinstance(loss, Tensor) else loss
        for group in self.param_groups:
            for i, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    raise ValueError(f"The gradient of {_name(group, i)} must be dense; got {p.grad.layout}.")
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                with no_autocast(params[0]):
                    ALGORITHMS[group["algorithm"]](self, params, group, seen)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group and check it, as the constructor does for the first ones.

        Args:
            param_group: "params", and options that differ from the defaults.

        Raises:
            ValueError: as the constructor. The group is then not added.
            TypeError: as the constructor.

        Example:
            >>> import torch
            >>> from svdrot.optim import Muon
            >>> optimizer = Muon([torch.nn.Parameter(torch.zeros(2, 2))])
            >>> bias = torch.nn.Parameter(torch.zeros(2))
            >>> optimizer.add_param_group({"params": [bias], "algorithm": "adamw"})
        """
        check_spelling(param_group, {*self.defaults, *ADAMW})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
            self.check_options(group)
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
        viewed_as = [viewed(_name(group, i), p, group["view"]) for i, p in enumerate(group["params"])]
        shapes = {shape for some in viewed_as for shape in some}
        if callable(group["schedule"]):
            group["schedule"] = {shape: group["schedule"](*shape) for shape in shapes}
        schedules: Any = group["schedule"]
        for schedule in schedules.values() if isinstance(schedules, dict) else [schedules]:
            check_steps(schedule, group["schatten"])

    def state_dict(self) -> dict[str, Any]:
        """Give the state as that of any optimizer, with None for `view`, `schedule` and `process_group`.

        These describe the model and the machine, and stay as constructed.

        Returns:
            "state" and "param_groups", for `load_state_dict`.

        Example:
            >>> import torch
            >>> from svdrot.optim import Muon
            >>> Muon([torch.nn.Parameter(torch.zeros(2, 2))]).state_dict()["param_groups"][0]["schedule"]
        """
        state = super().state_dict()
        for group in state["param_groups"]:
            group |= dict.fromkeys(NOT_STATE)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of an optimizer of the same parameters, which may be a torch.optim.Muon.

        The `ns_steps` and `ns_coefficients` of the latter become the schedule. Options and states that it
        does not have stay as they are here.

        Args:
            state_dict: what `state_dict` gave.

        Raises:
            ValueError: if the groups are of other sizes, or an option or state has no counterpart here, or is
                out of range. Nothing is then loaded.

        Example:
            >>> import torch
            >>> from svdrot.optim import Muon
            >>> first, second = (Muon([torch.nn.Parameter(torch.zeros(2, 2))], lr) for lr in (0.1, 0.2))
            >>> second.load_state_dict(first.state_dict())
            >>> second.param_groups[0]["lr"]
            0.1
        """
        own = [dict(group) for group in self.param_groups]
        groups = state_dict["param_groups"]
        if [len(group["params"]) for group in groups] == [len(group["params"]) for group in own]:
            groups = [translated(*pair) for pair in zip(groups, own, strict=True)]
            for group, before in zip(groups, own, strict=True):
                merged = before | group | {"params": before["params"]}
                self._check_group(merged)
                self.check_options(merged)
                for i, (key, p) in enumerate(zip(group["params"], before["params"], strict=True)):
                    self._check_states(state_dict["state"].get(key, {}), before, p, _name(before, i))
        super().load_state_dict(state_dict | {"param_groups": groups})
        for group, before in zip(self.param_groups, own, strict=True):
            for option in before.keys() - group.keys():
                group[option] = before[option]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("capturable", False)  # pickled before there was such an option

    def __deepcopy__(self, memo: dict[int, Any]) -> "Muon":
        """Copy all but process groups, which are of the running processes: the copy has the same."""
        for group in (self.defaults, *self.param_groups):
            memo[id(group["process_group"])] = group["process_group"]
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def _check_states(self, loaded: dict[str, Any], group: dict[str, Any], p: Tensor, name: str) -> None:
        if group["algorithm"] == "adamw":
            check_states(loaded, ("step", "exp_avg", "exp_avg_sq"), ("exp_avg", "exp_avg_sq"), p, name)
        else:
            makers = self.momentum_state | self.direction_state
            like = [n for n, make in makers.items() if make is per_entry]
            view = group["view"] or MatrixView()
            known = dict.fromkeys(key for n in makers for key in (n, *state_names(n, view, p.shape)))
            check_states(loaded, known, like if view.count_shapes() == 1 else makers, p, name)

    def _muon_step(self, params: list[Tensor], group: dict[str, Any], loss: Any) -> None:
        stacks = alike(params, group["view"] or MatrixView())
        if group["process_group"]:  # which gathers all at once
            self._step_alike(stacks, group, loss)
        else:
            for same in stacks:
                for portion in same.portions():
                    self._step_alike([portion], group, loss)

    def _step_alike(self, stacks: list[Alike], group: dict[str, Any], loss: Any) -> None:
        updates = [self._updates(same, group, loss) for same in stacks]
        found = self._directions(stacks, updates, group, loss)
        directions = [x for same, some in zip(stacks, found, strict=True) for x in same.restore(some)]

        weights, lr = [local(p) for same in stacks for p in same.params], group["lr"]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        if isinstance(lr, Tensor):  # which cannot be an alpha
            torch._foreach_add_(weights, torch._foreach_mul(directions, -lr))
        else:
            torch._foreach_add_(weights, directions, alpha=-lr)

    def _updates(self, same: Alike, group: dict[str, Any], loss: Any) -> list[Tensor]:
        """Run `momentum` for alike parameters, and give the updates as matrices (B, m, n) of each shape."""
        each = marked(self.momentum, elementwise)
        arrange = (lambda tensors: [stacked(tensors)]) if each else same.gather
        states = self._read_state(same, self.momentum_state, group, each)
        gradients = arrange(_gradients(same, group))
        parameters = Once(lambda: arrange([local(p) for p in same.params]))
        updates, after = [], []
        for i, state in enumerate(states):
            stack = Stack(gradients[i], parameters.item(i), dict(state), group, loss)
            updates.append(self.momentum(stack))
            self._check_result("momentum", updates[-1], gradients[i].shape)
            self._check_state("momentum", stack.state, state)
            after.append(stack.state)
        self._write_state(same, after, each)
        return same.matrices(updates[0]) if each else updates

    def _directions(
        self, stacks: Sequence[Alike], updates: Sequence[list[Tensor]], group: dict[str, Any], loss: Any
    ) -> list[list[Tensor]]:
        """Run `direction` for updates (B, m, n), and give the directions, apart from the parameters."""
        narrow = marked(self.direction, update_only)
        whole: list[list[Stack]] = []
        for same in stacks:
            states = self._read_state(same, self.direction_state, group)
            read = [(refused, refused)] * len(states)
            if not narrow:
                gradients = Once(lambda same=same: same.gather(_gradients(same, group)))
                parameters = Once(lambda same=same: same.gather([local(p) for p in same.params]))
                read = [(gradients.item(i), parameters.item(i)) for i in range(len(states))]
            whole.append([Stack(*both, state, group, loss) for both, state in zip(read, states, strict=True)])
        every = [stack for some in whole for stack in some]
        if not group["process_group"]:
            found = [self._in_portions(x, s) for x, s in zip(itertools.chain(*updates), every, strict=True)]
        else:
            for same, some in zip(stacks, whole, strict=True):
                if same.is_sharded() and not narrow:  # All ranks must gather, also those without a matrix.
                    for stack in some:
                        _ = stack.gradient, stack.parameter
            found = self._shared([*itertools.chain(*updates)], every, group["process_group"])
        for same, some in zip(stacks, whole, strict=True):
            self._write_state(same, [stack.state for stack in some])
        ends = [*itertools.accumulate(map(len, whole))]
        return [found[end - len(some) : end] for end, some in zip(ends, whole, strict=True)]

    def _in_portions(self, update: Tensor, stack: Stack) -> Tensor:
        """Give the directions of a stack, and write on its states."""
        dtype, found = compute_dtype(update), []
        for rows in portions(update):
            part = stack.select(rows, dtype)
            before = dict(part.state)
            x = update[rows].to(dtype)
            found.append(self.direction(x, part))
            self._check_result("direction", found[-1], x.shape)
            self._check_state("direction", part.state, before)
            for name, value in part.state.items():
                kept = stack.state[name][rows]
                if value is not before[name] or value.dtype != kept.dtype:  # else it is on the same memory
                    kept.copy_(value)
        if len(found) == 1 and marked(self.direction, update_only):
            return found[0].to(update.dtype)  # which cannot be the parameters, and need not be copied
        return torch.cat(found).to(update.dtype) if found else update

    def _shared(self, updates: Sequence[Tensor], stacks: Sequence[Stack], ranks: Any) -> list[Tensor]:
        """Do the same, each rank for its own matrices, and send directions and states to all.

        That is a message for each dtype.
        """
        rank, size = dist.get_rank(ranks), dist.get_world_size(ranks)
        costs = [x[0].numel() * min(x.shape[1:]) for x in updates for _ in x]
        owner = [o.tolist() for o in torch.tensor(owners(costs, size)).split([len(x) for x in updates])]
        own = [[[i for i, o in enumerate(os) if o == r] for os in owner] for r in range(size)]
        found = [torch.empty_like(x) for x in updates]
        pieces: list[tuple[int, Tensor, Tensor]] = []  # of which stack, of all ranks, of this rank
        for s, (x, stack) in enumerate(zip(updates, stacks, strict=True)):
            mine = stack.select(own[rank][s], x.dtype)
            pieces.append((s, found[s], self._in_portions(x[own[rank][s]], mine)))
            pieces.extend((s, stack.state[name], value) for name, value in mine.state.items())
        for same in grouped([(x.dtype, x.device) for _, x, _ in pieces]):
            some = [pieces[i] for i in same]
            sizes = [[len(own[r][s]) * x.shape[1:].numel() for s, x, _ in some] for r in range(size)]
            sent = torch.cat([x.flatten() for _, _, x in some])
            received = sent.new_empty(size, max(map(sum, sizes)))
            dist.all_gather([*received], pad(sent, (0, received.shape[1] - len(sent))), group=ranks)
            for r, row in enumerate(received):
                for (s, x, _), part in zip(some, row[: sum(sizes[r])].split(sizes[r]), strict=True):
                    x[own[r][s]] = part.view(-1, *x.shape[1:])
        return found

    def _read_state(
        self, same: Alike, makers: dict[str, StateMaker], group: dict[str, Any], each: bool = False
    ) -> list[dict[str, Tensor]]:
        """Stack what is kept for the parameters, and make what is not kept yet, for each shape of matrices.

        For hooks that get parameters as they are there is one shape, theirs.
        """
        found: list[dict[str, Tensor]] = [{} for _ in range(1 if each else same.view.count_shapes())]
        for name, make in makers.items():
            names = same.state_names(name)
            for p in same.params:
                if name not in self.state[p] and names[0] not in self.state[p]:
                    self.state[p] |= self._first_state(name, make, p, same.view, group)
            if self._is_like_parameter(name, same):
                kept = [local(self.state[p][name]) for p in same.params]
                values = [stacked(kept)] if each else same.gather(kept)
            elif each:
                raise ValueError(f"The state `{name}` of an `elementwise` momentum must be `per_entry`.")
            else:
                values = [
                    torch.cat([local(self.state[p][of_shape]) for p in same.params]) for of_shape in names
                ]
            for state, value in zip(found, values, strict=True):
                state[name] = value
        return found

    def _write_state(self, same: Alike, states: list[dict[str, Tensor]], each: bool = False) -> None:
        for name in states[0]:
            values = [state[name] for state in states]
            if each:
                written = {name: values[0].unbind()}
            elif self._is_like_parameter(name, same):
                written = {name: same.restore(values)}
            else:
                names = same.state_names(name)
                pieces = [value.split(len(value) // len(same.params)) for value in values]
                written = dict(zip(names, pieces, strict=True))
            for of_shape, parts in written.items():
                torch._foreach_copy_([local(self.state[p][of_shape]) for p in same.params], parts)

    def _is_like_parameter(self, name: str, same: Alike) -> bool:
        state = self.state[same.params[0]]
        return name in state and state[name].shape == same.params[0].shape

    def _first_state(
        self, name: str, make: StateMaker, p: Tensor, view: MatrixView, group: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Make the state that is kept for a parameter: in its shape, and sharded as it is, if per entry."""
        stacks = view.stacks(whole(local(p), p)[None])
        firsts = [make(matrices, group) for matrices in stacks]
        for first in firsts:
            if not isinstance(first, Tensor):
                raise ValueError(f"The state `{name}` must begin as a tensor; got {type(first).__name__}.")
        if all(first.shape == matrices.shape for first, matrices in zip(firsts, stacks, strict=True)):
            kept = torch.empty_like(p)  # also its strides
            local(kept).copy_(shard(view.restore_stacks(firsts, p.shape)[0], p))
            return {name: kept}
        for first, matrices in zip(firsts, stacks, strict=True):
            # What has the shape of the parameter is read as matrices, so nothing else may have it.
            if first.shape[:1] != matrices.shape[:1] or first.shape == p.shape:
                raise ValueError(
                    f"The state `{name}` must have one entry on its first axis for each of the matrices"
                    f" {tuple(matrices.shape)} of a parameter; got {tuple(first.shape)}."
                )
        kept = [first.to(matrices.dtype, copy=True) for first, matrices in zip(firsts, stacks, strict=True)]
        return dict(zip(state_names(name, view, p.shape), kept, strict=True))

    def _check_result(self, hook: str, found: object, shape: torch.Size) -> None:
        if not isinstance(found, Tensor) or found.shape != shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"`{hook}` of {type(self).__name__} must give a tensor of shape {tuple(shape)}; got {got}."
            )

    def _check_state(self, hook: str, state: dict[str, Tensor], before: dict[str, Tensor]) -> None:
        if state.keys() != before.keys():
            raise ValueError(
                f"`{hook}` of {type(self).__name__} must leave the states {[*before]}; got {[*state]}."
                f" Declare others in `{hook}_state`."
            )
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape != before[name].shape:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"`{hook}` of {type(self).__name__} must leave `{name}` a tensor of its shape"
                    f" {tuple(before[name].shape)}; got {got}."
                )

    def _adamw_step(self, params: list[Tensor], group: dict[str, Any], loss: Any) -> None:
        capturable = group["capturable"] and _kernels.side(params[0]) != "cpu"
        for p in params:
            if "step" not in self.state[p]:
                self.state[p]["step"] = torch.tensor(0.0, device=p.device if capturable else None)
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
            capturable=capturable,
        )


# What steps a group, by its option "algorithm".
ALGORITHMS = {"muon": Muon._muon_step, "adamw": Muon._adamw_step}


def _refuse_capture(optimizer: Muon) -> None:
    """Raise where a CUDA graph is being captured, unless all groups are `capturable`: torch's own check."""
    renamed = getattr(optimizer, "_accelerator_graph_capture_health_check", None)  # of late
    (renamed or optimizer._cuda_graph_capture_health_check)()


def _gradients(same: Alike, group: dict[str, Any]) -> list[Tensor]:
    gradients = [local(gradient(p)) for p in same.params]
    return [*torch._foreach_neg(gradients)] if group["maximize"] else gradients


def _name(group: dict[str, Any], index: int) -> str:
    return group["param_names"][index] if "param_names" in group else f"parameter {index} of its group"
