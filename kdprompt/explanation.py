"""A selection explained: its numbers in words and beside them those of the nearest neighbours."""

from dataclasses import dataclass

import torch

from kdprompt.calibration.calibration import Calibration
from kdprompt.objective.target import Target
from kdprompt.pool.query_tensors import QueryTensors
from kdprompt.selection.accounting import Geometry, audit
from kdprompt.selection.embedded_pool import EmbeddedPool
from kdprompt.selection.problem import nearest_rows
from kdprompt.selection.result import ChosenDemonstration, Selection, TermValues
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Gaussian

__all__ = ["Explanation", "explained"]


@dataclass(frozen=True)
class Explanation:
    """Why these demonstrations; ``str()`` is the page.

    Attributes:
        selection: The selection.
        nearest: The terms of as many nearest neighbours, nearest last, under the same J.
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
        lines = [what, *self._support(), ""]
        lines += [f"{'':34}{'empty':>10}{'chosen':>10}{'nearest':>10}{'weight':>10}"]
        for name, weight in (
            ("bias", selection.penalties.bias),
            ("complexity", selection.penalties.complexity),
            ("interference", selection.penalties.interference),
        ):
            values = (getattr(terms, name) for terms in (selection.before, selection.after, self.nearest))
            lines.append(f"{LABELS[name]:34}" + "".join(f"{value:10.4f}" for value in (*values, weight)))
        totals = (selection.before.total, selection.after.total, self.nearest.total)
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
        return "\n".join(lines)

    def _support(self) -> list[str]:
        guess = ", ".join(f"{name} {value:.2f}" for name, value in self.selection.estimate.items())
        support = f"support of the estimated output: {self.selection.support:.4f}"
        return [support + (f"; likeliest: {guess}" if guess else "")]

    def _settings(self) -> list[str]:
        chosen = self.calibration.chosen if self.selection.query is not None else self.calibration.static
        kernel = (
            f"temperature {chosen.kernel.temperature:.3g}"
            if isinstance(chosen.kernel, Gaussian)
            else f"{chosen.kernel}"
        )
        loss = ""
        if chosen.loss is not None and chosen.interval is not None:
            low, high = chosen.interval
            loss = f"; its loss on them {chosen.loss:.3f} (95 % interval {low:.3f} to {high:.3f})"
        return [
            f"settings: {kernel}, output kernel's share {chosen.share:.3g}, neighbourhood {chosen.neighbourhood:.3g}",
            f"  {self.source}{loss}",
        ]

    @property
    def source(self) -> str:
        """Where the settings come from, in words."""
        if self.selection.query is not None:
            return self.calibration.source
        return "what is not pinned follows the rules for static prompts: a narrow kernel, and R6 by what k can show"


def explained(
    selection: Selection,
    corpus: EmbeddedPool,
    wanted: QueryTensors,
    target: Target,
    calibration: Calibration,
    settings: Settings,
) -> Explanation:
    """Audits as many nearest neighbours as were selected.

    Args:
        selection: The selection; without a query a static prompt.
        corpus: The pool.
        wanted: The query, or the sample of the traffic.
        target: Its target, exact.
        calibration: The settings in force.
        settings: All the others.
    """
    trial = calibration.static if selection.query is None else calibration.chosen
    rows = nearest_rows(corpus.features, wanted, max(len(selection), 1))
    rows = rows if len(selection) else torch.full_like(rows, -1)
    nearest = audit(corpus.features, target, rows, Geometry.of(trial, settings), wanted.task[None])[0]
    return Explanation(
        selection, nearest.after, tuple(corpus.at(member.row).id for member in nearest.members), calibration
    )


LABELS = {
    "bias": "bias, MMD to the target (R2)",
    "complexity": "complexity (R3)",
    "interference": "interference (R6)",
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
