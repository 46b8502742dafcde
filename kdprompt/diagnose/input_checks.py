"""Checks of a pool's inputs: repeats, conflicts among repeats, leakage, length, and text that gives orders."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kdprompt.diagnose.diagnosis import Finding, Instance, say_count
from kdprompt.diagnose.examined_pool import EmbeddedTexts, ExaminedPool
from kdprompt.pool.records import normalise_text

__all__ = ["TokenLimit", "find_conflicts", "find_duplicates", "find_injections", "find_leaks", "find_too_long"]

# Phrases that address a model and not a reader. Each is rare in examples, and none is proof.
INJECTION = re.compile(
    r"\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|prior|above|earlier|preceding|system)\b.{0,20}"
    r"\b(instructions?|prompts?|messages?|rules|directions)\b"
    r"|\byou are now\b.{0,40}\b(an?|the|in)\b|\b(reveal|print|show|repeat|leak)\b.{0,30}\bsystem prompt\b"
    r"|<\|?(im_start|im_end|system|endoftext|eot_id|start_header_id)\|?>|\[/?INST\]|<</?SYS>>"
    r"|^\s*#{2,}\s*(system|instruction)s?\b|\b(developer|DAN|jailbreak) mode\b",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class TokenLimit:
    """How much of a text an embedder reads.

    Attributes:
        limit: Tokens; what lies behind them is not read.
        count: Counts the tokens of texts, those that the embedder adds among them.
    """

    limit: int
    count: Callable[[list[str]], list[int]]


def find_duplicates(examined: ExaminedPool, cosine: float) -> Iterator[Finding]:
    """Examples that say the same twice: equal or near-identical inputs with one output."""
    pool = examined.pool
    groups: dict[tuple[str, str | None, str | None], list[int]] = defaultdict(list)
    for text, rows in examined.repeated.items():
        for i in rows:
            groups[text, pool[i].task, pool[i].output].append(i)
    copies = [rows for rows in groups.values() if len(rows) > 1]
    if copies:
        yield Finding(
            check="duplicates",
            severity="note",
            summary=say_count(sum(len(rows) - 1 for rows in copies), "example repeats", "examples repeat")
            + " another one.",
            remedy="Keep one of each; a prompt never shows both, but they count twice in priors and statistics.",
            instances=tuple(_group(examined, rows, "the same text and output") for rows in copies),
        )
    near = list(_near_groups(examined, cosine))
    if near:
        yield Finding(
            check="near-duplicates",
            severity="note",
            summary=say_count(sum(len(rows) - 1 for rows in near), "example says", "examples say")
            + f" nearly the same as another one with their output (cosine ≥ {cosine:g}){_recall(examined)}.",
            remedy="Keep one of each group; prompts show no two of them (SearchSettings(near_duplicate=…)).",
            instances=tuple(_group(examined, rows, "nearly the same text, the same output") for rows in near),
        )


def _near_groups(examined: ExaminedPool, cosine: float) -> Iterator[list[int]]:
    pool = examined.pool
    pairs, _ = examined.pairs(cosine)
    alike = [(i, j) for i, j in pairs.tolist() if (pool[i].task, pool[i].output) == (pool[j].task, pool[j].output)]
    if not alike:
        return
    left, right = np.array(alike).T
    graph = coo_array((np.ones(len(alike)), (left, right)), shape=(len(pool), len(pool)))
    _, component = connected_components(graph, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for i in sorted({*left.tolist(), *right.tolist()}):
        members[int(component[i])].append(i)
    yield from sorted(members.values(), key=lambda rows: (-len(rows), rows))


def _group(examined: ExaminedPool, rows: list[int], detail: str) -> Instance:
    pool = examined.pool
    other = pool[rows[1]].input
    return Instance(ids=tuple(pool[i].id for i in rows), text=pool[rows[0]].input, other=other, detail=detail)


def _recall(examined: ExaminedPool) -> str:
    recall = examined.nearest.recall
    return "" if recall == 1 else f"; the search finds {recall:.0%} of all neighbours, and nearly all that are so near"


def find_conflicts(examined: ExaminedPool, cosine: float) -> Iterator[Finding]:
    """Equal or near-identical inputs of one task with different outputs."""
    pool = examined.pool
    same = []
    for rows in examined.repeated.values():
        outputs: dict[str | None, dict[str, int]] = defaultdict(dict)
        for i in rows:
            if pool[i].output is not None:
                outputs[pool[i].task].setdefault(str(pool[i].output), i)
        same += [list(its.values()) for its in outputs.values() if len(its) > 1]
    if same:
        yield Finding(
            check="conflicts",
            severity="error",
            summary=say_count(len(same), "input stands", "inputs stand") + " in the pool with more than one output.",
            remedy="Decide which output is right and take the other examples out.",
            instances=tuple(_conflict(examined, rows, 1.0) for rows in same),
        )
    pairs, similarity = examined.pairs(cosine)
    near = [
        _conflict(examined, [i, j], cosine_of)
        for (i, j), cosine_of in zip(pairs.tolist(), similarity.tolist(), strict=True)
        if pool[i].task == pool[j].task and None not in (pool[i].output, pool[j].output)
        if pool[i].output != pool[j].output
    ]
    if near:
        yield Finding(
            check="near-conflicts",
            severity="warning",
            summary=say_count(len(near), "pair of nearly identical inputs has", "pairs of nearly identical inputs have")
            + f" different outputs (cosine ≥ {cosine:g}){_recall(examined)}.",
            remedy="Look at each pair: one output may be wrong, or the inputs lack what tells them apart.",
            instances=tuple(sorted(near, key=lambda instance: -(instance.score or 0))),
        )


def _conflict(examined: ExaminedPool, rows: list[int], cosine: float) -> Instance:
    pool = examined.pool
    return Instance(
        ids=tuple(pool[i].id for i in rows),
        text=pool[rows[0]].input,
        other=pool[rows[1]].input,
        detail=" against ".join(repr(pool[i].output) for i in rows),
        score=cosine,
    )


def find_leaks(examined: ExaminedPool, evaluation: EmbeddedTexts, cosine: float) -> Iterator[Finding]:
    """Texts of an evaluation set that stand in the pool, word by word or nearly so."""
    pool = examined.pool
    similarity, rows = examined.find_nearest(evaluation.vectors)
    same, near = [], []
    for text, of, row in zip(evaluation.texts, similarity.tolist(), rows.tolist(), strict=True):
        at = examined.rows_by_text.get(normalise_text(text))
        if at is not None:
            ids = tuple(pool[i].id for i in at)
            same.append(Instance(ids=ids, text=text, detail="stands in the pool", score=1.0))
        elif of >= cosine:
            other = pool[row].input
            near.append(Instance(ids=(pool[row].id,), text=text, other=other, detail="nearly in the pool", score=of))
    if same:
        yield Finding(
            check="leakage",
            severity="error",
            summary=f"{len(same):,} of {len(evaluation.texts):,} evaluation inputs stand in the pool: "
            "their scores are no evidence.",
            remedy="Take them out of the pool or out of the evaluation set.",
            instances=tuple(same),
        )
    if near:
        yield Finding(
            check="near-leakage",
            severity="warning",
            summary=f"{len(near):,} of {len(evaluation.texts):,} evaluation inputs stand nearly word by word in the "
            f"pool (cosine ≥ {cosine:g}).",
            remedy="Look at them; paraphrases of evaluation inputs in the pool make scores too good.",
            instances=tuple(sorted(near, key=lambda instance: -(instance.score or 0))),
        )


def find_too_long(examined: ExaminedPool, tokens: TokenLimit) -> Iterator[Finding]:
    """Inputs whose end the embedder does not read. A token has at least a character: short texts are not counted."""
    pool = examined.pool
    rows = [int(i) for i in examined.first if len(pool[int(i)].input) >= tokens.limit - 2]
    counts = tokens.count([pool[i].input for i in rows]) if rows else []
    long = sorted(((count, i) for i, count in zip(rows, counts, strict=True) if count > tokens.limit), reverse=True)
    if long:
        yield Finding(
            check="length",
            severity="warning",
            summary=say_count(len(long), "input is", "inputs are")
            + f" longer than the {tokens.limit:,} tokens that the embedder reads: what "
            "lies behind them has no part in the choice.",
            remedy="Shorten them, put what matters first, or take an embedding model that reads more.",
            instances=tuple(
                Instance(ids=(pool[i].id,), text=pool[i].input, detail=f"{count:,} tokens", score=tokens.limit / count)
                for count, i in long
            ),
        )


def find_injections(examined: ExaminedPool) -> Iterator[Finding]:
    """Inputs and outputs with a phrase that addresses a model; a list of known phrases, and no proof either way."""
    instances = []
    for demonstration in examined.pool:
        match = INJECTION.search(demonstration.input) or INJECTION.search(demonstration.output or "")
        if match:
            detail = f"says {match.group()!r:.80}"
            instances.append(Instance(ids=(demonstration.id,), text=demonstration.input, detail=detail))
    if instances:
        yield Finding(
            check="injection",
            severity="warning",
            summary=say_count(len(instances), "example holds", "examples hold")
            + " text that reads like an order to the model.",
            remedy="Read them before they go into prompts; take out what did not come from you.",
            instances=tuple(instances),
        )
