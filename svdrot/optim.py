r"""Muon and its relatives: optimizers that step along the polar factor of the momentum of a matrix.

A step of every one of them is a chain of small functions,

    gradient -> momentum -> (equilibrate | clip_outliers | gate) -> newton_schulz -> step size,

and they differ in the middle only, in their `direction`. What is not a matrix goes, in a parameter group with
`algorithm="adamw"`, to AdamW in the same optimizer; `split_parameters` makes the groups for a module.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*, which torch's own optimizers are made of, are private in name only.

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from svdrot._checks import check_floating, check_matrix, compute_dtype
from svdrot.polar import newton_schulz
from svdrot.schedules import POLAR_EXPRESS, Schedule, newton_schulz_schedule


class MatrixView(NamedTuple):
    """How a parameter is read as a batch of matrices: every axis of it counts rows, matrices, or columns.

    Args:
        rows: axes that count the rows.
        batch: axes that count matrices, such as that of the experts in a stack of layers. All axes in neither
            of the two count columns.
        parts: number of equal parts into which the rows fall, each a matrix of its own: attention heads,
            query, key and value in one weight, the groups of a convolution.
    """

    rows: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = ()
    parts: int = 1

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """(matrices, rows, columns) of a parameter of this shape; ValueError if the view does not fit."""
        named = (*self.batch, *self.rows)
        axes = range(len(shape))
        if len({*named}) < len(named) or not {*named} <= {*axes} or not self.rows or len(named) == len(shape):
            raise ValueError(
                f"{self} must name different axes of {len(shape)}, and leave one for the columns"
            )
        m = math.prod([shape[i] for i in self.rows])
        if self.parts < 1 or m % self.parts:
            raise ValueError(f"{self} must have a number of parts that divides the {m} rows")
        count = math.prod([shape[i] for i in self.batch]) * self.parts
        return count, m // self.parts, math.prod([shape[i] for i in axes if i not in named])

    def matrices(self, parameters: Tensor) -> Tensor:
        """The matrices in k parameters of one shape, (k, *shape), as (k * matrices, rows, columns)."""
        _, m, n = self.shape(parameters.shape[1:])
        return parameters.permute(self._order(parameters.ndim)).reshape(-1, m, n)

    def restore(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The k parameters whose matrices these are, (k, *shape)."""
        order = self._order(len(shape) + 1)
        permuted = matrices.reshape(-1, *[shape[i - 1] for i in order[1:]])
        return permuted.permute([order.index(i) for i in range(len(order))])

    def _order(self, ndim: int) -> tuple[int, ...]:
        named = (0, *(i + 1 for i in (*self.batch, *self.rows)))
        return (*named, *(i for i in range(ndim) if i not in named))


conv = MatrixView()  # (out, in, *kernel) as one matrix (out, in * kernel)


def heads(number: int) -> MatrixView:
    """(number * size, in) as `number` matrices (size, in)."""
    return MatrixView(parts=number)


