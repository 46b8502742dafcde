"""A selection explained: its numbers in words and beside them those of the nearest neighbours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.nn.functional import pad

from kdprompt.calibration.calibration import Calibration
from kdprompt.objective.parameters import ObjectiveParameters
from kdprompt.objective.reader_profile import ReaderProfile
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Query
from kdprompt.printable import make_printable
from kdprompt.selection.accounting import Prompts
from kdprompt.selection.context import SelectionContext
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.late_accounts import account
from kdprompt.selection.per_query import choose_query_prompts
from kdprompt.selection.prefix import Prefix, group_by_prefix
from kdprompt.selection.result import ChosenDemonstration, Selection, TermValues
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Gaussian
from kdprompt.tuning.static_choice import StaticChoice

__all__ = ["Explanation", "explain_query", "explain_static"]


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why these demonstrations; ``str()``, or ``print``, gives all of it as text.

    Attributes:
        selection: The selection.
        nearest: The terms of as many nearest neighbours, nearest last, under the same J and the same limits (task,
            permitted outputs, budget, quotas, no two duplicates); fewer where no more fit.
        nearest_ids: Their ids.
        calibration: The settings in force and where they come from.
    """

    selection: Selection
    nearest: TermValues
    nearest_ids: tuple[str, ...]
    calibration: Calibration

    def __str__(self) -> str:
        selection = self.selection
        what = f"query: {selection.query.text}" if selection.query else "one prompt for the query distribution"
        lines = [what, *self._support(), "", *self._evidence()]
        lines += [f"{'':34}{'empty':>10}{'chosen':>10}{'nearest':>10}{'weight':>10}"]
        for name in LABELS:
            weight = getattr(selection.weights, name)
            values = (getattr(terms, name) for terms in (selection.empty_terms, selection.terms, self.nearest))
            lines.append(f"{LABELS[name]:34}" + "".join(f"{value:10.4f}" for value in (*values, weight)))
        totals = (selection.empty_terms.total, selection.terms.total, self.nearest.total)
        lines += [f"{'J, their weighted sum (R8)':34}" + "".join(f"{value:10.4f}" for value in totals), ""]
        lines += [
            f"interference from other tasks {selection.cross_task:.4f}, from conflicting outputs of the same task "
            f"{selection.label_conflict:.4f}",
            "",
            f"{len(selection)} demonstrations, {selection.tokens} tokens, in reading order:",
            f"{'weight':>8}{'attends':>9}{'gain':>9}{'marginal':>10}{'conflict':>10}",
            *map(_row, selection.chosen),
            "",
            "bounds with the theory's own constants:",
            *(f"  {b.result} {b.value:9.4f}  {b.kind.upper()}: {b.name}; {b.premise}" for b in selection.bounds),
            "",
            *self._settings(),
            *(f"note: {note}" for note in selection.notes),
        ]
        return make_printable("\n".join(lines))

    def __repr__(self) -> str:
        return f"Explanation({self.selection!r}, J of the nearest: {self.nearest.total:.3f}; print() shows all)"

    def to_html(self, path: str | Path, template: PromptTemplate | None = None) -> None:
        """Writes the page of the selection, see ``Selection.to_html``."""
        self.selection.to_html(path, template)

    def plot(self) -> Any:
        """Draws the selection, see ``Selection.plot``."""
        return self.selection.plot()

    def _repr_html_(self) -> str:
        return self.selection._repr_html_()

    def _support(self) -> list[str]:
        guess = ", ".join(f"{name} {value:.2f}" for name, value in self.selection.estimate.items())
        support = f"support of the estimated output: {self.selection.support:.4f}"
        return [support + (f"; likeliest: {guess}" if guess else "")]

    def _evidence(self) -> list[str]:
        """What speaks for each output, as differences to the first; none where outputs are no labels."""
        evidence = self.selection.evidence
        if not evidence:
            return []
        profile = self.profile
        first = evidence[0]
        rows = [
            f"{item.pool - first.pool:10.2f}{item.prompt - first.prompt:10.2f}{item.own - first.own:10.2f}"
            f"{item.target:10.2f}{item.expected:10.2f}  {item.output} ({item.shown:.0%} shown)"
            for item in evidence
        ]
        return [
            f"evidence in nats, against {first.output!r} (R9), for {profile.name}: follows τ = {profile.follow:g}, "
            f"recency ρ = {profile.recency:g}",
            f"{'pool':>10}{'prompt':>10}{'own':>10}{'aim':>10}{'expected':>10}",
            *rows,
            "",
        ]

    @property
    def profile(self) -> ReaderProfile:
        """The reader that J models (R9)."""
        return self._parameters.profile

    @property
    def _parameters(self) -> ObjectiveParameters:
        """J's parameters in force."""
        calibration = self.calibration
        return calibration.static_parameters if self.selection.query is None else calibration.parameters

    def _settings(self) -> list[str]:
        calibration, is_static, parameters = self.calibration, self.selection.query is None, self._parameters
        kernel = (
            f"temperature {parameters.kernel.temperature:.3g}"
            if isinstance(parameters.kernel, Gaussian)
            else f"{parameters.kernel}"
        )
        loss = ""
        if not is_static and calibration.chosen.loss is not None and calibration.chosen.interval is not None:
            low, high = calibration.chosen.interval
            loss = f"; expected loss on them {calibration.chosen.loss:.3f} (95 % interval {low:.3f} to {high:.3f})"
        return [
            f"settings: {kernel}, output kernel's share {parameters.output_share:.3g}, neighbourhood "
            f"{parameters.neighbourhood:.3g}",
            f"  {self.source}{loss}",
        ]

    @property
    def source(self) -> str:
        """Where the settings come from, in words."""
        if self.selection.query is not None:
            return self.calibration.source
        return "what is not pinned follows the rules for static prompts: a narrow kernel, and R6 by what k can show"


