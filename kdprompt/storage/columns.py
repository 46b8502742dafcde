"""The examples of a stored selector as columns: bytes and numbers that need no parsing before somebody asks.

Texts are looked at here, as columns, when they are read; only the fields of an example are JSON, and are read with it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprompt.errors import PoolError
from kdprompt.pool.late_examples import Choices, LateExamples
from kdprompt.pool.records import check_demonstrations
from kdprompt.pool.text_column import Numbers, TextColumn
from kdprompt.pool.value_text import can_be_written

__all__ = ["build_columns", "read_columns"]

TEXTS = ("ids", "inputs", "fields")
CHOICES = ("example_outputs", "tasks")


def build_columns(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The parts and the tensors of examples, ``demonstration_to_record`` of each."""
    fields = [json.dumps(record["fields"], ensure_ascii=False) for record in records]
    ids = [record["id"] for record in records]
    columns = {
        "ids": TextColumn.of(ids),
        "inputs": TextColumn.of([record["input"] for record in records]),
        "fields": TextColumn.of(fields, errors="surrogatepass"),  # as json.loads reads it
    }
    tensors = {"order": torch.tensor(sorted(range(len(ids)), key=ids.__getitem__), dtype=torch.int32)}
    for name, column in columns.items():
        tensors[name] = torch.from_numpy(np.frombuffer(bytearray(column.content), dtype=np.uint8))
        tensors[f"{name}_ends"] = torch.from_numpy(column.ends)
    parts = {}
    for name, key in zip(CHOICES, ("output", "task"), strict=True):
        codes: dict[str | None, int] = {None: -1}
        numbers = [codes.setdefault(record[key], len(codes) - 1) for record in records]
        parts[name] = [text for text in codes if text is not None]
        tensors[f"{name}_codes"] = torch.tensor(numbers, dtype=torch.int32)
    return parts, tensors


def read_columns(parts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LateExamples:
    """What ``build_columns`` made.

    Raises:
        PoolError: An example cannot be worked with, or has the id of another; it is named.
        KeyError, TypeError, ValueError: They are none.
    """
    ids, inputs, fields = (_read_texts(tensors, name) for name in TEXTS)
    outputs, tasks = (_read_choices(parts, tensors, name) for name in CHOICES)
    order = _read_numbers(tensors, "order")
    lengths = {len(column) for column in (ids, inputs, fields, order, outputs.codes, tasks.codes)}
    if len(lengths) > 1:
        raise ValueError(f"their columns must be of one length, got {sorted(lengths)}")
    examples = LateExamples(ids, inputs, outputs, tasks, fields, order)
    _check_texts(examples)
    _check_ids(examples)
    return examples


def _read_numbers(tensors: Mapping[str, Tensor], name: str) -> Numbers:
    """A column of numbers ``[n]``, in memory of its own: a file that is written into later cannot change them."""
    column = tensors[name]
    if column.dtype not in (torch.int32, torch.int64) or column.ndim != 1:
        raise TypeError(f"{name} must be whole numbers [n], got {column.dtype} {list(column.shape)}")
    return column.numpy().astype(np.int64)


def _read_texts(tensors: Mapping[str, Tensor], name: str) -> TextColumn:
    content = tensors[name]
    if content.dtype != torch.uint8 or content.ndim != 1:
        raise TypeError(f"{name} must be bytes, got {content.dtype} {list(content.shape)}")
    try:
        return TextColumn(content.numpy().tobytes(), _read_numbers(tensors, f"{name}_ends"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _read_choices(parts: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> Choices:
    texts, codes = parts[name], _read_numbers(tensors, f"{name}_codes")
    if not isinstance(texts, list) or not all(type(text) is str for text in texts):
        raise TypeError(f"{name} must be a list of texts, got {texts!r:.60}")
    if len({*texts}) < len(texts) or not can_be_written(texts):
        raise ValueError(f"{name} must be distinct texts that can be written as UTF-8")
    if len(codes) and not (-1 <= codes.min() and codes.max() < len(texts)):
        raise ValueError(f"the codes of {name} must be from -1 to {len(texts) - 1}")
    return Choices(texts, codes)


def _check_texts(examples: LateExamples) -> None:
    """Refuses ids and inputs that are no UTF-8, and inputs that are empty."""
    for name, column in (("id", examples.ids), ("input", examples.inputs)):
        i = column.find_unreadable()
        if i is not None:
            raise PoolError(
                f"example {i} of the stored selector has an {name} that is no UTF-8: {column.take_bytes(i)!r:.60}"
            )
    i = examples.inputs.find_blank()
    if i is not None:
        check_demonstrations([examples.make(i)], lambda _: f"example {i}")


def _check_ids(examples: LateExamples) -> None:
    """Refuses ids that are not unique, and an order that is not theirs."""
    order, n = examples.order, len(examples)
    if n and not (0 <= order.min() and order.max() < n):
        raise ValueError(f"the order of their ids must be of places from 0 to {n - 1}")
    if examples.ids.ascends(order):
        return
    first: dict[str, int] = {}
    for i, ident in enumerate(examples.id_list):
        if first.setdefault(ident, i) != i:
            raise PoolError(f"example {i} has the id {ident!r} that example {first[ident]} has already")
    raise ValueError("the order of their ids is not that in which they ascend")
