"""From a query's neighbours to its demonstrations in reading order: the rooms above, called in turn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.calibration.pseudo_queries import Trial
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.target import Target, query_or_neighbourhood
from kdprompt.pool.neighbours import Neighbours, find_duplicates, rank_in_turn
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows
from kdprompt.search.constraints import Constraints
from kdprompt.search.exchange import draw_sets, replace_member
from kdprompt.search.ordering import ByObjective
from kdprompt.search.search import cut_path, greedy_search, refine_by_swaps
from kdprompt.settings import Quota, Settings

__all__ = [
    "Candidates",
    "SelectionProblem",
    "check_quota",
    "nearest_rows",
    "query_candidates",
    "query_rows",
    "query_target",
    "static_candidates",
]


@dataclass(frozen=True)
class Candidates:
    """Rows that J is searched over.

    Attributes:
        index: Rows of the features ``[b, L]``; behind the core ascending.
        valid: Which of them may be chosen ``[b, L]``.
        core: How many of the first are in every set already.
    """

    index: Tensor
    valid: Tensor
    core: int = 0

    def behind(self, core: Tensor) -> "Candidates":
        """The same with the rows ``core: [c]`` in every set, in this order; they are not chosen once more."""
        again = (self.index[..., None] == core).any(-1)
        index = torch.cat([core.expand(len(self.index), -1), self.index], -1)
        never = torch.zeros_like(index[:, : len(core)], dtype=torch.bool)
        return Candidates(index, torch.cat([never, self.valid & ~again], -1), len(core))


def query_candidates(features: PoolTensors, wanted: QueryTensors, near: Neighbours, quota: Quota | None) -> Candidates:
    """The nearest rows of each query and, where a quota asks for an output, the nearest rows with that output."""
    if quota is None:
        return Candidates(near.index, near.valid)
    index, valid = [near.index], [near.valid]
    _, least = _limits(features, quota)
    group, names = _groups(features)
    if any(least):
        similarity = (wanted.q @ features.x.T).masked_fill(~find_allowed_rows(features, wanted), -torch.inf)
        for code in range(len(names)):
            inside = similarity.masked_fill(group != code, -torch.inf)
            top = inside.topk(min(least[code], len(features)), dim=-1)
            fresh = ~(top.indices[..., None] == near.index[:, None, :]).any(-1)
            index.append(top.indices)
            valid.append(top.values.isfinite() & fresh)
    merged, ok = torch.cat(index, -1), torch.cat(valid, -1)
    order = torch.where(ok, merged, len(features)).argsort(dim=-1, stable=True)
    return Candidates(merged.gather(-1, order), ok.gather(-1, order))


def static_candidates(features: PoolTensors, wanted: QueryTensors, size: int) -> Candidates:
    """Rows for one prompt that serves many queries: all that may serve one of them, or the nearest of each in turn.

    Args:
        features: ``n`` rows.
        wanted: The queries, ``m`` of them; their own texts are not left out, for the prompt serves others too.
        size: Most rows.

    Returns:
        One problem with at most ``size`` candidates.
    """
    allowed = find_allowed_rows(features, replace(wanted, own=torch.full_like(wanted.own, -1)))
    if int(allowed.any(0).sum()) <= size:
        rows = allowed.any(0).nonzero().squeeze(-1)
    else:
        similarity = (wanted.q @ features.x.T).masked_fill(~allowed, -torch.inf)
        rows = torch.tensor(sorted(rank_in_turn(similarity, size)), device=features.x.device)
    return Candidates(rows[None], torch.ones_like(rows, dtype=torch.bool)[None])


def nearest_rows(features: PoolTensors, wanted: QueryTensors, k: int) -> Tensor:
    """The k rows nearest to the queries on average, nearest last, ``[1, k]``: what a plain selector would show."""
    similarity = (wanted.q @ features.x.T).mean(0, keepdim=True)
    similarity = similarity.masked_fill(~find_allowed_rows(features, wanted).any(0), -torch.inf)
    return similarity.topk(min(k, len(features)), dim=-1).indices.flip(-1)


def query_target(features: PoolTensors, near: Neighbours, calibration: Calibration) -> Target:
    """What each query's prompt is to come near to, one problem a query."""
    return query_or_neighbourhood(features, near, calibration.regression, calibration.chosen.neighbourhood)


def query_rows(  # noqa: PLR0913 - what it needs comes from as many rooms
    features: PoolTensors,
    wanted: QueryTensors,
    near: Neighbours,
    calibration: Calibration,
    settings: Settings,
    lengths: Tensor | None,
    core: Tensor,
) -> Tensor:
    """The set of least J for each of ``b`` queries, of its neighbours and behind the core ``[c]``."""
    options = query_candidates(features, wanted, near, settings.quota).behind(core)
    target = query_target(features, near, calibration)
    return SelectionProblem.of(features, options, target, calibration.chosen, settings, lengths).least()


