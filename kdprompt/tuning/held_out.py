"""Pool examples that are held out, and what a reader loses on them: how prompts, or ways to make them, are compared.

No label of a query is needed, for the pool has true outputs. A local model gives probabilities and the loss is a
log-loss; free text is compared by the distance of its embedding.

Rejected: comparing by the reader's agreement with the estimated outputs of the queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from kdprompt.errors import PoolError
from kdprompt.pool.embedding import embed_documents
from kdprompt.pool.pool_tensors import PoolTensors
from kdprompt.pool.records import Demonstration, normalise_text
from kdprompt.pool.vectors import normalise_rows
from kdprompt.readers.answer_gate import check_answer
from kdprompt.readers.reader import Answer, Reader
from kdprompt.selection.context import SelectionContext
from kdprompt.tuning.halving import sequential_halving

__all__ = ["EvaluationOutcome", "HeldOutEvaluation"]

FEWEST = 24
Prompts = Sequence[Sequence[int]]  # rows of the pool in reading order, for each held-out example


@dataclass
class EvaluationOutcome:
    """What a reader lost on some held-out examples.

    Attributes:
        losses: −log probability of the true output in nats, 0 and 1 from a reader that knows no probabilities; squared
            distance of the embedded outputs for free text.
        wrong: Whether the answer was wrong, where there are labels.
    """

    losses: list[float] = field(default_factory=list)
    wrong: list[bool] = field(default_factory=list)

    def __str__(self) -> str:
        """In words."""
        measure = "loss" if self.wrong else "squared distance of the outputs"
        right = f", {1 - fmean(self.wrong):.0%} right" if self.wrong else ""
        return f"{measure} {fmean(self.losses):.3f} on {len(self.losses)} of them{right}"


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Held-out examples of a pool, and who answers them.

    Attributes:
        context: The pool, and how prompts are written.
        reader: Who answers.
        held: Rows of the examples ``[h]``.
        labels: All the outputs there can be; None: free text.
    """

    context: SelectionContext
    reader: Reader
    held: Tensor
    labels: tuple[str, ...] | None

    @classmethod
    def build(
        cls,
        context: SelectionContext,
        reader: Reader,
        rows: Tensor,
        size: int,
        generator: torch.Generator,
        labels: tuple[str, ...] | None = None,
    ) -> "HeldOutEvaluation":
        """Holds out a sample of some rows.

        Args:
            context: The pool, and how prompts are written.
            reader: Who answers.
            rows: The examples that may serve the queries and so may stand for them; their outputs are the labels.
            size: Most examples; at most a quarter of those that have an output.
            generator: Draws them.
            labels: What the reader chooses among; None: the outputs of the rows, or free text.

        Raises:
            PoolError: There are fewer than 96 examples with an output.
            TypeError: What is given is no reader.
        """
        if not hasattr(reader, "answers"):
            raise TypeError(
                "reader must have answers(prompts, labels), as kdprompt.LabelReader(model) and "
                f"TextReader(llm) have, got {type(reader).__name__}: {reader!r:.80}"
            )
        with_output = rows[context.tensors.label[rows] >= 0]
        if len(with_output) // 4 < FEWEST:
            raise PoolError(
                f"a reader compares prompts on a quarter of the examples with an output that may serve the queries; "
                f"there must be at least {4 * FEWEST} of them, got {len(with_output)}; add examples or leave the "
                "reader out"
            )
        drawn = torch.randperm(len(with_output), generator=generator)[: min(size, len(with_output) // 4)]
        held = with_output[drawn.to(with_output.device)]
        return cls(context, reader, held, labels or _list_labels(context.tensors, rows))

    def without_held_out(self, rows: Tensor) -> Tensor:
        """Those of some rows whose text is none of the held-out examples'."""
        text = self.context.tensors.text
        return rows[~torch.isin(text[rows], text[self.held])]

    def ask(self, prompts: Prompts) -> EvaluationOutcome:
        """What the reader loses with the prompts."""
        outcome = EvaluationOutcome()
        self._ask(prompts, range(len(self.held)), outcome)
        return outcome

    def race(self, candidates: Sequence[Prompts], *, first: int) -> tuple[int, list[EvaluationOutcome]]:
        """Finds the candidate of least mean loss by sequential halving.

        Args:
            candidates: What each shows for every held-out example; at least 1.
            first: Examples of the first round.

        Returns:
            The winner, which is tried on all examples, and each candidate's outcome on what it was tried on.
        """
        outcomes = [EvaluationOutcome() for _ in candidates]

        def losses(candidate: int, part: range) -> Sequence[float]:
            self._ask(candidates[candidate], part, outcomes[candidate])
            return outcomes[candidate].losses[-len(part) :]

        winner = sequential_halving(len(candidates), losses, first=first, total=len(self.held)).winner
        rest = range(len(outcomes[winner].losses), len(self.held))
        if rest:
            losses(winner, rest)
        return winner, outcomes

    def answer(self, prompts: Prompts) -> list[Answer]:
        """What the reader answers to each example behind its prompt."""
        return self._answer(prompts, range(len(self.held)))

    def _answer(self, prompts: Prompts, part: range) -> list[Answer]:
        pool, template = self.context.pool, self.context.settings.template
        shown = [[pool.demonstration(row) for row in prompts[i]] for i in part]
        inputs = [pool.demonstration(int(self.held[i])).input for i in part]
        texts = [template.text(rows, text) for rows, text in zip(shown, inputs, strict=True)]
        answers = list(self.reader.answers(texts, self.labels))
        if len(answers) != len(texts):
            raise ValueError(
                f"the reader {self.reader.name!r} must give one answer a prompt, got {len(answers)} for {len(texts)}"
            )
        for answer, text in zip(answers, inputs, strict=True):
            self._check(answer, text)
        return answers

    def _check(self, answer: Answer, text: str) -> None:
        """Raises a ``ValueError`` if an answer is none, as where its log-probabilities are not one for each label."""
        try:
            check_answer(answer, self.labels)
        except ValueError as error:
            raise ValueError(
                f"an answer of the reader {self.reader.name!r} cannot be used: {error} for the input {text!r:.60}; "
                "leave log_probs out (None) where they are not known"
            ) from error

    def _ask(self, prompts: Prompts, part: range, outcome: EvaluationOutcome) -> None:
        examples = [self.context.pool.demonstration(int(self.held[i])) for i in part]
        answers = self._answer(prompts, part)
        if self.labels is None:
            outcome.losses.extend(self._distances(answers, examples))
            return
        for answer, example in zip(answers, examples, strict=True):
            self._mark(answer, str(example.output), outcome)

    def _mark(self, answer: Answer, output: str, outcome: EvaluationOutcome) -> None:
        wrong = normalise_text(answer.text) != normalise_text(output)
        outcome.wrong.append(wrong)
        if answer.log_probs is None or self.labels is None:
            outcome.losses.append(float(wrong))
            return
        outcome.losses.append(-answer.log_probs[self.labels.index(output)])

    def _distances(self, answers: Sequence[Answer], examples: Sequence[Demonstration]) -> list[float]:
        texts = [answer.text or " " for answer in answers] + [str(example.output) for example in examples]
        embedded = embed_documents(self.context.pool.embedder, texts)
        vectors = normalise_rows(embedded.double())
        distances: list[float] = (vectors[: len(examples)] - vectors[len(examples) :]).square().sum(-1).tolist()
        return distances


def _list_labels(pool: PoolTensors, rows: Tensor) -> tuple[str, ...] | None:
    """The outputs that a reader chooses among; None where outputs are free text."""
    if pool.output_mode != "labels":
        return None
    codes = pool.label[rows].unique().tolist()
    return tuple(sorted({pool.labels[code][1] for code in codes if code >= 0}))
