"""Selectors on disk and as JSON: what was computed once is not computed again.

A file is one safetensors file: the tensors as they are, and everything else as a JSON document beside them. The same
as a dictionary, with the tensors in base64, goes where a framework wants JSON. What JSON would change (a tuple, a key
that is no string) is refused by name, so that an example comes back as it went in.

Rejected: pickle (loading it runs code).
"""

import base64
import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import EmbeddingError, PoolError
from kdprompt.pool.embedding import Embedder
from kdprompt.pool.pool import Pool
from kdprompt.pool.records import Demonstration, Query, Schema
from kdprompt.pool.sentence_transformer import SentenceTransformerEmbedder
from kdprompt.selection.embedded_pool import Traffic
from kdprompt.settings import Settings

__all__ = [
    "Stored",
    "demonstration_of",
    "described",
    "from_dict",
    "read",
    "record_of",
    "restored_embedder",
    "restored_settings",
    "to_dict",
    "write",
]

FORMAT = 1
DOCUMENT = "document"
KEPT = (  # modules of stored objects
    "theory.kernels",
    "search.ordering",
    "search.position_profiles",
    "objective.parameters",
    "objective.regression",
    "pool.prompt",
    "settings",
    "calibration.pseudo_queries",
    "calibration.calibration",
)
RENAMED = {  # classes of files that were written before these had their present names
    "Custom": "MeasuredProfile",
    "Joint": "JointKernel",
    "Penalties": "ObjectiveWeights",
    "Regression": "KernelRegression",
}
PINS = ("kernel", "share", "neighbourhood", "penalties", "tolerance")  # settings that a calibration takes as they are
Default = Callable[[Any], Any]


@dataclass(frozen=True)
class Stored:
    """Everything that a selector holds but the embedder itself.

    Attributes:
        pool: The demonstrations.
        vectors: Embeddings of their inputs ``[n, d]``.
        outputs: Embeddings of output texts, by text.
        traffic: The sample of the traffic, or None.
        settings: The settings, or None where one of them could not be stored.
        calibration: What is in force, or None likewise.
        embedder: Class of the embedder and, for kdprompt's default, its model.
        about: Whatever else who stores wants to find again; JSON.
    """

    pool: Pool
    vectors: Tensor
    outputs: Mapping[str, Tensor]
    traffic: Traffic | None
    settings: Settings | None
    calibration: Calibration | None
    embedder: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)

    def calibration_under(self, settings: Settings) -> Calibration | None:
        """The calibration, or None where these settings pin what it chose otherwise."""
        if self.calibration is None:
            return None
        pins = {name: getattr(settings, name) for name in PINS}
        kept = all(pin is None or pin == getattr(self.calibration.chosen, name) for name, pin in pins.items())
        return self.calibration if kept or settings == self.settings else None


def described(embedder: Embedder) -> dict[str, Any]:
    """What is stored of an embedder: its class and, for kdprompt's default, the model's name."""
    found: dict[str, Any] = {"class": f"{type(embedder).__module__}.{type(embedder).__qualname__}"}
    if type(embedder) is SentenceTransformerEmbedder and embedder.by_name:  # a subclass may embed otherwise
        found |= {"model": None if embedder.name is None else str(embedder.name), "prompts": embedder.prompt_names}
    return found


def restored_embedder(stored: Stored, given: Embedder | None) -> Embedder:
    """The embedder given, else a new one of the stored kind.

    Raises:
        EmbeddingError: None is given, and the stored one was not kdprompt's own.
    """
    if given is not None:
        return given
    if "model" not in stored.embedder:
        raise EmbeddingError(
            f"the pool was embedded by a {stored.embedder['class']}, which is not stored; give it again: embeddings=…"
        )
    prompts = stored.embedder["prompts"]
    return SentenceTransformerEmbedder(stored.embedder["model"], prompt_names=(prompts[0], prompts[1]))


def restored_settings(stored: Stored) -> Settings:
    """The stored settings.

    Raises:
        PoolError: They could not be stored.
    """
    if stored.settings is None:
        raise PoolError(
            "the settings hold an object or a function that could not be stored (a kernel, an order or a token count "
            "of your own); give them again: settings=…"
        )
    return stored.settings


# -- as a document and tensors --------------------------------------------------------------------------------------


def _document(stored: Stored, default: Default | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    records = [record_of(each, f"example {i}", default) for i, each in enumerate(stored.pool)]
    tensors = {"vectors": stored.vectors}
    if stored.outputs:
        tensors["outputs"] = torch.stack(list(stored.outputs.values()))
    if stored.traffic is not None:
        tensors["queries"] = stored.traffic.vectors
    document = {
        "format": FORMAT,
        "schema": stored.pool.schema.model_dump(mode="json"),
        "records": records,
        "outputs": list(stored.outputs),
        "queries": [query.model_dump(mode="json") for query in stored.traffic.queries] if stored.traffic else [],
        "settings": _encoded(stored.settings),
        "calibration": _encoded(stored.calibration),
        "embedder": dict(stored.embedder),
        "about": dict(stored.about),
    }
    return document, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def record_of(shown: Demonstration, name: str, default: Default | None = None) -> dict[str, Any]:
    """One demonstration as a dictionary that JSON has.

    Args:
        shown: The demonstration.
        name: Names it in errors.
        default: Called for a value that JSON has no form for.

    Raises:
        PoolError: JSON cannot keep one of its fields as it is.
    """
    record = {"id": shown.id, "input": shown.input, "output": shown.output, "task": shown.task}
    kept = {}
    for key, value in shown.fields.items():
        where = f"{name} (id {shown.id!r}) cannot be stored: its {key!r} is {value!r:.80}"
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=default)
        except (TypeError, ValueError) as error:
            raise PoolError(f"{where}: {error}. Give values that JSON has, or keep the pool yourself.") from error
        kept[key] = json.loads(text)
        if not isinstance(key, str) or (default is None and kept[key] != value) or _tuples(value):
            raise PoolError(f"{where}, which JSON would change (a tuple, or a key that is no text); make it a list")
    return {**record, "fields": kept}