@dataclass(frozen=True)
class SelectionProblem:
    """J over some candidates, and the limits; its parts are computed once however many sets are asked for.

    Attributes:
        options: The candidates of ``b`` problems.
        objective: J over them.
        rules: Which sets are allowed.
        tolerance: Of ``cut_path``, where k is ``"auto"``.
        settings: How many, in which order.
    """

    options: Candidates
    objective: Objective
    rules: Constraints
    tolerance: float
    settings: Settings

    @classmethod
    def of(
        cls,
        features: PoolTensors,
        options: Candidates,
        target: Target,
        trial: Trial,
        settings: Settings,
        lengths: Tensor | None = None,
    ) -> "SelectionProblem":
        """J and the limits.

        Args:
            features: The pool.
            options: Candidates of ``b`` problems.
            target: Their targets.
            trial: Calibrated settings in force.
            settings: How many, under which limits, in which order.
            lengths: Tokens of each row ``[n]``; needed for a budget.
        """
        index = options.index
        parts = compute_gram_blocks(trial.kernel, features.x[index], features.v[index], target, features.radius)
        objective = Objective.of(parts, trial.share, trial.penalties)
        return cls(options, objective, _constraints(features, options, settings, lengths), trial.tolerance, settings)

    def least(self, valid: Tensor | None = None) -> Tensor:
        """The set of least J, by greedy, prefix and swaps, among all candidates or those of ``valid`` ``[b, L]``.

        Returns:
            Feature rows in reading order ``[b, K]``, the core first as it is, −1 pads last.
        """
        rules, core = self.rules if valid is None else replace(self.rules, valid=valid), self.options.core
        path = greedy_search(self.objective, rules, self.settings.most, core)
        chosen = cut_path(path, self.tolerance) if self.settings.k == "auto" else path.chosen
        return self._read(refine_by_swaps(self.objective, rules, chosen, core))

    def drawn(self, size: int, keys: Tensor) -> Tensor:
        """A set that random ``keys`` ``[b, L]`` draw, J has no part but in its order, ``[b, size]``."""
        return self._read(draw_sets(self.rules, size, keys))

    def replace_member(self, rows: Tensor, place: int, keys: Tensor) -> Tensor:
        """A prompt ``[b, K]`` with another demonstration in one place, the feasible one with the largest key.

        A fixed rule arranges it again; where the order is free, the others keep their places. The prompt stays as it is
        where no other demonstration may stand there.
        """
        chosen = (self.options.index[:, None, :] == rows[..., None]).to(torch.uint8).argmax(-1)
        found = replace_member(self.rules, torch.where(rows >= 0, chosen, -1), place, keys)
        return self._rows(found) if self.free_order else self._read(found)

    @property
    def free_order(self) -> bool:
        """Whether J orders what it chose, so that any order may be tried."""
        return isinstance(self.settings.reading, ByObjective)

    def _read(self, chosen: Tensor) -> Tensor:
        return self._rows(self.settings.reading.arrange(self.objective, chosen, self.options.core))

    def _rows(self, chosen: Tensor) -> Tensor:
        return torch.where(chosen >= 0, self.options.index.gather(-1, chosen.clamp_min(0)), -1)


def _constraints(features: PoolTensors, options: Candidates, settings: Settings, lengths: Tensor | None) -> Constraints:
    device, index = options.index.device, options.index
    group, most, least = None, None, None
    if settings.quota is not None:
        group = _groups(features)[0][index]
        limits = _limits(features, settings.quota)
        most, least = (torch.tensor(limit, dtype=torch.long, device=device) for limit in limits)
    return Constraints(
        valid=options.valid,
        duplicate=find_duplicates(features, index, settings.near_duplicate),
        cost=None if settings.budget is None or lengths is None else lengths[index],
        budget=settings.budget or 0,
        group=group,
        most=most,
        least=least,
    )


def _groups(features: PoolTensors) -> tuple[Tensor, list[str]]:
    """Code of each row's output whatever its task ``[n]``, −1 for none, and the codes' names."""
    names = sorted({output for _, output in features.labels})
    table = torch.tensor([names.index(output) for _, output in features.labels] + [-1], device=features.x.device)
    return table[features.label], names


def _limits(features: PoolTensors, quota: Quota | None) -> tuple[list[int], list[int]]:
    """Largest and smallest number of each output."""
    names = _groups(features)[1]
    most, least = (quota.most, quota.least) if quota is not None else (None, None)
    return _by_output(most, names, 1 << 30, "most"), _by_output(least, names, 0, "least")


def check_quota(features: PoolTensors, settings: Settings) -> None:
    """Says what contradicts itself or the pool in a quota.

    Raises:
        ValueError: An output is not in the pool, asks for more than it allows, or the minima exceed k together.
    """
    most, least = _limits(features, settings.quota)
    for name, low, high in zip(_groups(features)[1], least, most, strict=True):
        if low > high:
            raise ValueError(f"quota.least must be at most quota.most, got {low} and {high} for the output {name!r}")
    if sum(least) > settings.most:
        raise ValueError(
            f"quota.least must ask for at most k = {settings.most} demonstrations together, got {sum(least)}; raise k "
            "or lower the quota"
        )


def _by_output(value: int | Mapping[str, int] | None, names: list[str], free: int, what: str) -> list[int]:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - set(names))
        if unknown:
            raise ValueError(
                f"quota.{what} names the output {unknown[0]!r}, which the pool does not have; it has {names[:20]}"
            )
        return [value.get(name, free) for name in names]
    return [free if value is None else value] * len(names)
