"""Data that the package ships, written for it: messages to the support desk of an imagined product.

Two tasks are mixed: ``support`` routes a message to one of nine desks, ``tone`` names its tone. Their inputs are
about the same things, so that a selector that looks at inputs alone mixes them up.
"""

from importlib.resources import as_file, files
from typing import Any

from kdprompt.pool.jsonl import read_jsonl
from kdprompt.pool.pool import Pool

__all__ = ["support_desk", "support_desk_queries"]


def support_desk() -> Pool:
    """The pool: 151 messages of the task ``support`` with nine outputs, 51 of ``tone`` with three."""
    return Pool.from_records(_read("support_desk.jsonl"))


def support_desk_queries() -> list[dict[str, Any]]:
    """A sample of the traffic: 30 messages of the task ``support`` that are not in the pool, with the right output."""
    return _read("support_desk_queries.jsonl")


def _read(name: str) -> list[dict[str, Any]]:
    with as_file(files(__name__) / name) as path:
        return read_jsonl(path)
