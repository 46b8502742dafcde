"""From a query's neighbours to its demonstrations in reading order: the rooms above, called in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdprompt.calibration import Calibration
from kdprompt.features import Features, Requests, allowed_rows, duplicates, in_turn
from kdprompt.objective import Objective, blocks
from kdprompt.pseudo import Trial
from kdprompt.search import Constraints, best_prefix, drawn, greedy, refine
from kdprompt.settings import Quota, Settings
from kdprompt.target import Neighbours, Target, query_or_neighbourhood

__all__ = [
    "Candidates",
    "candidates",
    "check_quota",
    "choose",
    "choose_each",
    "nearest_rows",
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


def candidates(features: Features, wanted: Requests, near: Neighbours, quota: Quota | None) -> Candidates:
    """The nearest rows of each query and, where a quota asks for an output, the nearest rows with that output."""
    if quota is None:
        return Candidates(near.index, near.valid)
    index, valid = [near.index], [near.valid]
    _, least = _limits(features, quota)
    group, names = _groups(features)
    if any(least):
        similarity = (wanted.q @ features.x.T).masked_fill(~allowed_rows(features, wanted), -torch.inf)
        for code in range(len(names)):
            inside = similarity.masked_fill(group != code, -torch.inf)
            top = inside.topk(min(least[code], len(features)), dim=-1)
            fresh = ~(top.indices[..., None] == near.index[:, None, :]).any(-1)
            index.append(top.indices)
            valid.append(top.values.isfinite() & fresh)
    merged, ok = torch.cat(index, -1), torch.cat(valid, -1)
    order = torch.where(ok, merged, len(features)).argsort(dim=-1, stable=True)
    return Candidates(merged.gather(-1, order), ok.gather(-1, order))


def static_candidates(features: Features, wanted: Requests, size: int) -> Candidates:
    """Rows for one prompt that serves many queries: all that may serve one of them, or the nearest of each in turn.

    Args:
        features: ``n`` rows.
        wanted: The queries, ``m`` of them; their own texts are not left out, for the prompt serves others too.
        size: Most rows.

    Returns:
        One problem with at most ``size`` candidates.
    """
    allowed = allowed_rows(features, replace(wanted, own=torch.full_like(wanted.own, -1)))
    if int(allowed.any(0).sum()) <= size:
        rows = allowed.any(0).nonzero().squeeze(-1)
    else:
        similarity = (wanted.q @ features.x.T).masked_fill(~allowed, -torch.inf)
        rows = torch.tensor(sorted(in_turn(similarity, size)), device=features.x.device)
    return Candidates(rows[None], torch.ones_like(rows, dtype=torch.bool)[None])


def nearest_rows(features: Features, wanted: Requests, k: int) -> Tensor:
    """The k rows nearest to the queries on average, nearest last, ``[1, k]``: what a plain selector would show."""
    similarity = (wanted.q @ features.x.T).mean(0, keepdim=True)
    similarity = similarity.masked_fill(~allowed_rows(features, wanted).any(0), -torch.inf)
    return similarity.topk(min(k, len(features)), dim=-1).indices.flip(-1)


def query_target(features: Features, near: Neighbours, calibration: Calibration) -> Target:
    """What each query's prompt is to come near to, one problem a query."""
    return query_or_neighbourhood(features, near, calibration.regression, calibration.chosen.neighbourhood)


def query_rows(  # noqa: PLR0913 - as ``choose``
    features: Features,
    wanted: Requests,
    near: Neighbours,
    calibration: Calibration,
    settings: Settings,
    lengths: Tensor | None,
    core: Tensor,
) -> Tensor:
    """Demonstrations for each of ``b`` queries, of its neighbours and behind the core ``[c]``, as ``choose`` does."""
    options = candidates(features, wanted, near, settings.quota).behind(core)
    target = query_target(features, near, calibration)
    return choose(features, options, target, calibration.chosen, settings, lengths)


def choose(
    features: Features,
    options: Candidates,
    target: Target,
    trial: Trial,
    settings: Settings,
    lengths: Tensor | None = None,
) -> Tensor:
    """Greedy, prefix, swaps, order.

    Args:
        features: The pool.
        options: Candidates of ``b`` problems.
        target: Their targets.
        trial: Calibrated settings in force.
        settings: How many, under which limits, in which order.
        lengths: Tokens of each row ``[n]``; needed for a budget.

    Returns:
        Feature rows in reading order ``[b, K]``, the core first as it is, −1 pads last.
    """
    return choose_each(features, options, [options.valid], target, trial, settings, lengths)[0]


def choose_each(  # noqa: PLR0913 - as ``choose``
    features: Features,
    options: Candidates,
    valid: Sequence[Tensor],
    target: Target,
    trial: Trial,
    settings: Settings,
    lengths: Tensor | None = None,
    keys: Sequence[Tensor] = (),
) -> list[Tensor]:
    """As ``choose``, once for each of some restrictions ``valid`` of the candidates; J's parts are computed once.

    For each of the random ``keys`` ``[b, L]`` a set follows that is drawn, under the first restriction and as large as
    the first set; J only orders it, where it orders the others.
    """
    index = options.index
    parts = blocks(trial.kernel, features.x[index], features.v[index], target, features.radius)
    objective = Objective.of(parts, trial.share, trial.penalties)
    rules = _constraints(features, options, settings, lengths)
    sets = []
    for each in valid:
        part = replace(rules, valid=each)
        path = greedy(objective, part, settings.most, options.core)
        chosen = best_prefix(path, trial.tolerance) if settings.k == "auto" else path.chosen
        sets.append(refine(objective, part, chosen, options.core))
    size = int((sets[0] >= 0).sum(-1).amax())
    sets.extend(drawn(replace(rules, valid=valid[0]), size, each) for each in keys)
    arranged = [settings.reading.arrange(objective, chosen, options.core) for chosen in sets]
    return [torch.where(rows >= 0, index.gather(-1, rows.clamp_min(0)), -1) for rows in arranged]


def _constraints(features: Features, options: Candidates, settings: Settings, lengths: Tensor | None) -> Constraints:
    device, index = options.index.device, options.index
    group, most, least = None, None, None
    if settings.quota is not None:
        group = _groups(features)[0][index]
        limits = _limits(features, settings.quota)
        most, least = (torch.tensor(limit, dtype=torch.long, device=device) for limit in limits)
    return Constraints(
        valid=options.valid,
        duplicate=duplicates(features, index, settings.near_duplicate),
        cost=None if settings.budget is None or lengths is None else lengths[index],
        budget=settings.budget or 0,
        group=group,
        most=most,
        least=least,
    )


def _groups(features: Features) -> tuple[Tensor, list[str]]:
    """Code of each row's output whatever its task ``[n]``, −1 for none, and the codes' names."""
    names = sorted({output for _, output in features.labels})
    table = torch.tensor([names.index(output) for _, output in features.labels] + [-1], device=features.x.device)
    return table[features.label], names


def _limits(features: Features, quota: Quota | None) -> tuple[list[int], list[int]]:
    """Largest and smallest number of each output."""
    names = _groups(features)[1]
    most, least = (quota.most, quota.least) if quota is not None else (None, None)
    return _by_output(most, names, 1 << 30, "most"), _by_output(least, names, 0, "least")


def check_quota(features: Features, settings: Settings) -> None:
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