def _explain_prompt(context: SelectionContext, prompts: Prompts, calibration: Calibration) -> Explanation:
    """Accounts for one prompt and, for comparison, for as many nearest neighbours under the same J and limits.

    Args:
        context: The pool, the settings and J's parameters.
        prompts: One prompt, for one query or for a sample of them.
        calibration: Where the parameters come from.
    """
    selection = account(context, prompts)[0]
    assert selection.origin is not None  # it was chosen just now
    rows = pad(selection.origin.find_nearest_prompt(len(selection)), (0, 1), value=-1)  # one place at least
    nearest = account(context, replace(prompts, rows=rows, prefix_length=0))[0]
    return Explanation(selection, nearest.terms, nearest.ids, calibration)


def explain_query(
    pool: EmbeddedPool, query: Query, settings: Settings, calibration: Calibration, prefix: Prefix | None = None
) -> Explanation:
    """Chooses the prompt for one query and explains it; the query is embedded once."""
    encoded = pool.encode([query], settings)
    (group,) = group_by_prefix(pool, encoded, settings, prefix, calibration.prefix)
    context = calibration.query_context(pool, settings)
    return _explain_prompt(context, choose_query_prompts(context, [query], encoded, group.prefix), calibration)


def explain_static(choice: StaticChoice, calibration: Calibration) -> Explanation:
    """Explains a static prompt."""
    return _explain_prompt(choice.context, choice.prompts, calibration)


LABELS = {
    "bias": "bias, MMD to the target (R2)",
    "complexity": "complexity (R3)",
    "interference": "interference (R6)",
    "reader": "reader's expected log-loss (R9)",
}


def _row(chosen: ChosenDemonstration) -> str:
    shown = chosen.demonstration
    text = " ".join(f"{shown.input} → {shown.output}".split()) if shown.output is not None else shown.input
    text = text if len(text) <= 90 else text[:89] + "…"
    mark = " [other task]" if chosen.other_task else ""
    return (
        f"{chosen.weight:8.4f}{chosen.attention:9.4f}{chosen.gain:9.4f}{chosen.marginal:10.4f}"
        f"{chosen.interference:10.4f}  {shown.id}  {text}{mark}"
    )