def demonstration_of(record: Mapping[str, Any], decode: Default | None = None) -> Demonstration:
    """What ``record_of`` made; ``decode`` makes a field's value again of what ``default`` made of it."""
    fields = {key: decode(value) if decode else value for key, value in record["fields"].items()}
    return Demonstration(**{**record, "fields": fields})


def _tuples(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(not isinstance(key, str) or _tuples(inner) for key, inner in value.items())
    return isinstance(value, tuple) or (isinstance(value, list) and any(map(_tuples, value)))


def _restored(document: Mapping[str, Any], tensors: Mapping[str, Tensor], decode: Default | None) -> Stored:
    found = document.get("format") if isinstance(document, Mapping) else None
    if found != FORMAT:
        raise PoolError(
            f"a stored selector of format {FORMAT} is expected, got {found!r}; it was written by "
            "another version of kdprompt, or is no stored selector"
        )
    schema = Schema.model_validate({k: tuple(v) if isinstance(v, list) else v for k, v in document["schema"].items()})
    queries = tuple(Query.model_validate(query) for query in document["queries"])
    return Stored(
        pool=Pool((demonstration_of(record, decode) for record in document["records"]), schema),
        vectors=tensors["vectors"],
        outputs=dict(zip(document["outputs"], tensors["outputs"], strict=True)) if document["outputs"] else {},
        traffic=Traffic(queries, tensors["queries"]) if queries else None,
        settings=_decoded(document["settings"]),
        calibration=_decoded(document["calibration"]),
        embedder=document["embedder"],
        about=document["about"],
    )


# -- settings and calibration ---------------------------------------------------------------------------------------


def _known() -> dict[str, Any]:
    rooms = [import_module(f"kdprompt.{room}") for room in KEPT]
    return {name: getattr(room, name) for room in rooms for name in room.__all__}


def _encoded(value: Any) -> Any:
    """Numbers, texts and kdprompt's own objects as JSON; None where anything else is inside."""
    try:
        return _plain(value, _known())
    except TypeError:
        return None


def _plain(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"": "float", "value": str(value)}  # JSON proper has none
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"": "dict", "items": [[key, _plain(inner, known)] for key, inner in value.items()]}
    if isinstance(value, list):
        return [_plain(inner, known) for inner in value]
    if isinstance(value, tuple):
        return {"": "tuple", "items": [_plain(inner, known) for inner in value]}
    name = getattr(value, "__name__", type(value).__name__)
    if known.get(name) is value:  # a function of kdprompt's
        return {"": "name", "name": name}
    if known.get(name) is not type(value):
        raise TypeError(name)
    names = type(value).model_fields if isinstance(value, BaseModel) else [f.name for f in fields(value) if f.init]
    return {"": name, "fields": {each: _plain(getattr(value, each), known) for each in names}}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    name = str(value[""])
    kind = RENAMED.get(name, name)
    if kind in ("dict", "tuple"):
        items = value["items"]
        return {k: _decoded(v) for k, v in items} if kind == "dict" else tuple(_decoded(v) for v in items)
    if kind == "float":
        return float(value["value"])
    known = _known()
    if kind == "name":
        return known[value["name"]]
    made = known.get(kind)
    if not isinstance(made, type) or not (is_dataclass(made) or issubclass(made, BaseModel)):
        raise PoolError(f"the stored selector holds a {kind!r}, which this version of kdprompt does not know")
    return made(**{name: _decoded(inner) for name, inner in value["fields"].items()})


# -- dictionaries and files -----------------------------------------------------------------------------------------


def to_dict(stored: Stored, default: Default | None = None) -> dict[str, Any]:
    """A selector as a dictionary that JSON has.

    Args:
        stored: The selector.
        default: Called for a value of an example that JSON has no form for, as ``json.dumps`` does.

    Raises:
        PoolError: JSON cannot keep an example as it is.
    """
    document, tensors = _document(stored, default)
    return {**document, "tensors": base64.b64encode(save(tensors)).decode()}


def from_dict(data: Mapping[str, Any], decode: Default | None = None) -> Stored:
    """What ``to_dict`` made; ``decode`` makes an example's values again of what ``default`` made of them.

    Raises:
        PoolError: It is of another format, or its tensors are damaged.
    """
    try:
        tensors = load(base64.b64decode(data["tensors"])) if "tensors" in data else {}
    except (TypeError, ValueError, SafetensorError) as error:
        raise PoolError(f"the tensors of the stored selector are damaged: {error!r:.120}") from error
    return _restored(data, tensors, decode)


def write(stored: Stored, path: str | Path, default: Default | None = None) -> None:
    """Writes a selector to one file; the file of before stays whole until the new one is complete.

    Raises:
        PoolError: As ``to_dict``; nothing is written.
    """
    document, tensors = _document(stored, default)
    text = json.dumps(document, ensure_ascii=False).encode(errors="surrogatepass")  # as json.loads reads it
    content = save({**tensors, DOCUMENT: torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | Path, decode: Default | None = None) -> Stored:
    """Reads what ``write`` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        PoolError: It is no stored selector, or of another format.
    """
    content = Path(path).read_bytes()
    try:
        tensors = load(content)
        document = json.loads(tensors.pop(DOCUMENT).numpy().tobytes())
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise PoolError(f"{path} is no stored selector: {error!r:.120}") from error
    try:
        return _restored(document, tensors, decode)
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error
