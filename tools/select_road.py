"""The road of ``select()``: which modules of kdprompt a call really runs through, in order, and between which rooms.

    python tools/select_road.py

Traces one call on a small pool, and a look at the numbers of what it answers. A call from room to room may go on (to a
room that stands earlier in the order of rooms, which it may import) and return; a call to a room that stands later
would climb, and is counted.
"""

import sys
from pathlib import Path
from types import FrameType

import torch

import kdprompt
from import_graph import read_order, room_of
from kdprompt import CallableEmbedder, DistillationSelector, Settings

ROAD = (  # what docs/design.md names, in the order of reading
    "kdprompt.selector",
    "kdprompt.selection.per_query",
    "kdprompt.pool.neighbours",
    "kdprompt.objective.target",
    "kdprompt.selection.problem",
    "kdprompt.objective.objective",
    "kdprompt.search.search",
    "kdprompt.search.ordering",
    "kdprompt.selection.accounting",
)

WRAPPERS = ("kdprompt.deprecation",)  # decorates select() for a former keyword; calls on whatever it is given


def trace_select() -> tuple[list[str], list[tuple[str, str]]]:
    """The modules in the order in which a call of ``select`` enters them, and its calls from module to module."""
    generator = torch.Generator().manual_seed(0)
    texts = [f"text {i}" for i in range(60)]
    vectors = dict(zip(texts, torch.randn(60, 8, generator=generator), strict=True))
    embedder = CallableEmbedder(lambda batch: torch.stack([vectors[text] for text in batch]))
    pool = [{"input": text, "output": "ab"[i % 2]} for i, text in enumerate(texts)]
    selector = DistillationSelector.from_examples(pool, embedder, settings=Settings(k=4))
    entered: list[str] = []
    calls: list[tuple[str, str]] = []
    here = __name__
    waiting = [here]

    def follow(frame: FrameType, event: str, _: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("kdprompt") or module in WRAPPERS or frame.f_code.co_filename == "<string>":
            return  # "<string>": constructors that dataclasses write
        if event == "call":
            if module not in entered:
                entered.append(module)
            if waiting[-1] not in (here, module):
                calls.append((waiting[-1], module))
            waiting.append(module)
        elif event == "return" and len(waiting) > 1:
            waiting.pop()

    sys.setprofile(follow)
    try:
        selector.select("text 0").terms  # noqa: B018 -- to look at the numbers computes them
    finally:
        sys.setprofile(None)
    return entered, calls


def describe() -> str:
    """The road, and what a call of ``select`` runs through beside it."""
    order = read_order(Path(kdprompt.__file__).parents[1])
    place = {room: i for i, room in enumerate(order)}
    entered, calls = trace_select()
    between = [(room_of(a), room_of(b)) for a, b in calls if room_of(a) != room_of(b)]
    climbing = sorted({(a, b) for a, b in between if place[b] > place[a]})
    read = [module for module in entered if module in ROAD]
    lines = [f"to read, in the order in which a call enters them ({len(read)} files):"]
    lines += [f"  {i}. {module}" for i, module in enumerate(read, start=1)]
    lines += [f"in the order of docs/design.md: {'yes' if tuple(read) == ROAD else 'no'}"]
    lines += [f"also entered, by name alone: {', '.join(module for module in entered if module not in ROAD)}"]
    lines += [f"calls between rooms: {len(between)}; to a room that stands later: {len(climbing)}"]
    lines += [f"  {a} -> {b}" for a, b in climbing]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(describe() + "\n")
