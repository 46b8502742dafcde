"""What is loaded is refused by name where it does not fit: damaged by chance, or made by hand with right checksums."""

import copy
import json
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from kdprompt import CallableEmbedder, DistillationSelector, KDPromptError, Pool, PoolError, Quota, Schema, Settings
from kdprompt.checksums import checksum, checksum_json, seal, unseal
from kdprompt.pool.members import Members
from kdprompt.storage.archive import pack_archive, unpack_archive
from kdprompt.storage.columns import read_columns
from kdprompt.storage.records import (
    demonstration_from_record,
    demonstration_to_record,
    demonstrations_from_records,
)

WIDTH = 5
RNG = np.random.default_rng(0)


def embed(texts):
    return torch.tensor(np.array([np.random.default_rng(list(text.encode())).normal(size=WIDTH) for text in texts]))


EMBEDDER = CallableEmbedder(embed)


@pytest.fixture(scope="module")
def chooser():
    examples = [{"input": f"text {i}", "output": "ab"[i % 2], "task": "t"} for i in range(12)]
    return DistillationSelector.from_examples(examples, EMBEDDER, queries=["one", "two"], settings=Settings(k=2))


@pytest.fixture
def path(chooser, tmp_path):
    chooser.save(tmp_path / "selector.kdprompt")
    return tmp_path / "selector.kdprompt"


def rewrite(path, change, *, records=False):
    """Changes tensors and parts of a file, and gives it right checksums again; ``records``: one of format 3."""
    tensors, parts = unpack_archive(path.read_bytes())
    if records:
        pool = Pool.of_members(Members.of_file(read_columns(parts, tensors)), Schema())
        tensors = {name: tensors[name] for name in ("vectors", "queries")}
        parts = {name: value for name, value in parts.items() if name not in ("example_outputs", "tasks")}
        parts |= {"format": 3, "records": [demonstration_to_record(shown, "it") for shown in pool]}
    change(tensors, parts)
    path.write_bytes(pack_archive(tensors, parts))


# -- damage -------------------------------------------------------------------------------------------------------


def test_every_bit_of_a_file_counts(path):
    whole = path.read_bytes()
    bits = RNG.choice(8 * len(whole), size=400, replace=False)
    head = range(64, 8 * 64)  # names, dtypes, shapes and places
    for bit in [*bits, *head]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(PoolError, match=f"{path.name}.*(?s:.)*load a copy of the file|Load a copy"):
            DistillationSelector.load(path, EMBEDDER)


def test_a_damaged_part_is_named(path):
    stored = load(path.read_bytes())
    for name in ("vectors", "queries"):
        damaged = {**stored, name: stored[name].flip(0).contiguous()}  # vectors in another order
        path.write_bytes(save(damaged))
        with pytest.raises(PoolError, match=f"{path.name} .* its part '{name}' is damaged: the checksum is"):
            DistillationSelector.load(path, EMBEDDER)
    for lost in ("tasks.json", "vectors", "inputs", "order"):
        path.write_bytes(save({name: tensor for name, tensor in stored.items() if name != lost}))
        with pytest.raises(PoolError, match="its parts are not those that its checksums name"):
            DistillationSelector.load(path, EMBEDDER)


def test_a_tensor_of_another_kind_with_the_same_bytes_is_damage(path):
    stored = load(path.read_bytes())
    for other in (stored["vectors"].view(torch.int64), stored["vectors"].reshape(-1, 1)):
        path.write_bytes(save({**stored, "vectors": other.contiguous()}))
        with pytest.raises(PoolError, match="'vectors' is damaged"):
            DistillationSelector.load(path, EMBEDDER)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("settings", lambda value: value.update(seed=1)),
        ("calibration", lambda value: value.update(lexical_share=0.5)),
        ("records", lambda value: value.reverse()),
        ("schema", lambda value: value.update(task=None)),
        ("queries", lambda value: value.pop()),
    ],
)
def test_a_changed_part_of_a_dictionary_is_named(chooser, part, change):
    data = json.loads(json.dumps(chooser.to_dict()))
    DistillationSelector.from_dict(dict(reversed(data.items())), EMBEDDER)  # the order of keys is nothing
    change(data[part])
    with pytest.raises(
        PoolError, match=f"^{part} of the stored selector: the checksum is .*, not .*changed or damaged"
    ):
        DistillationSelector.from_dict(data, EMBEDDER)


def test_a_dictionary_without_all_checksums_is_refused(chooser):
    data = chooser.to_dict()
    for sums in ({}, None, [], {"records": data["checksums"]["records"]}):
        with pytest.raises(PoolError, match="the checksums of the stored selector cannot be read"):
            DistillationSelector.from_dict({**data, "checksums": sums}, EMBEDDER)


