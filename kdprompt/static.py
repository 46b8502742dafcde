"""One prompt for the whole query distribution: the least J, or the best of several in a reader's answers.

J knows which demonstrations stand for the queries; how one model takes them it does not know. Where outputs are few,
a small model may lean to one of them because of what stands last, and no order is safe from that before it is tried.
So a reader may be asked: prompts are compared by what it answers to pool examples that are held out, whose outputs
are known. No label of a query is needed. This is the reader's part of the calibration. Half of the prompts are of
nearly least J, which are good on average and much alike; the other half is drawn, and the best of many different
ones may be better still.

Rejected: comparing by the reader's agreement with the estimated outputs of the queries, for the pool has true ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor

from kdprompt.choice import Candidates, choose, choose_each, static_candidates
from kdprompt.corpus import Corpus
from kdprompt.data import Demonstration, normalised
from kdprompt.embedding import embed_documents
from kdprompt.errors import PoolError
from kdprompt.features import Features, Requests
from kdprompt.ordering import ByObjective
from kdprompt.pseudo import Trial
from kdprompt.reading import Answer, Reader, sequential_halving
from kdprompt.settings import Settings
from kdprompt.target import Target

__all__ = ["static_rows"]

SETS = 16  # of small J: over all candidates, then over random halves of them
DRAWN = 16  # at random
FIRST = 6  # held-out examples that every prompt is tried on
HELD_OUT = 186  # 6 + 12 + 24 + 48 + 96
FEWEST = 24


def static_rows(
    corpus: Corpus,
    wanted: Requests,
    target: Target,
    trial: Trial,
    settings: Settings,
    reader: Reader | None = None,
) -> tuple[Tensor, tuple[str, ...]]:
    """The rows of a static prompt.

    Args:
        corpus: The pool.
        wanted: The queries.
        target: Their joint distribution, one problem.
        trial: Calibrated settings of static prompts.
        settings: How many, under which limits, in which order.
        reader: Chooses among prompts of small J and drawn ones; None takes the one of least J.

    Returns:
        Rows of the features in reading order ``[1, K]``, and what to say of them.

    Raises:
        PoolError: A reader is given and the pool is too small, or has no outputs to compare with.
        TypeError: What is given is no reader.
    """
    features = corpus.features
    own = Requests(wanted.q, wanted.task, torch.full_like(wanted.own, -1), wanted.permitted)
    options = static_candidates(features, own, settings.static_shortlist)
    if reader is None:
        return choose(features, options, target, trial, settings, corpus.lengths), ()
    if not hasattr(reader, "answers"):
        raise TypeError(
            "reader must have answers(prompts, labels), as kdprompt.evaluate.LabelReader(model) and TextReader(llm) "
            f"have, got {type(reader).__name__}: {reader!r:.80}"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    held = _held_out(features, options, generator)
    kept = options.valid & ~torch.isin(features.text[options.index], features.text[held])
    halves = [torch.rand(kept.shape, generator=generator).to(kept.device) < 0.5 for _ in range(SETS - 1)]
    keys = [torch.rand(kept.shape, generator=generator).to(kept.device) for _ in range(DRAWN)]
    valid = [kept, *(kept & half for half in halves)]
    sets = choose_each(features, options, valid, target, trial, settings, corpus.lengths, keys)
    prompts = _orders([rows[rows >= 0].tolist() for rows in sets], settings)
    if len(prompts) == 1:
        return sets[0], (f"{reader.name} was not asked: there is one prompt",)
    examination = _Examination(corpus, settings, reader, held.tolist(), _labels(features, options))
    race = sequential_halving(
        len(prompts), lambda i, part: examination.losses(prompts[i], part), first=FIRST, total=len(held)
    )
    best, first = race.losses[race.winner], race.losses[0]
    found = torch.tensor([prompts[race.winner]], dtype=torch.long, device=options.index.device)
    small = {frozenset(rows[rows >= 0].tolist()) for rows in sets[:SETS]}
    source = "of small J" if frozenset(prompts[race.winner]) in small else "drawn at random"
    return found, (
        f"the best of {len(prompts)} prompts, of small J and drawn, by what {reader.name} answers to held-out examples "
        f"of the pool, {source}: {examination.measure} {fmean(best):.3f} on {len(best)} of them"
        f"{examination.accuracy(prompts[race.winner])}; that of least J {fmean(first):.3f} on the first {len(first)}",
    )


def _held_out(features: Features, options: Candidates, generator: torch.Generator) -> Tensor:
    """A sample of the candidates that have an output; they stand for the queries, since they are near to them."""
    rows = options.index[options.valid & (features.label[options.index] >= 0)]
    if len(rows) // 4 < FEWEST:
        raise PoolError(
            f"a reader compares prompts on a quarter of the examples with an output that may serve the queries; there "
            f"must be at least {4 * FEWEST} of them, got {len(rows)}; add examples or leave the reader out"
        )
    size = min(HELD_OUT, len(rows) // 4)
    return rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]


def _labels(features: Features, options: Candidates) -> tuple[str, ...] | None:
    """The outputs that a reader chooses among; None where outputs are free text."""
    if features.mode != "labels":
        return None
    codes = features.label[options.index[options.valid]].unique().tolist()
    return tuple(sorted({features.labels[code][1] for code in codes if code >= 0}))


def _orders(sets: Sequence[list[int]], settings: Settings) -> list[list[int]]:
    """Each set in its order and, unless that is a fixed rule, in a random one; each prompt once, the first first."""
    draw = random.Random(settings.seed)
    free = settings.k == "auto" or settings.budget is not None  # else k is what was asked for
    whole = [rows for rows in sets if free or len(rows) == len(sets[0])]
    shuffled = [draw.sample(rows, len(rows)) for rows in whole] if isinstance(settings.reading, ByObjective) else []
    return [list(rows) for rows in dict.fromkeys(tuple(rows) for rows in [*whole, *shuffled])]


@dataclass(frozen=True)
class _Examination:
    """Held-out examples of a pool, and what a reader loses on them.

    Attributes:
        corpus: The pool.
        settings: How prompts are written.
        reader: Who answers.
        held: Rows of the examples.
        labels: All the outputs there can be; None: free text.
        right: Whether the answers to each prompt asked were right, where there are labels.
    """

    corpus: Corpus
    settings: Settings
    reader: Reader
    held: list[int]
    labels: tuple[str, ...] | None
    right: dict[tuple[int, ...], list[bool]] = field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What the losses are."""
        return "squared distance of the outputs" if self.labels is None else "loss"

    def losses(self, prompt: Sequence[int], part: range) -> list[float]:
        """Of the demonstrations at some rows, on some of the examples."""
        shown = [self.corpus.at(row) for row in prompt]
        asked = [self.corpus.at(self.held[i]) for i in part]
        texts = [self.settings.template.text(shown, each.input) for each in asked]
        answers = list(self.reader.answers(texts, self.labels))
        if self.labels is None:
            return self._distances(answers, asked)
        pairs = [(answer, str(each.output)) for answer, each in zip(answers, asked, strict=True)]
        self.right.setdefault(tuple(prompt), []).extend(_right(*pair) for pair in pairs)
        return [_loss(*pair, self.labels) for pair in pairs]

    def accuracy(self, prompt: Sequence[int]) -> str:
        """Of the answers to a prompt, in words; nothing for free text."""
        right = self.right.get(tuple(prompt))
        return f", {fmean(right):.0%} right" if right else ""

    def _distances(self, answers: Sequence[Answer], asked: Sequence[Demonstration]) -> list[float]:
        texts = [answer.text or " " for answer in answers] + [str(each.output) for each in asked]
        vectors = torch.nn.functional.normalize(embed_documents(self.corpus.embedder, texts).double(), dim=-1)
        found: list[float] = (vectors[: len(asked)] - vectors[len(asked) :]).square().sum(-1).tolist()
        return found


def _right(answer: Answer, output: str) -> bool:
    return normalised(answer.text) == normalised(output)


def _loss(answer: Answer, output: str, labels: Sequence[str]) -> float:
    """−log probability of the output in nats, or 0 and 1 from a reader that knows no probabilities."""
    if answer.log_probs is not None:
        return -answer.log_probs[labels.index(output)]
    return float(not _right(answer, output))