# Over the learning rate, of a matrix of m rows and n columns; names of torch.optim.Muon. The first is from
# Jordan et al.; the second, of Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, gives the
# root mean square of AdamW's updates, so that learning rates and weight decays found for AdamW apply.
STEP_SIZES: dict[str, Callable[[int, int], float]] = {
    "original": lambda m, n: math.sqrt(max(1, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}

ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8}  # of torch.optim.AdamW

SEVEN_STEPS = POLAR_EXPRESS[:7]  # 1e-5 from 1; the eighth is for machine precision

CACHED = 2**19  # bytes of a batch on a CPU

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
            if not group[option] >= 0:
                raise ValueError(f"`{option}` must not be negative; got {group[option]}.")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"`momentum` must be in [0, 1); got {group['momentum']}.")
        if (group["adjust_lr_fn"] or "original") not in STEP_SIZES:
            raise ValueError(f"`adjust_lr_fn` must be one of {[*STEP_SIZES]}; got {group['adjust_lr_fn']!r}.")
        for i, p in enumerate(group["params"]):
            check_floating(_name(group, i), p)
        if group["algorithm"] == "adamw":
            for option, value in ADAMW.items():
                group.setdefault(option, value)
            return
        shapes = {_viewed(_name(group, i), p, group["view"]) for i, p in enumerate(group["params"])}
        if callable(group["schedule"]):
            group["schedule"] = {shape: group["schedule"](*shape) for shape in shapes}

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
        gradients = [_local(_gradient(p)) for p in params]
        if group["maximize"]:
            gradients = torch._foreach_neg(gradients)
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [_local(self.state[p]["momentum_buffer"]) for p in params]
        mu = group["momentum"]
        torch._foreach_lerp_(momenta, gradients, 1 - mu)
        updates = torch._foreach_lerp(gradients, momenta, mu) if group["nesterov"] else momenta
        directions = self._directions(params, updates, group)

        weights = [_local(p) for p in params]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_mul_(directions, -group["lr"])
        torch._foreach_add_(weights, directions)

    def _directions(
        self, params: Sequence[Tensor], updates: Sequence[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """For the local updates of parameters, the local directions, in memory of their own."""
        view = group["view"] or MatrixView()
        alike = _alike([(p.shape, p.dtype, p.device) for p in params])
        stacks = [view.matrices(torch.stack([_whole(updates[i], params[i]) for i in same])) for same in alike]
        found = self._shared(stacks, group) if group["process_group"] else self._alone(stacks, group)
        directions = list(updates)
        for same, matrices in zip(alike, found, strict=True):
            restored = view.restore(matrices, params[same[0]].shape)
            for i, direction in zip(same, restored.unbind(), strict=True):
                directions[i] = _shard(direction, params[i])
        return directions

    def _alone(self, stacks: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """For momenta (B, m, n) the directions."""
        found = []
        for x in stacks:
            parts = [self.direction(part.to(compute_dtype(x)), group) for part in _portions(x)]
            found.append(torch.cat(parts).to(x.dtype) if parts else x)
        return found

    def _shared(self, stacks: Sequence[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The same, each rank of the process group for its own matrices; a message for each dtype."""
        ranks = group["process_group"]
        rank, size = dist.get_rank(ranks), dist.get_world_size(ranks)
        costs = [x[0].numel() * min(x.shape[1:]) for x in stacks for _ in x]
        owner = [o.tolist() for o in torch.tensor(_owners(costs, size)).split([len(x) for x in stacks])]
        own = [[[i for i, o in enumerate(os) if o == r] for os in owner] for r in range(size)]
        found = [torch.empty_like(x) for x in stacks]
        for alike in _alike([(x.dtype, x.device) for x in stacks]):
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
            [_gradient(p) for p in params],
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


class MuonEq(Muon):
    r"""Muon of momenta whose rows, columns, or both are `equilibrate`d first.

    That makes them better conditioned, and another direction: it is not the polar factor of the momentum. The
    authors keep the momentum $\sum \mu^k G$ and orthogonalize $G + \mu M$; Muon's, which is kept here, is
    that times $1 - \mu$, which the normalization takes away again.

    Args:
        mode: "r" (the authors' default), "c" or "rc".
        options: of `Muon`. The step size is theirs, 0.2 sqrt(max(m, n)).

    Source: "MuonEq", arXiv 2603.28254.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        mode: str = "r",
        adjust_lr_fn: str | None = "match_rms_adamw",
        **options: Any,
    ):
        super().__init__(params, lr, adjust_lr_fn=adjust_lr_fn, _own={"mode": mode}, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        _check_mode(group["mode"])

    def direction(self, update: Tensor, group: dict[str, Any]) -> Tensor:
        return super().direction(equilibrate(update, group["mode"]), group)


class MiMuon(Muon):
    r"""Muon where the singular values of a momentum are `tau` or more apart, momentum descent elsewhere.

    The momentum step has no step size but the learning rate. For `tau=0` this is Muon, for infinity gradient
    descent with momentum. The authors' beta multiplies the new gradient: `momentum` is 1 - beta.

    Args:
        tau: smallest `singular_gap` of a momentum to orthogonalize. No default, for it has the unit of the
            gradients, and gaps shrink with the size: of Gaussian matrices of norm 1, the median is 3e-2 for
            8x8 and 1e-4 for 128x128.
        relative: whether `tau` is in units of the largest singular value instead.
        options: of `Muon`. No Nesterov momentum unless asked for.

    Source: Huang, Luo, Chen, "MiMuon", arXiv 2605.19619.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        tau: float,
        relative: bool = False,
        nesterov: bool = False,
        **options: Any,
    ):
        super().__init__(params, lr, nesterov=nesterov, _own={"tau": tau, "relative": relative}, **options)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if not group["tau"] >= 0:
            raise ValueError(f"`tau` must not be negative; got {group['tau']}.")

    def direction(self, update: Tensor, group: dict[str, Any]) -> Tensor:
        wide = singular_gap(update, group["relative"]) >= group["tau"]
        return torch.where(wide[:, None, None], super().direction(update, group), update)


def shape_schedule(rows: int, columns: int) -> Schedule:
    """A convergent schedule for the singular values that matrices of this shape have, if random."""
    longer, shorter = max(rows, columns), min(rows, columns)
    return newton_schulz_schedule(1e-3, safety=1.01, tolerance=1e-3, aspect=longer / shorter)


class ROOT(Muon):
    """Muon of momenta whose outliers are clipped, with a schedule for each shape.

    In place of the authors' table of four shapes, schedules are generated, by `shape_schedule`.

    Args:
        quantile: see `clip_outliers`, also for what the authors' 0.9 costs without outliers; 1 clips nothing.
        options: of `Muon`. The step size is theirs, 0.2 sqrt(max(m, n)).

    Source: "ROOT", arXiv 2511.20626.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        *,
        quantile: float = 0.9,
        schedule: Schedule | Callable[[int, int], Schedule] = shape_schedule,
        schatten: int = 8,
        adjust_lr_fn: str | None = "match_rms_adamw",
        **options: Any,
    ):
        super().__init__(
            params,
            lr,
            schedule=schedule,
            schatten=schatten,
            adjust_lr_fn=adjust_lr_fn,
            _own={"quantile": quantile},
            **options,
        )

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        _check_quantile(group["quantile"])

    def direction(self, update: Tensor, group: dict[str, Any]) -> Tensor:
        return super().direction(clip_outliers(update, group["quantile"]), group)


EQUILIBRATED = {"r": (-1,), "c": (-2,), "rc": (-1, -2)}  # axes of the sums of squares


def equilibrate(matrix: Tensor, mode: str, eps: float = 1e-8) -> Tensor:
    r"""$r_i^{-1/2} x_{ij}$, $x_{ij} c_j^{-1/2}$ or $r_i^{-1/2} x_{ij} c_j^{-1/2}$ for the sums r and c of the
    squares in a row and in a column of $x$.

    Args:
        matrix: shape (..., m, n), any scale.
        mode: "r", "c" or "rc". Both sums of "rc" are of the matrix that comes in.
        eps: what is added to each sum, in units of the mean sum, so that rows of rounding errors stay small.

    Returns:
        Shape (..., m, n): rows of norm 1 ("r"), columns of norm 1 ("c"), or ("rc") the above of the matrix
        over its largest entry. Zero rows and columns stay zero.

    Raises:
        ValueError: if `matrix` is not (..., m, n), or `mode` not one of the three.
        TypeError: if `matrix` is not floating point.

    Source: "MuonEq", arXiv 2603.28254.
    """
    check_matrix("matrix", matrix)
    _check_mode(mode)
    x = matrix.to(compute_dtype(matrix))
    x = x / _one_for_zero(x.abs().amax((-2, -1), keepdim=True))
    result = x
    for axis in EQUILIBRATED[mode]:
        sums = x.square().sum(axis, keepdim=True)
        result = result * _one_for_zero(sums + eps * sums.mean((-2, -1), keepdim=True)).rsqrt()
    return result.to(matrix.dtype)


def _check_mode(mode: str) -> None:
    if mode not in EQUILIBRATED:
        raise ValueError(f"`mode` must be one of {', '.join(map(repr, EQUILIBRATED))}; got {mode!r}.")


def _one_for_zero(value: Tensor) -> Tensor:
    return torch.where(value == 0, 1, value)


def clip_outliers(matrix: Tensor, quantile: float) -> Tensor:
    """A matrix with its entries clamped to [-q, q], q the quantile of their absolute values.

    It pays where some entries are wrong by much, and costs where none is. Cosines of the polar factor with
    that of the clean matrix, 128x256 of rank 8 and noise, of which a part of the entries is hit:

        quantile   none   0.1%   0.3%     1%
               1   1.00   0.76   0.50   0.12
            0.99   0.98   0.94   0.85   0.53
             0.9   0.87   0.85   0.83   0.73

    Args:
        matrix: shape (..., m, n). Each matrix has its own q.
        quantile: fraction in (0, 1] of the entries that stay as they are; the next larger count of entries.

    Raises:
        ValueError: if `matrix` is not (..., m, n), or `quantile` not in (0, 1].
        TypeError: if `matrix` is not floating point.

    Source: "ROOT", arXiv 2511.20626.
    """
    check_matrix("matrix", matrix)
    _check_quantile(quantile)
    size = matrix.abs().flatten(-2)
    limit = size.kthvalue(math.ceil(quantile * size.shape[-1])).values[..., None, None]
    return matrix.clamp(-limit, limit)


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile <= 1:
        raise ValueError(f"`quantile` must be in (0, 1]; got {quantile}.")


def singular_gap(matrix: Tensor, relative: bool = False) -> Tensor:
    r"""The smallest difference between two singular values of a matrix that are not zero.

    From the eigenvalues of the Gram matrix of the shorter side, in float64, which resolves differences of
    1e-15 between large singular values, and 1e-8 between small ones, of the largest.

    Args:
        matrix: shape (..., m, n), any scale.
        relative: whether to divide by the largest singular value.

    Returns:
        Shape (...), in the dtype of `matrix`; infinity where fewer than two singular values are not zero up
        to rounding.

    Raises:
        ValueError: if `matrix` is not (..., m, n).
        TypeError: if `matrix` is not floating point.
    """
    check_matrix("matrix", matrix)
    m, n = matrix.shape[-2:]
    x = matrix.double() if m >= n else matrix.double().mT
    largest = _one_for_zero(x.abs().amax((-2, -1), keepdim=True))
    x = x / largest
    s = torch.linalg.eigvalsh(x.mT @ x).clamp(min=0).sqrt()  # ascending
    # As torch.linalg.matrix_rank has it, but not below the root of what rounding does to the Gram matrix.
    zero = max(max(m, n) * torch.finfo(matrix.dtype).eps, math.sqrt(min(m, n) * torch.finfo(x.dtype).eps))
    differences = torch.where(s[..., :-1] > zero * s[..., -1:], s.diff(), torch.inf)
    gap = pad(differences, (0, 1), value=torch.inf).amin(-1)
    scale = 1 / _one_for_zero(s[..., -1]) if relative else largest[..., 0, 0]
    return (gap * scale).to(matrix.dtype)


def split_parameters(module: nn.Module, adamw: Iterable[nn.Module] = ()) -> list[dict[str, Any]]:
    """Parameter groups for `Muon`: weights of linear, convolution and attention layers, AdamW for the rest.

    Embeddings, norms and biases are the rest, and so is a weight that is in any of it too, such as that of a
    head tied to an embedding. Parameters that need no gradient are in no group.

    Args:
        module: its parameters are shared out.
        adamw: modules of it all of whose parameters go to AdamW. Name the last layer of the network here, and
            the first if it takes raw inputs.

    Returns:
        Groups with names: one for each view, and the one for AdamW at the end, whose options may be added to.
    """
    views: dict[Tensor, MatrixView | None] = {}
    rest = {p for other in adamw for p in other.parameters()}
    for layer in module.modules():
        for name, p in layer.named_parameters(recurse=False):
            view = None if p in rest else _layer_view(layer, name)
            views[p] = view if views.get(p, view) == view else None
    groups: dict[MatrixView | None, list[tuple[str, Tensor]]] = {}
    for name, p in module.named_parameters():
        if p.requires_grad:
            groups.setdefault(views[p], []).append((name, p))
    others = groups.pop(None, [])
    split: list[dict[str, Any]] = [{"params": params, "view": view} for view, params in groups.items()]
    return split + ([{"params": others, "algorithm": "adamw"}] if others else [])


def _layer_view(layer: nn.Module, name: str) -> MatrixView | None:
    if isinstance(layer, nn.MultiheadAttention) and name == "in_proj_weight":
        return MatrixView(parts=3)  # query, key, value
    if isinstance(layer, nn.MultiheadAttention) and name.endswith("_proj_weight"):
        return MatrixView()
    if name != "weight":
        return None
    if isinstance(layer, nn.Linear):
        return MatrixView()
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return MatrixView(parts=layer.groups)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) and layer.groups == 1:
        return MatrixView(rows=(1,))  # (in, out, *kernel)
    return None


def _name(group: dict[str, Any], index: int) -> str:
    return group["param_names"][index] if "param_names" in group else f"parameter {index} of its group"


def _viewed(name: str, p: Tensor, view: MatrixView | None) -> tuple[int, int]:
    """Rows and columns of the matrices of a parameter."""
    if p.layout != torch.strided:
        raise ValueError(f"`{name}` must be dense; got {p.layout}.")
    if not p.numel():
        raise ValueError(f"`{name}` must not be empty; got shape {tuple(p.shape)}.")
    if p.ndim != 2 and view is None:
        raise ValueError(
            f"`{name}` must be a matrix, or its group have a `view` that reads it as matrices; got shape"
            f" {tuple(p.shape)}. Convolution kernels take `view=conv`; vectors, and shards of flattened"
            ' matrices, `algorithm="adamw"`.'
        )
    try:
        return (view or MatrixView()).shape(p.shape)[1:]
    except ValueError as error:
        raise ValueError(f"The `view` of `{name}`, of shape {tuple(p.shape)}: {error}.") from None


def _gradient(p: Tensor) -> Tensor:
    """The gradient in the dtype of its parameter, and sharded as it is."""
    gradient: Any = p.grad
    if _is_dtensor(p):
        sharded: Any = p
        gradient = gradient.redistribute(sharded.device_mesh, sharded.placements)
    return gradient.to(p.dtype)


# DTensors are told by what they have, for the import of their module would take longer than that of svdrot.


def _is_dtensor(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if _is_dtensor(tensor) else tensor


def _whole(update: Tensor, like: Any) -> Tensor:
    if not _is_dtensor(like):
        return update
    from torch.distributed.tensor import DTensor

    sharded = DTensor.from_local(
        update, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return sharded.full_tensor()


def _shard(direction: Tensor, like: Any) -> Tensor:
    if not _is_dtensor(like):
        return direction
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(direction, like.device_mesh, like.placements, src_data_rank=None).to_local()


def _alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """The indices of equal keys, together."""
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _portions(stack: Tensor) -> Sequence[Tensor]:
    """On a CPU, parts of a batch that stay in the cache of a core: 1.5 times as fast for 100 of 64x64."""
    if not len(stack) or stack.device.type != "cpu":
        return [stack][: len(stack)]
    return stack.split(max(1, CACHED // (stack.shape[1:].numel() * stack.itemsize)))


def _owners(costs: Sequence[int], ranks: int) -> list[int]:
    """A rank for each cost, so that all have about the same: the largest first, to the least laden."""
    load, owner = [0] * ranks, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owner[i] = load.index(min(load))
        load[owner[i]] += costs[i]
    return owner
