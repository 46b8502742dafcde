"""A pool as tensors: what the mathematics sees of it.

Texts end here. Rows are the *distinct* demonstrations. They stand in the order of their ids, or ``rank`` says what that
order is, so that neither the order of the pool nor duplicates in it can change anything further on, and a tie goes to
the lowest id.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kdprompt.pool.distinct_rows import DistinctRows
from kdprompt.pool.growing_rows import GrowingRows
from kdprompt.pool.lexicon import Lexicon
from kdprompt.pool.paused_collection import paused_collection
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, normalise_text
from kdprompt.pool.row_encoding import EmbedOutputs, OutputMode, encode_inputs, encode_values, summarise_values
from kdprompt.pool.row_index import RowIndex
from kdprompt.pool.text_column import Numbers
from kdprompt.theory.point_pairs import widen
from kdprompt.theory.regression import RidgeChange, RidgeFit, RidgeSums

__all__ = ["EmbedOutputs", "Label", "OutputMode", "PoolTensors", "RowMemory", "build_pool_tensors"]

OutputChoice = Literal["auto", "labels", "text", "none"]
Label = tuple[str | None, str]
Pair = tuple[str | None, str | None]
MAX_LABELS = 512


@dataclass(frozen=True)
class RowMemory:
    """What a change of the pool goes on from.

    Attributes:
        x: The inputs, with room for more.
        v: The values, likewise.
        squared_norms: ‖v‖² of each row ``[n]``, float64 on the CPU.
        sums: Σ v of each task and, last, of all rows ``[tasks + 1, c]``, float64 on the CPU.
        holds_given: Whether the inputs of a pool just built are its embeddings as they were given, bit by bit, or as
            they are held in half precision.
    """

    x: GrowingRows
    v: GrowingRows
    squared_norms: Tensor
    sums: Tensor
    holds_given: bool = False


@dataclass(frozen=True)
class PoolTensors:
    """The distinct demonstrations of a pool, ``n`` rows.

    Attributes:
        x: Unit-norm input embeddings ``[n, d]``: float32, float64, or float16, which ``take_inputs`` widens.
        v: Values ``[n, c]``: one-hot of (task, output), or embedded outputs, or the constant 1.
        label: Code of (task, output) ``[n]``, −1 where there is no output.
        task: Code of the task tag ``[n]``, −1 where there is none.
        text: Code of the normalised input text ``[n]``.
        rows: Which demonstration stands at each row.
        tasks: Names of the task codes.
        labels: (task, output) of the label codes.
        text_codes: Code of each normalised input text.
        output_mode: What the values are.
        value_radius: max‖v‖ (R3's B ≤ max‖v‖·κ_max^½).
        priors: Mean value of each task and, last, of the whole pool ``[tasks + 1, c]``, float64 on the CPU.
        lexicon: The words that have a share in ``x``; None: there are none.
        rank: Place of each row in the order of ids ``[n]``; None: the rows stand in it.
        alive: Where somebody stands, boolean ``[n]``; None: everywhere. Labels, tasks and texts of gaps are −1.
        memory: What a change goes on from; None: it begins anew.
        ridge_change: What ridge regressions go on from; None: they are solved anew.
        index: An approximate look-up of the first rows; None: every row is compared.
    """

    x: Tensor
    v: Tensor
    label: Tensor
    task: Tensor
    text: Tensor
    rows: DistinctRows
    tasks: tuple[str, ...]
    labels: tuple[Label, ...]
    text_codes: dict[str, int]
    output_mode: OutputMode
    value_radius: float
    priors: Tensor
    lexicon: Lexicon | None = None
    rank: Tensor | None = None
    alive: Tensor | None = None
    memory: RowMemory | None = field(default=None, repr=False, compare=False)
    ridge_change: RidgeChange | None = field(default=None, repr=False, compare=False)
    index: RowIndex | None = field(default=None, repr=False, compare=False)
    _ridges: dict[float, RidgeFit] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: that of the values, float32 or float64."""
        return self.v.dtype

    @property
    def is_half(self) -> bool:
        """Whether the inputs are held in half precision."""
        return self.x.dtype is torch.float16

    def take_inputs(self, index: Tensor) -> Tensor:
        """The inputs of rows ``[…]``, ``[…, d]``, in the dtype that is computed in."""
        return self.x.index_select(0, index.flatten()).view(*index.shape, self.x.shape[-1]).to(self.dtype)

    def ridge(self, penalty: float) -> RidgeFit:
        """The ridge regression of the values on the inputs, of all rows with an output; fitted once, kept."""
        if penalty not in self._ridges:
            with torch.inference_mode(False):  # a caller's inference mode must not bind what is kept
                sums, change = self.ridge_sums, self.ridge_change
                self._ridges[penalty] = sums.fit(penalty) if change is None else change.fit(penalty, sums)
        return self._ridges[penalty]

    def after_change(self, joined: Tensor, left: Tensor) -> RidgeChange:
        """What ridge regressions of a changed pool go on from; points ``[m, d]`` that join and leave."""
        return RidgeChange.of(self._ridges, self.ridge_change, joined, left)

    @cached_property
    def ridge_sums(self) -> RidgeSums:
        """What all these regressions share: sums over the rows with an output, float64 on the CPU."""
        x, v = self.x.cpu(), self.v.cpu()
        labelled = (self.label >= 0).cpu()
        return RidgeSums.of(x, v) if bool(labelled.all()) else RidgeSums.of(x[labelled], v[labelled])

    def prior(self, task: Tensor, like: Tensor) -> Tensor:
        """v̄ for task codes ``[b]`` (−1: of the whole pool), ``[b, c]``; dtype and device of ``like``."""
        return self.priors[task.cpu()].to(like.device, like.dtype)

    def sort_rows(self, index: Tensor) -> Tensor:
        """Rows ``[…, L]`` in the order of their ids."""
        return index.gather(-1, self.place(index).argsort(dim=-1))

    def place(self, index: Tensor) -> Tensor:
        """The place of rows in the order of ids, of the shape of ``index``."""
        return index if self.rank is None else self.rank[index]

    @property
    def living(self) -> Tensor:
        """The rows where somebody stands, in the order of ids."""
        rows = torch.arange(len(self.x), device=self.x.device)
        return self.sort_rows(rows if self.alive is None else rows[self.alive])

    def __len__(self) -> int:
        return len(self.rows.ordered)


def build_pool_tensors(
    pool: Pool,
    vectors: Tensor,
    embed_outputs: EmbedOutputs,
    outputs: OutputChoice = "auto",
    lexical_share: float = 0.0,
    *,
    half: bool = False,
) -> PoolTensors:
    """Turns a pool and the embeddings of its inputs into tensors.

    Args:
        pool: ``N`` demonstrations.
        vectors: Embeddings of their inputs ``[N, d]``.
        embed_outputs: Embeds output texts to ``[·, d′]``; called only for free-text outputs.
        outputs: How outputs are seen. ``auto``: labels where at most 512 distinct ones repeat (twice or more on
            average), text otherwise, none where no example has one.
        lexical_share: Share of words in the inputs' vectors, in [0, 1].
        half: Whether inputs are held in half precision.

    Returns:
        One row a distinct (input, output, task), in the order of ids.
    """
    rows, places = pool.distinct_rows
    at = torch.from_numpy(places).to(vectors.device)
    label, task, labels, tasks = _number_pairs(pool, at)
    text, text_codes = _number_texts(pool, at)
    mode = choose_mode(len(labels), int((label >= 0).sum()), outputs)
    x, holds_given = encode_inputs(vectors, at, half=half)
    x, lexicon = _join_words(x, pool, places, lexical_share) if lexical_share else (x, None)
    in_rows = [labels[code][1] if code >= 0 else None for code in label.tolist()] if mode == "text" else []
    v = encode_values(mode, in_rows, (label, len(labels)), (task, len(tasks)), widen(x[:0]), embed_outputs)
    squared_norms, sums = summarise_values(v, task, len(tasks))
    return PoolTensors(
        x=x,
        v=v,
        label=label,
        task=task,
        text=text,
        rows=rows,
        tasks=tasks,
        labels=labels,
        text_codes=text_codes,
        output_mode=mode,
        value_radius=float(squared_norms.amax().sqrt()),
        priors=sums / count_tasks(task, len(tasks), len(places))[:, None],
        lexicon=lexicon,
        memory=RowMemory(GrowingRows(x), GrowingRows(v), squared_norms, sums, holds_given and not lexical_share),
    )


def _number_pairs(pool: Pool, at: Tensor) -> tuple[Tensor, Tensor, tuple[Label, ...], tuple[str, ...]]:
    """Codes of labels and tasks at places ``[n]``, −1 where there is none; and these, in the order of their codes."""
    given = pool.members.list_pairs()
    pairs = set(given)
    labels = tuple(sorted(((of, output) for of, output in pairs if output is not None), key=order_of_label))
    tasks = tuple(sorted({of for of, _ in pairs if of is not None}))
    codes_of_labels: dict[Pair, int] = {label: code for code, label in enumerate(labels)}
    codes_of_tasks: dict[str | None, int] = {name: code for code, name in enumerate(tasks)}
    label_codes = {pair: codes_of_labels.get(pair, -1) for pair in pairs}
    task_codes = {pair: codes_of_tasks.get(pair[0], -1) for pair in pairs}
    columns = (_to_column(map(codes.__getitem__, given), at.device)[at] for codes in (label_codes, task_codes))
    return next(columns), next(columns), labels, tasks


def _number_texts(pool: Pool, at: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Codes of normalised inputs at places ``[n]``, and the code of each such text."""
    codes: dict[str, int] = {}
    with paused_collection():  # over the pool in its own order, in which it lies in memory
        texts = [codes.setdefault(normalise_text(text), len(codes)) for text in pool.members.list_inputs()]
    return _to_column(texts, at.device)[at], codes


def _to_column(codes: Iterable[int], device: torch.device) -> Tensor:
    return torch.from_numpy(np.fromiter(codes, dtype=np.int64)).to(device)


def _join_words(x: Tensor, pool: Pool, places: Numbers, share: float) -> tuple[Tensor, Lexicon]:
    """The inputs of places ``[n]`` with words that have a share in them, and these words."""
    texts = pool.members.list_inputs()
    inputs = [texts[place] for place in places.tolist()]
    lexicon = Lexicon.build(inputs, share)
    return lexicon.join(widen(x), inputs).to(x.dtype), lexicon


def label_of(shown: Demonstration) -> Label | None:
    """(task, output) of a demonstration, None without an output."""
    return None if shown.output is None else (shown.task, shown.output)


def order_of_label(label: Label) -> tuple[str, str]:
    """What labels are sorted by."""
    return label[0] or "", label[1]


def choose_mode(distinct: int, given: int, requested: OutputChoice) -> OutputMode:
    """How outputs are seen, ``given`` of them, of which ``distinct`` differ."""
    if given == 0:
        return "none"
    if requested != "auto":
        return requested
    return "labels" if distinct <= MAX_LABELS and given >= 2 * distinct else "text"


def count_tasks(task: Tensor, tasks: int, rows: int) -> Tensor:
    """Rows of each task and, last, all ``rows``, ``[tasks + 1]`` on the CPU."""
    of_tasks = torch.bincount(task[task >= 0], minlength=tasks).cpu()
    return torch.cat([of_tasks, torch.tensor([rows])])
