"""Calibration without an LLM: the temperature, the share of the output kernel, and the weights of J.

The worst-case constants of R3 dwarf the bias at the lengths of real prompts, so J's weights are not the bound's.
Pool examples are held out as pseudo-queries, disjoint from every shortlist, their outputs hidden; the demonstrations
chosen for them are scored against the true output. For labels the score is the log-loss that the reader is expected to
have under its profile (R9), for embedded outputs the squared distance of the nearest one that is shown, which the
likelihood of the true text follows (``lexical_fit``).
Settings whose loss is within one standard error (paired) of the best are near-ties. Of these, for labels, one with the
smallest weight of R9 is taken: where the score tells nothing apart, the MMD keeps its say in which inputs are shown.
For text, the one whose prompts show, on average, what is nearest to the true output: some readers follow the one output
that fits, others are led away by those that do not.

Rejected: the 0–1 loss of the read-out, which decided before. It rewards prompts that show one output, whose answers
are a vote: right as often as the vote, and where that is wrong a reader that knew better is talked out of it. For text,
the squared distance of the read-out Σ a_i(q) v(z_i), which shows what is alike where one that fits is needed: the true
output was less likely than behind nearest neighbours.

A static prompt has parameters of its own. Its few demonstrations stand for many queries, most of them far away: under a
temperature as wide as one query likes, each query would attend to all of them alike, R6 would be least where all have
the commonest output, and the read-out could tell nothing apart. So the temperature is a fixed part of the median
heuristic's, and R6 weighs as much as the MMD, times the share of the outputs that k demonstrations can show: what no
prompt of k can hold is no reason to choose among prompts. Both were chosen on answers of a small LM to dev queries.
Rejected there: the temperature by the loss of the static read-out (it finds the same range, but within it prefers
narrower kernels than the reader does), and outputs in proportion to their estimated share (quotas), which cost as much
where a reader prefers one output as it gained elsewhere.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated, TypeVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from kdprompt.calibration.held_out import LeftOutRows, hold_out
from kdprompt.calibration.lexical_fit import fit_lexical_share
from kdprompt.calibration.pseudo_queries import PseudoQueries, Trial, find_best
from kdprompt.calibration.regression_fit import fit_regression
from kdprompt.deprecation import keep_attributes
from kdprompt.objective.own_knowledge import OwnEstimate, OwnKnowledge
from kdprompt.objective.parameters import ObjectiveParameters, ObjectiveWeights
from kdprompt.objective.reader_profile import CAPABLE_READER
from kdprompt.objective.regression import KernelRegression
from kdprompt.observation import observe
from kdprompt.pool.pool_tensors import OutputMode, PoolTensors
from kdprompt.search.ordering import AgreementLast, EvidenceLast, LikeliestLast, Order
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings
from kdprompt.theory.bandwidth import median_heuristic
from kdprompt.theory.kernels import Gaussian, Kernel
from kdprompt.theory.standard_error import is_within_one_standard_error

__all__ = ["Calibration", "calibrate", "calibrate_pool"]

T = TypeVar("T")
logger = logging.getLogger(__name__)
PSEUDO_QUERIES = 192
FEWEST = 24
TEMPERATURES = (1.0, 2.0, 4.0)  # multiples of the regression's
OUTPUT_SHARES = (0.0, 0.5, 1.0)
NEIGHBOURHOODS = (0.0, 0.5)
READER_WEIGHTS = (0.25, 1.0, 4.0)  # of R9 where outputs are labels
INTERFERENCES = (0.0, 0.25, 1.0)  # of R6 where they are not
STATIC_NARROWING = 16.0  # the median heuristic's temperature over a static prompt's
TOLERANCES = (0.0, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Calibration:
    """What a selector works with.

    Attributes:
        chosen: The parameters of J in force for one query, and their loss.
        static_parameters: Those of a static prompt.
        regression: Estimates unknown outputs.
        trials: Everything that was tried; empty where nothing was.
        pseudo_queries: How many pool examples were held out.
        source: Where the parameters come from, in words.
        order: For one query, the reading order with which a reader answered best; None where none was asked.
        prefix: Ids of the demonstrations that stand first in the prompts for single queries, because a reader answered
            better with them.
        own: What a reader answered to examples without the pool's help; None where none was asked.
        lexical_share: Share of words in the vectors that inputs are compared by, in [0, 1].
    """

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    chosen: Trial
    static_parameters: ObjectiveParameters
    regression: KernelRegression
    trials: tuple[Trial, ...] = field(repr=False)
    pseudo_queries: Annotated[int, Field(ge=0)]
    source: str
    order: Order | None = None
    prefix: tuple[str, ...] = ()
    own: OwnKnowledge | None = field(default=None, repr=False)
    lexical_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def parameters(self) -> ObjectiveParameters:
        """The parameters of J in force for one query."""
        return self.chosen.parameters

    def choose_order(self, output_mode: OutputMode) -> Order:
        """The order for one query that neither the settings nor a reader chose.

        Args:
            output_mode: How outputs enter. Text: what the pool makes one expect stands last (R7). Else: the order that
                J's model of the reader decides, where it has one (R9).
        """
        if output_mode == "text":
            return AgreementLast()
        return EvidenceLast() if self.parameters.weights.reader > 0 else LikeliestLast()

    def query_context(self, pool: EmbeddedPool, settings: Settings) -> SelectionContext:
        """What prompts for single queries depend on; a reader's order holds where the settings leave it open.

        Where none was asked, what the outputs are decides (``choose_order``).
        """
        if settings.order is None:
            order = self.order or self.choose_order(pool.tensors.output_mode)
            settings = settings.model_copy(update={"order": order})
        return SelectionContext(pool, settings, self.parameters, self.regression, pool.estimate_own(self.own))

    def static_context(self, pool: EmbeddedPool, settings: Settings) -> SelectionContext:
        """What a static prompt depends on; the settings are those of ``for_static_prompt``."""
        return SelectionContext(pool, settings, self.static_parameters, self.regression, pool.estimate_own(self.own))


keep_attributes(Calibration, {"static": "static_parameters", "core": "prefix"})


def calibrate_pool(
    pool: EmbeddedPool, traffic: Traffic | None, settings: Settings, own: OwnKnowledge | None = None
) -> Calibration:
    """Calibrates on an embedded pool; the pseudo-queries are near the traffic where there is a sample of it.

    Args:
        pool: The pool.
        traffic: A sample of the traffic, or None.
        settings: What is fixed there stays, the profile of a reader among it.
        own: What that reader answered to examples without the pool's help.
    """
    with observe(logger, "calibrate", examples=len(pool.tensors)) as counts:
        share = fit_lexical_share(pool.with_lexical_share(0.0, settings), settings)
        pool = pool.with_lexical_share(share, settings)
        q = None if traffic is None else pool.encode(traffic.queries, settings, traffic.vectors).q
        found = calibrate(pool.tensors, settings, q, pool.estimate_own(own))
        counts |= {"pseudo_queries": found.pseudo_queries, "trials": len(found.trials)}
    return replace(found, own=own, lexical_share=share)


def calibrate(
    pool: PoolTensors, settings: Settings, traffic: Tensor | None = None, own_estimate: OwnEstimate | None = None
) -> Calibration:
    """Chooses the parameters of J that the settings leave open.

    Args:
        pool: The pool.
        settings: What is fixed there stays.
        traffic: Unit-norm embeddings of real queries ``[m, d]``: the pseudo-queries are then the pool examples
            nearest to them, instead of a uniform sample.
        own_estimate: What the reader knows of queries itself, or None.

    Returns:
        The parameters in force with the evidence for them. Deterministic for a seed and a pool.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    count = min(PSEUDO_QUERIES, len(pool) // 4)
    left_out = LeftOutRows.draw(pool, settings.search.shortlist, generator, count if traffic is None else 0)
    regression = fit_regression(pool, settings, left_out)
    weights = _list_weights(pool)
    default = next(_list_options(settings, regression, weights[:1]))
    options = list(_list_options(settings, regression, weights))
    median = median_heuristic(pool.x)
    static = _static_parameters(pool, settings, default, median)
    obstacle = _why_not(pool, settings, count)
    if obstacle:
        chosen = Trial(default.model_copy(update={"kernel": settings.objective.kernel or Gaussian(median)}))
        source = f"defaults, temperature by the median heuristic: {obstacle}"
        return Calibration(chosen, static, regression, (), 0, source)
    if len(options) == 1 and settings.k != "auto":
        return Calibration(Trial(options[0]), static, regression, (), 0, "pinned by the settings")
    held_out = hold_out(left_out, count, generator, traffic)
    pseudo = PseudoQueries.build(pool, settings, regression, held_out, own_estimate)
    trials, chosen = _try_options(pseudo, options, settings)
    static = static.model_copy(update={"tolerance": chosen.parameters.tolerance})
    source = f"calibrated on {count} pool examples held out as pseudo-queries, {len(trials)} settings tried"
    source += _say_noise(pool, regression)
    return Calibration(chosen, static, regression, tuple(trials), count, source)


def _try_options(
    pseudo: PseudoQueries, options: list[ObjectiveParameters], settings: Settings
) -> tuple[list[Trial], Trial]:
    """Every trial that was made, and the best one."""
    adaptive = settings.k == "auto"
    results = pseudo.try_all(options, settings.largest_k, adaptive=adaptive)
    longest = find_best(results)
    chosen = longest.trial
    if adaptive and settings.objective.tolerance is None:
        shortened = [chosen.parameters.model_copy(update={"tolerance": value}) for value in TOLERANCES[1:]]
        by_tolerance = [longest, *pseudo.try_all(shortened, settings.largest_k, adaptive=True)]
        best = min(by_tolerance, key=lambda result: result.mean_loss)
        # The shortest prompts that lose no more than one standard error.
        chosen = next(
            result.trial
            for result in reversed(by_tolerance)
            if is_within_one_standard_error(result.losses, best.losses)
        )
        results += by_tolerance[1:]
    return [result.trial for result in results], chosen


def _static_parameters(
    pool: PoolTensors, settings: Settings, default: ObjectiveParameters, median: float
) -> ObjectiveParameters:
    weights = settings.objective.weights or ObjectiveWeights(interference=_coverable_share(pool, settings.largest_k))
    kernel = settings.objective.kernel or Gaussian(median / STATIC_NARROWING)
    return default.model_copy(update={"kernel": kernel, "weights": weights})


def _coverable_share(pool: PoolTensors, k: int) -> float:
    """The largest share of the outputs, of one task, that k demonstrations can show, in [0, 1]; 1 without labels."""
    if pool.output_mode != "labels":
        return 1.0
    shares = pool.priors[:-1] if pool.tasks else pool.priors
    return round(float(shares.topk(min(k, shares.shape[-1]), dim=-1).values.sum(-1).max()), 6)


def _why_not(pool: PoolTensors, settings: Settings, count: int) -> str:
    """Why nothing can be tried, in words; empty where it can."""
    if not settings.calibrate:
        return "calibration is switched off"
    if pool.output_mode == "none":
        return "the pool has no outputs to calibrate on"
    return f"a pool of {len(pool)} is too small to calibrate on" if count < FEWEST else ""


def _say_noise(pool: PoolTensors, regression: KernelRegression) -> str:
    """How many labels of the pool seem to be wrong, in words; empty where none were found to be."""
    if regression.ridge is None or regression.ridge.noise == 0:
        return ""
    of_tasks = (pool.priors > 0).sum(-1)  # a number a task, not a row of priors an example
    possible = of_tasks[pool.task[pool.label >= 0].cpu()]
    wrong = regression.ridge.noise * float((1 - 1 / possible).mean())  # what is drawn at random may be right
    return f"; about {100 * wrong:.0f} % of the labels seem to be wrong"


def _list_weights(pool: PoolTensors) -> tuple[ObjectiveWeights, ...]:
    """What may be tried for the weights of J: of R9 for labels, of R6 for other outputs."""
    if pool.output_mode == "labels":
        return tuple(ObjectiveWeights(reader=value) for value in READER_WEIGHTS)
    return tuple(ObjectiveWeights(interference=value) for value in INTERFERENCES)


def _list_options(
    settings: Settings, regression: KernelRegression, weights: tuple[ObjectiveWeights, ...]
) -> Iterator[ObjectiveParameters]:
    """What may be tried; fixed parameters have one value, so have the others where there is one choice of weights."""
    default = len(weights) == 1

    def values(fixed: T | None, preferred: T, grid: tuple[T, ...]) -> tuple[T, ...]:
        return (fixed,) if fixed is not None else (preferred,) if default else grid

    base = regression.kernel
    kernels: tuple[Kernel, ...] = (base,)
    if settings.objective.kernel is not None:
        kernels = (settings.objective.kernel,)
    elif isinstance(base, Gaussian) and not default:
        kernels = tuple(Gaussian(base.temperature * factor) for factor in TEMPERATURES)
    for kernel, output_share, neighbourhood, weights_of_terms in product(
        kernels,
        values(settings.objective.output_share, 0.5, OUTPUT_SHARES),
        values(settings.objective.neighbourhood, 0.0, NEIGHBOURHOODS),
        values(settings.objective.weights, weights[0], weights),
    ):
        yield ObjectiveParameters(
            kernel=kernel,
            output_share=output_share,
            neighbourhood=neighbourhood,
            weights=weights_of_terms,
            profile=settings.objective.profile or CAPABLE_READER,
            tolerance=settings.objective.tolerance or 0.0,
        )