# -- made by hand -------------------------------------------------------------------------------------------------

DEEP = "x"
for _ in range(700):
    DEEP = [DEEP]


def put(name, value):
    return lambda tensors, parts: (tensors if torch.is_tensor(value) else parts).__setitem__(name, value)


def within(*keys, value):
    def change(tensors, parts):
        inner = parts
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


def row(name, i, value):
    return lambda tensors, parts: tensors[name].__setitem__(i, value)


PARTS = ("schema", "records", "outputs", "queries", "settings", "calibration", "embedder", "about")
HOSTILE = {
    **{f"{part} missing": (lambda tensors, parts, part=part: parts.pop(part), "lacks") for part in PARTS},
    **{f"{part} a number": (put(part, 7), part.removesuffix("s")) for part in PARTS},
    "nan": (row("vectors", (3, 1), float("nan")), "example 3 .* has NaN"),
    "infinite": (row("vectors", (11, 0), float("inf")), "example 11"),
    "zero": (row("vectors", 5, 0.0), "example 5 .* has zeros only"),
    "nan query": (row("queries", (1, 1), float("nan")), "query 1"),
    "too few": (
        lambda tensors, parts: put("vectors", tensors["vectors"][:-1])(tensors, parts),
        "row each of 12, got 11",
    ),
    "no vectors": (lambda tensors, parts: tensors.pop("vectors"), "lacks 'vectors'"),
    "whole numbers": (put("vectors", torch.ones(12, WIDTH, dtype=torch.int64)), "vectors .* floating-point"),
    "flat": (put("vectors", torch.ones(12)), r"floating-point numbers \[n, d\], got torch.float32 \[12\]"),
    "no width": (put("vectors", torch.ones(12, 0)), "floating-point"),
    "queries wider": (put("queries", torch.ones(2, WIDTH + 1)), "queries .* are 6 wide, its vectors 5"),
    "id twice": (within("records", 3, "id", value="x"), None),
    "id a number": (within("records", 3, "id", value=3), "example 3 .* id"),
    "empty input": (within("records", 2, "input", value="  "), "example 2 .* empty input"),
    "half a sign": (within("records", 2, "input", value="\ud83d"), "example 2 .* lone surrogate"),
    "record a list": (within("records", 4, value=[]), "example 4"),
    "fields a list": (within("records", 4, "fields", value=[1]), "example 4"),
    "deep settings": (within("settings", "order", value=DEEP), "settings"),
    "unknown setting": (within("settings", "tomorrow", value=1), "tomorrow"),
    "k below zero": (within("settings", "k", value=-1), "k.*greater than or equal to 0"),
    "k a text": (within("settings", "k", value="many"), "k.*many"),
    "k beyond the pool": (within("settings", "k", value=99), "k must be at most .*12.*99"),
    "seed": (within("settings", "seed", value=2**80), "seed"),
    "delta": (within("settings", "delta", value=1.0), "delta"),
    "quota": (within("settings", "quota", value={"most": {"zzz": 1}, "least": None}), "zzz"),
    "weights": (within("calibration", "chosen", "parameters", "weights", "bias", value=-1.0), "weights.bias"),
    "share": (within("calibration", "chosen", "parameters", "output_share", value=1.5), "output_share"),
    "temperature": (within("calibration", "static_parameters", "kernel", "temperature", value=-2.0), "temperature"),
    "words": (within("calibration", "lexical_share", value=7.0), "lexical_share"),
    "no finite kernel": (
        within(
            "calibration",
            "regression",
            "kernel",
            value={"kind": "scaled", "scale": 1e308, "kernel": {"kind": "polynomial", "degree": 900, "offset": 1e9}},
        ),
        "calibration|kernels",
    ),
    "shrinkage": (within("calibration", "regression", "shrinkage", value=-1.0), "shrinkage"),
    "query empty": (within("queries", 0, "text", value=" "), "empty"),
    "embedder a list": (put("embedder", []), "embedder must be an object"),
    "no class": (within("embedder", "class", value=None), "its class must be a text"),
    "no prompts": (within("embedder", "model", value="m"), "its prompts must be two names"),
    "model a list": (put("embedder", {"class": "x", "model": [], "prompts": [None, None]}), "must be texts"),
    "fingerprint a text": (within("embedder", "fingerprint", value="x"), "a text and a vector"),
    "fingerprint of zeros": (within("embedder", "fingerprint", value={"text": "x", "vector": [0.0]}), "norm 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_made_by_hand_is_refused_by_name(name, path):
    change, said = HOSTILE[name]

    def both(tensors, parts):
        if name == "id twice":
            parts["records"][2]["id"] = "x"
        change(tensors, parts)

    rewrite(path, both, records=True)
    with pytest.raises(KDPromptError, match=said) as refused:
        DistillationSelector.load(path, EMBEDDER)
    assert isinstance(refused.value, PoolError)


def text(name, old, new):
    """One text of a column for another one, with the ends that it has then."""

    def change(tensors, parts):
        texts = [column_text.encode() if column_text != old else new for column_text in read_texts(tensors, name)]
        tensors[name] = torch.tensor(list(b"".join(texts)), dtype=torch.uint8)
        tensors[f"{name}_ends"] = torch.tensor([len(one) for one in texts]).cumsum(0)

    return change


def read_texts(tensors, name):
    ends = tensors[f"{name}_ends"].tolist()
    content = bytes(tensors[name].tolist())
    return [content[begin:end].decode() for begin, end in zip([0, *ends], ends, strict=False)]


def cut_through(tensors, parts):
    """All bytes are UTF-8, but one text ends within a character."""
    text("inputs", "text 3", "täxt 3".encode())(tensors, parts)
    tensors["inputs_ends"][2] += 2


def same_ids(tensors, parts):
    ids = read_texts(tensors, "ids")
    text("ids", ids[3], ids[2].encode())(tensors, parts)


def longer_id_twice(tensors, parts):
    ids = read_texts(tensors, "ids")
    text("ids", ids[3], b"longer than others")(tensors, parts)
    text("ids", ids[2], b"longer than others")(tensors, parts)


def cut(name, kind=slice(None, -1)):
    return lambda tensors, parts: tensors.__setitem__(name, tensors[name][kind].clone())


def swap(tensors, parts):
    tensors["order"][[0, 1]] = tensors["order"][[1, 0]]


COLUMNS = ("ids", "inputs", "fields")
NUMBERS = ("ids_ends", "inputs_ends", "fields_ends", "example_outputs_codes", "tasks_codes", "order")
HOSTILE_COLUMNS = {
    **{
        f"{name} missing": (lambda tensors, parts, name=name: tensors.pop(name), f"lacks '{name}'")
        for name in (*COLUMNS, *NUMBERS)
    },
    **{f"{name} shorter": (cut(name), "must be of one length|must ascend to|lacks") for name in (*COLUMNS, *NUMBERS)},
    **{f"{name} of floats": (put(name, torch.ones(12)), f"{name} must be whole numbers") for name in NUMBERS},
    **{f"{name} a table": (put(name, torch.ones(12, 1, dtype=torch.int64)), "whole numbers") for name in NUMBERS},
    **{f"{name} of floats": (put(name, torch.ones(12)), f"{name} must be bytes") for name in COLUMNS},
    **{f"{name} beyond": (row(name, 4, 12), "from -1 to|from 0 to 11") for name in NUMBERS[3:]},
    **{f"{name} before": (row(name, 4, -2), "from -1 to|from 0 to 11") for name in NUMBERS[3:]},
    **{f"{name} back": (row(name, 4, 0), "must ascend to") for name in NUMBERS[:3]},
    **{f"{name} a number": (put(name, 7), f"{name} must be a list") for name in ("example_outputs", "tasks")},
    **{f"{name} twice": (put(name, ["a", "a"]), f"{name} must be distinct") for name in ("example_outputs", "tasks")},
    "half a sign": (put("example_outputs", ["a", "\ud83d"]), "example_outputs .* UTF-8"),
    "an output a list": (put("example_outputs", ["a", []]), "must be a list of texts"),
    "blank": (text("inputs", "text 2", "\u2003 ".encode()), "example 2 .* empty input"),
    "empty": (text("inputs", "text 11", b""), "example 11 .* empty input"),
    "no UTF-8": (text("inputs", "text 5", b"\xff"), "example 5 .* an input that is no UTF-8"),
    "cut through a sign": (cut_through, "example 2 .* input that is no UTF-8"),
    "id twice": (same_ids, "example 3 has the id .* that example 2 has already"),
    "longer id twice": (longer_id_twice, "example 3 has the id 'longer .* that example 2 has already"),
    "another order": (swap, "order of their ids is not"),
    "an order of one": (put("order", torch.zeros(12, dtype=torch.int64)), "order of their ids is not"),
}


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_columns_that_were_made_by_hand_are_refused_when_they_are_read(name, path):
    change, said = HOSTILE_COLUMNS[name]
    rewrite(path, change)
    with pytest.raises(PoolError, match=f"{path.name}: (?s:.)*({said})"):
        DistillationSelector.load(path, EMBEDDER)


@pytest.mark.parametrize("fields", [b"{", b"[]", b"\xff", b""], ids=repr)
def test_fields_that_were_made_by_hand_are_refused_with_their_example_and_nothing_else_is_shown_for_it(
    fields, path, chooser
):
    rewrite(path, text("fields", read_texts(unpack_archive(path.read_bytes())[0], "fields")[4], fields))
    loaded = DistillationSelector.load(path, EMBEDDER)
    with pytest.raises(PoolError, match=r"the fields of example 4 .* cannot be read: .* Load a copy"):
        loaded.select("one", k=12).to_text()
    assert loaded.pool[3] == chooser.pool[3]


def test_the_file_is_named_too(path):
    rewrite(path, row("vectors", (3, 1), float("nan")))
    with pytest.raises(PoolError, match=rf"{path.name}: vectors .* Load a copy of the file, or build"):
        DistillationSelector.load(path, EMBEDDER)


def test_json_too_deep_for_its_reader_is_refused(path):
    tensors = load(path.read_bytes())
    text = b'{"format": 2, "records": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    path.write_bytes(save({"vectors": tensors["vectors"], "document": torch.tensor(list(text), dtype=torch.uint8)}))
    with pytest.raises(PoolError, match=f"{path.name} .* nested too deeply"):
        DistillationSelector.load(path, EMBEDDER)


def test_files_of_format_2_still_load(chooser, path):
    rewrite(path, lambda tensors, parts: None, records=True)
    tensors, parts = unpack_archive(path.read_bytes())
    text = json.dumps({**parts, "format": 2}).encode()
    path.write_bytes(save({**tensors, "document": torch.tensor(list(text), dtype=torch.uint8)}))
    other = DistillationSelector.load(path, EMBEDDER)
    assert other.select_batch(["one", "three"]) == chooser.select_batch(["one", "three"])
    data = {name: value for name, value in chooser.to_dict().items() if name != "checksums"}
    assert DistillationSelector.from_dict({**data, "format": 2}, EMBEDDER).select("one") == chooser.select("one")
    changed = copy.deepcopy(chooser.to_dict())  # whoever changes the number is not believed
    changed["settings"]["seed"] = 9
    with pytest.raises(PoolError, match="settings of the stored selector: the checksum"):
        DistillationSelector.from_dict({**changed, "format": 2}, EMBEDDER)


def test_settings_refuse_numbers_that_nothing_can_work_with():
    for bad in ({"seed": 2**64}, {"k": 2**31}, {"k_max": 10**30}, {"budget": 2**63}, {"quota": Quota}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Settings(**bad)
    for count in (-1, 2**40):
        with pytest.raises(ValueError, match="most must be at least 0 and at most"):
            Quota(most=count)


# -- checksums ----------------------------------------------------------------------------------------------------


def test_a_checksum_is_crc_32():
    """The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms."""
    assert checksum(b"123456789") == checksum(b"12", memoryview(b"3456789")) == "cbf43926"
    assert checksum_json({"a": 1, "b": [1.5, None]}) == checksum_json({"b": [1.5, None], "a": 1})
    assert checksum_json([1, 2]) != checksum_json([2, 1])


def test_a_seal_is_checked():
    content = {"a": [1, 2.5], "ä": "\ud800"}
    sealed = json.loads(json.dumps(seal(content)))
    assert unseal(sealed) == content
    for bad in ({**sealed, "a": [1, 2.6]}, {**sealed, "more": 1}, content, [], None, {**sealed, "checksum": None}):
        with pytest.raises(ValueError, match="checksum"):
            unseal(bad)


PLAIN = {"id": "i", "input": "x", "output": "y", "task": None, "fields": {"input": "x", "more": [1]}}
ODD = [{**PLAIN, "fields": {1: 2}}, {**PLAIN, "output": 4}, {**PLAIN, "id": None}, {**PLAIN, "fields": []}]
ODD += [{key: PLAIN[key] for key in ("id", "input")}, [], {**PLAIN, "other": 1}, MappingProxyType(PLAIN)]


def test_records_that_are_read_at_once_are_those_that_are_read_one_by_one():
    records = [PLAIN, {**PLAIN, "id": "j", "output": None, "task": "t"}]
    made = demonstrations_from_records(records)
    assert made == [demonstration_from_record(record) for record in records]
    assert made[0].fields == PLAIN["fields"] and made[0].fields is not PLAIN["fields"]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_records_among_which_one_is_odd_are_left_to_those_who_name_it(odd):
    assert demonstrations_from_records([PLAIN, odd, PLAIN]) is None
