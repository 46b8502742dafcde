"""Selectors on disk and as JSON: they come back as they went, nothing is computed again, nothing is lost."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from kdprompt import (
    ByObjective,
    CallableEmbedder,
    DistillationSelector,
    EmbeddingError,
    NearestFirst,
    ObjectiveSettings,
    ObjectiveWeights,
    PoolError,
    PromptTemplate,
    Query,
    Quota,
    Schema,
    SearchSettings,
    SentenceTransformerEmbedder,
    Settings,
    StaticSettings,
)
from kdprompt import selector as selector_room
from kdprompt.checksums import checksum_json
from kdprompt.pool.jinja_template import JinjaTemplate
from kdprompt.pool.late_examples import LateExamples
from kdprompt.search.position_profiles import MeasuredProfile, PrimacyRecency, Recency
from kdprompt.storage.archive import pack_archive, unpack_archive
from kdprompt.theory.kernels import Gaussian, Laplace, Linear, Polynomial, RationalQuadratic
from support import run_together

WIDTH = 6
OUTPUTS = {"a": "red", "b": "green", "c": "blue"}
QUERIES = ["a query", "b query", "c query"]


class Counted:
    """Texts that begin alike lie together; every text that is asked for is noted."""

    def __init__(self, device="cpu", dtype=torch.float64):
        self.device, self.dtype, self.documents, self.queries = device, dtype, [], []

    def rows(self, texts):
        centres = [np.random.default_rng(ord(text[0])).normal(size=WIDTH) for text in texts]
        noise = [np.random.default_rng(list(text.encode(errors="replace"))).normal(size=WIDTH) for text in texts]
        return torch.as_tensor(np.array(centres) + 0.4 * np.array(noise)).to(self.device, self.dtype)

    def embed_documents(self, texts):
        self.documents += texts
        return self.rows(texts)

    def embed_query(self, text):
        self.queries.append(text)
        return self.rows([text])[0]


def records(n=36, **more):
    return [{"input": f"{'abc'[i % 3]} {i}", "output": OUTPUTS["abc"[i % 3]], **more} for i in range(n)]


def selector(examples=None, embedder=None, settings=None, **more):
    examples = records() if examples is None else examples
    return DistillationSelector.from_examples(
        examples, embedder or Counted(), settings=settings or Settings(k=4), **more
    )


def by_file(chooser, embedder, folder, **more):
    chooser.save(folder / "selector")
    return DistillationSelector.load(folder / "selector", embedder, **more)


def by_json(chooser, embedder, folder, **more):
    return DistillationSelector.from_dict(json.loads(json.dumps(chooser.to_dict(), allow_nan=False)), embedder, **more)


WAYS = pytest.mark.parametrize("way", [by_file, by_json])


@pytest.fixture
def no_calibration(monkeypatch):
    """Calibration is not to be done again, from here on."""

    def forbid():
        def calibrate(*_):
            raise AssertionError("calibrated again")

        monkeypatch.setattr(selector_room, "calibrate_pool", calibrate)

    return forbid


def assert_same(chooser, other):
    """The same in everything that can be asked, to the last digit."""
    assert other.select_batch(QUERIES) == chooser.select_batch(QUERIES)
    assert str(other.explain("a query")) == str(chooser.explain("a query"))
    assert other.select_static() == chooser.select_static()
    assert other.pool.demonstrations == chooser.pool.demonstrations and other.pool.schema == chooser.pool.schema
    assert other.settings == chooser.settings
    assert repr(vars(other.calibration)) == repr(vars(chooser.calibration))  # NaN is no equal of itself


def assert_chooses_alike(chooser, other):
    """The same prompts, their numbers within rounding: sums over a pool that changed were made in another order."""
    pairs = zip(
        [*chooser.select_batch(QUERIES), chooser.select_static()],
        [*other.select_batch(QUERIES), other.select_static()],
        strict=True,
    )
    for ours, theirs in pairs:
        assert theirs.ids == ours.ids and theirs.to_text(query="q") == ours.to_text(query="q")
        assert theirs.notes == ours.notes
        assert theirs.terms.model_dump() == pytest.approx(ours.terms.model_dump(), abs=1e-9)
    assert other.pool.demonstrations == chooser.pool.demonstrations


# -- there and back -----------------------------------------------------------------------------------------------


@WAYS
def test_a_selector_comes_back_without_embedding_or_calibrating(way, tmp_path, device, no_calibration):
    dtype = torch.float32 if device.type == "mps" else torch.float64
    chooser = selector(records(108), Counted(device, dtype))
    assert chooser.calibration.trials  # there is something to lose
    no_calibration()
    fresh = Counted(device, dtype)
    other = way(chooser, fresh, tmp_path)
    assert fresh.documents == ["a 0"] and fresh.queries == []  # one text, to see that it is the same embedder
    assert [s.ids for s in other.select_batch(QUERIES)] == [s.ids for s in chooser.select_batch(QUERIES)]
    assert fresh.documents == ["a 0"] and fresh.queries == QUERIES
    if device.type == "cpu":
        assert_same(chooser, other)


def test_a_file_may_be_replaced_while_a_selector_from_it_is_in_use(tmp_path):
    path = tmp_path / "selector"
    chooser, larger = selector(), selector(records(72))
    chooser.save(path)
    loaded = DistillationSelector.load(path, Counted())
    larger.save(path)
    assert torch.equal(loaded._pool.vectors, chooser._pool.vectors)
    loaded.add_example({"input": "d 99", "output": "blue"})  # joins the vectors that lie in the file of before
    loaded.save(path)
    again = DistillationSelector.load(path, Counted())
    assert len(again.pool) == 37 and torch.equal(again._pool.vectors[:36], chooser._pool.vectors)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_vectors_keep_every_bit(way, dtype, tmp_path):
    vectors = torch.as_tensor(np.random.default_rng(0).normal(size=(50, WIDTH))).to(dtype)
    chooser = selector(vectors=vectors[7:43])  # a part of a larger storage
    assert_same(chooser, way(chooser, Counted(), tmp_path))


@WAYS
def test_a_restored_selector_grows_as_the_first_one(way, tmp_path):
    chooser = selector()
    embedder = Counted()
    other = way(chooser, embedder, tmp_path)
    for each in (chooser, other):
        ident = each.pool[3].id
        each.add_examples([{"id": "new", "input": "a new one", "output": "red"}])
        each.update(ident, {"input": "c changed", "output": "blue"})
        each.remove(each.pool[0].id)
    assert embedder.documents == ["a 0", "a new one", "c changed"]
    assert_chooses_alike(chooser, other)
    assert_chooses_alike(chooser, way(other, Counted(), tmp_path))


@WAYS
def test_embedded_outputs_are_kept(way, tmp_path, no_calibration):
    examples = [{"input": f"{'abc'[i % 3]} {i}", "output": f"{'xyz'[i % 3]} out {i}"} for i in range(36)]
    examples += [{"input": "a blank", "output": ""}, {"input": "b without"}]
    chooser = selector(examples, settings=Settings(k=4, outputs="text"))
    no_calibration()
    fresh = Counted()
    other = way(chooser, fresh, tmp_path)
    assert fresh.documents == ["a 0"]
    assert_same(chooser, other)
    assert other.pool[36].output == "" and other.pool[37].output is None
    other.add_example({"input": "c more", "output": "x out 0"})  # a known output
    assert fresh.documents == ["a 0", "c more"]


@WAYS
def test_tasks_and_traffic_are_kept(way, tmp_path, no_calibration):
    examples = [{**record, "task": ("left", "right")[i // 3 % 2]} for i, record in enumerate(records())]
    traffic = ["a one", Query(text="b two", task="left"), Query(text="c three", outputs=frozenset({"red", "blue"}))]
    chooser = selector(examples, queries=traffic)
    no_calibration()
    fresh = Counted()
    other = way(chooser, fresh, tmp_path)
    assert_same(chooser, other)
    found = other.select("b query", task="right")
    assert found == chooser.select("b query", task="right") and {d.task for d in found.demonstrations} == {"right"}
    assert set(fresh.queries) == {*QUERIES, "a query", "b query"}  # the traffic is not embedded again


@WAYS
def test_a_schema_is_kept(way, tmp_path):
    schema = Schema(inputs=("who", "what"), outputs=None, task="kind", id="key")
    examples = [
        {"key": str(i), "kind": "k", "who": f"{'abc'[i % 3]}", "what": i, "say": "yes", "too": i % 2} for i in range(9)
    ]
    chooser = selector(examples, schema=schema)
    other = way(chooser, Counted(), tmp_path)
    assert_same(chooser, other)
    query = {"who": "a", "what": 2.5}
    assert other.select(query) == chooser.select(query)


SETTINGS = {
    "auto": Settings(k="auto", k_max=6),
    "none": Settings(k=0, calibrate=False),
    "kernel": Settings(
        k=3,
        objective=ObjectiveSettings(
            kernel=2.0 * Laplace(0.8) * Polynomial(2, 0.5) + Linear(), output_share=0.3, neighbourhood=0.5
        ),
    ),
    "order": Settings(
        k=5,
        order=ByObjective(PrimacyRecency(0.4, 0.6)),
        objective=ObjectiveSettings(weights=ObjectiveWeights(1.0, 0.1, 0.7)),
    ),
    "measured": Settings(k=3, order=NearestFirst(MeasuredProfile((1.0, 2.0, 4.0)))),
    "listed": Settings(k=3, order=ByObjective(MeasuredProfile([1.0, 2.0, 4.0]))),
    "recency": Settings(
        k=3, order=ByObjective(Recency(0.5)), seed=3, delta=0.2, objective=ObjectiveSettings(tolerance=0.1)
    ),
    "quota": Settings(k=4, quota=Quota(most={"red": 1}, least=1), budget=60),
    "counts": Settings(k=4, quota=Quota(most=2)),
    "template": Settings(k=4, budget=40, template=PromptTemplate("Q {input} ä A {output}", "Q {input}", "\n", "Say.")),
    "wide": Settings(
        k=4,
        outputs="labels",
        search=SearchSettings(shortlist=9, near_duplicate=0.99),
        static=StaticSettings(shortlist=12, queries=20),
    ),
}


@WAYS
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_are_kept(settings, way, tmp_path, no_calibration):
    chooser = selector(settings=settings)
    no_calibration()
    assert_same(chooser, way(chooser, Counted(), tmp_path))


@WAYS
@pytest.mark.parametrize("outputs", ["labels", "text"])
def test_what_was_calibrated_for_an_open_k_is_kept(outputs, way, tmp_path, no_calibration):
    chooser = selector(records(108), settings=Settings(k="auto", k_max=4, outputs=outputs))
    assert any(trial.parameters.tolerance > 0 for trial in chooser.calibration.trials)
    no_calibration()
    assert_same(chooser, way(chooser, Counted(), tmp_path))


@WAYS
def test_examples_come_back_as_they_went(way, tmp_path):
    meta = {
        "text": "ä \u2028 \x00 \ud800 \"'{}",
        "numbers": [0, -1, 2**70, 0.1, -0.0, 1e-300],
        "nested": {"a": [None, True, {"": []}]},
    }
    chooser = selector(records(6, meta=meta), settings=Settings(k=2))
    other = way(chooser, Counted(), tmp_path)
    assert [d.fields for d in other.pool] == [d.fields for d in chooser.pool]
    assert other.pool[0].fields["meta"] == meta
    assert type(other.pool[0].fields["meta"]["numbers"][0]) is int
    assert str(other.pool[0].fields["meta"]["numbers"][4]) == "-0.0"


def test_the_dictionary_is_strict_json_where_nothing_was_tried(tmp_path):
    chooser = selector(settings=Settings(k=4, calibrate=False))
    assert chooser.calibration.chosen.loss is None
    text = json.dumps(chooser.to_dict(), allow_nan=False)
    assert DistillationSelector.from_dict(json.loads(text), Counted()).calibration == chooser.calibration
    assert_same(chooser, by_file(chooser, Counted(), tmp_path))


# -- what cannot be stored ----------------------------------------------------------------------------------------

UNSTORABLE = {
    "tuple": (1, 2),
    "key": {1: "one"},
    "deep": [{"x": [(1,)]}],
    "object": object,  # the class: a copy of it is itself
    "set": {1},
    "nan": float("nan"),
    "inf": [float("inf")],
}


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
def test_what_json_would_change_is_refused_by_name_and_nothing_is_written(value, tmp_path):
    path = tmp_path / "selector"
    selector().save(path)
    before = path.read_bytes()
    examples = records(6)
    examples[2] |= {"id": "third", "meta": value}
    chooser = selector(examples, settings=Settings(k=2))
    for store in (lambda: chooser.save(path), chooser.to_dict):
        with pytest.raises(PoolError) as refused:
            store()
        for said in ("example 2", "'third'", "'meta'", repr(value)[:60]):
            assert said in str(refused.value)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["selector"]


def test_a_number_of_thousands_of_digits_in_a_field_is_refused_by_name(tmp_path):
    chooser = selector(records(6, meta=10**5_000), settings=Settings(k=2))
    with pytest.raises(PoolError, match=r"example 0 \(id .* its 'meta' is a int"):
        chooser.save(tmp_path / "selector")


class Angular(PromptTemplate):
    """A template of the user's."""

    def render(self, demonstration):
        return f"<{demonstration.input}={demonstration.output}>"


@WAYS
@pytest.mark.parametrize("template", [JinjaTemplate(instruction=""), Angular()], ids=["jinja", "own"])
def test_a_template_that_is_code_is_given_again_and_never_lost(way, template, tmp_path):
    """It came back as another template, which wrote another prompt."""
    settings = Settings(k=4, template=template)
    with pytest.raises(PoolError, match=r"could not be stored .* a template .*give them again"):
        way(selector(settings=settings), Counted(), tmp_path)
    assert way(selector(settings=settings), Counted(), tmp_path, settings=settings).settings.template == template
    plain = Settings(k=4, template=PromptTemplate(instruction="Sort.", separator="\n"))
    assert way(selector(settings=plain), Counted(), tmp_path).settings == plain


def encode(value):
    return {"$date": value.isoformat()}


def decode(value):
    return date.fromisoformat(value["$date"]) if isinstance(value, dict) and "$date" in value else value


def test_values_of_other_kinds_come_back_where_one_says_how(tmp_path):
    chooser = selector(records(6, day=date(2020, 2, 29), tags=["x"]), settings=Settings(k=2))
    with pytest.raises(PoolError, match=r"example 0 .* its 'day' is datetime.date\(2020, 2, 29\)"):
        chooser.save(tmp_path / "x")
    chooser.save(tmp_path / "x", encode)
    data = json.loads(json.dumps(chooser.to_dict(encode), allow_nan=False))
    for other in (
        DistillationSelector.load(tmp_path / "x", Counted(), decode=decode),
        DistillationSelector.from_dict(data, Counted(), decode=decode),
    ):
        assert_same(chooser, other)
        assert other.pool[0].fields["day"] == date(2020, 2, 29)
    with pytest.raises(PoolError, match="'nan'"):  # no default is asked for a float
        selector(records(6, nan=float("nan")), settings=Settings(k=2)).to_dict(encode)
    with pytest.raises(PoolError, match="'pair'"):
        selector(records(6, pair=(1, 2)), settings=Settings(k=2)).to_dict(encode)


@dataclass(frozen=True)
class Own(Gaussian):
    """A kernel of the user's."""

    temperature: float = 0.7


def per_word(text):
    return len(text.split())


@WAYS
@pytest.mark.parametrize(
    "own",
    [{"objective": ObjectiveSettings(kernel=Own())}, {"count_tokens": per_word, "budget": 40}],
    ids=["kernel", "count"],
)
def test_settings_that_cannot_be_stored_are_given_again(own, way, tmp_path):
    settings = Settings(k=4, **own)
    chooser = selector(settings=settings)
    with pytest.raises(PoolError, match=r"could not be stored .* give them again: settings="):
        way(chooser, Counted(), tmp_path)
    assert_same(chooser, way(chooser, Counted(), tmp_path, settings=settings))


def test_the_calibration_of_settings_with_an_own_function_is_kept(tmp_path, no_calibration):
    settings = Settings(k=4, budget=40, count_tokens=lambda text: len(text))
    chooser = selector(settings=settings)
    no_calibration()
    assert_same(chooser, by_file(chooser, Counted(), tmp_path, settings=settings))


def test_a_kernel_that_only_bears_a_known_name_is_not_taken_for_it(tmp_path):
    impostor = type("Gaussian", (Own,), {})
    assert type(impostor()).__name__ == "Gaussian"
    with pytest.raises(PoolError, match="could not be stored"):
        by_file(selector(settings=Settings(k=4, objective=ObjectiveSettings(kernel=impostor()))), Counted(), tmp_path)


def test_other_settings_may_be_given_and_what_they_pin_holds(tmp_path, no_calibration):
    chooser = selector(records(108))
    pinned = Settings(
        k=2,
        objective=ObjectiveSettings(
            weights=ObjectiveWeights(1.0, 0.2, 0.9), output_share=0.25, kernel=Gaussian(0.3), neighbourhood=0.1
        ),
    )
    other = by_file(chooser, Counted(), tmp_path, settings=pinned)
    assert other.calibration.parameters.weights == pinned.objective.weights
    assert other.calibration.parameters.output_share == 0.25
    assert other.select_batch(QUERIES) == selector(records(108), settings=pinned).select_batch(QUERIES)
    no_calibration()
    fewer = by_file(chooser, Counted(), tmp_path, settings=Settings(k=2))
    assert fewer.calibration == chooser.calibration
    assert chooser.calibration.trials and len(fewer.select("a query")) == 2


# -- the embedder -------------------------------------------------------------------------------------------------


@WAYS
def test_an_embedder_of_ones_own_is_given_again(way, tmp_path):
    with pytest.raises(EmbeddingError, match=r"embedded by a .*test_storage\.Counted, .* give it again: embeddings="):
        way(selector(), None, tmp_path)


class Prefixed(SentenceTransformerEmbedder):
    """Embeds otherwise than the class that it comes from."""


def test_the_default_embedder_is_made_again_by_its_name(tmp_path):
    vectors = torch.as_tensor(np.random.default_rng(0).normal(size=(36, WIDTH)))

    def back(embedder):
        return by_file(selector(embedder=embedder, vectors=vectors), None, tmp_path).embedder

    named = back(SentenceTransformerEmbedder("some/model", prompt_names=(None, "query")))
    assert type(named) is SentenceTransformerEmbedder
    assert (named.name, named.prompt_names) == ("some/model", (None, "query"))
    assert back(SentenceTransformerEmbedder()).name is None
    for own in (Prefixed(), SentenceTransformerEmbedder(object())):
        with pytest.raises(EmbeddingError, match="give it again"):
            back(own)


def test_the_real_default_embedder_is_restored(embedder, tmp_path):
    examples = [
        {"input": text, "output": label}
        for text, label in (
            ("The match ended two to one.", "sport"),
            ("She won the final in three sets.", "sport"),
            ("The striker scored twice.", "sport"),
            ("Shares fell on weak earnings.", "business"),
            ("The bank raised its rates.", "business"),
            ("The merger needs approval.", "business"),
        )
    ]
    chooser = selector(examples, embedder, Settings(k=2))
    other = by_file(chooser, None, tmp_path)
    assert type(other.embedder) is SentenceTransformerEmbedder and other.embedder is not embedder
    other.embedder.device = "cpu"
    queries = ["The goalkeeper saved a penalty.", "Profits rose in spring."]
    assert [s.ids for s in other.select_batch(queries)] == [s.ids for s in chooser.select_batch(queries)]
    vectors = [each.embedder.embed_queries(queries) for each in (chooser, other)]
    assert torch.allclose(*vectors, atol=1e-6)


class Another(Counted):
    """As wide, but another model."""

    def rows(self, texts):
        return super().rows([text[::-1] for text in texts])


@WAYS
def test_another_embedder_is_noticed_and_embeds_anew_where_one_says_so(way, tmp_path):
    chooser = selector(records(108), queries=["a one", "b two"])
    with pytest.raises(EmbeddingError, match=r"Another given is another .* 'a 0' .*cosine .*load\(…, reembed=True\)"):
        way(chooser, Another(), tmp_path)
    with pytest.raises(EmbeddingError, match=r"returns 7 dimensions, the embedder of the pool .* 6; give the embedder"):
        way(chooser, CallableEmbedder(lambda texts: torch.ones(len(texts), 7)), tmp_path)
    other, anew = (
        way(chooser, Another(), tmp_path, reembed=True),
        selector(records(108), Another(), queries=["a one", "b two"]),
    )
    assert_same(anew, other)
    with pytest.raises(EmbeddingError, match="give it again"):
        way(chooser, None, tmp_path, reembed=True)


def test_an_embedder_that_is_known_is_not_asked_again(tmp_path):
    embedder = Counted()
    chooser = selector(embedder=embedder)
    asked = len(embedder.documents)
    for _ in range(3):
        chooser.save(tmp_path / "selector")
        chooser = DistillationSelector.load(tmp_path / "selector", embedder)
    assert embedder.documents[asked:] == ["a 0"]


def test_an_embedder_that_fails_costs_no_selector(tmp_path, caplog):
    embedder = Counted()
    chooser = selector(embedder=embedder)
    embedder.rows = None
    chooser.save(tmp_path / "selector")
    assert "failed on a text" in caplog.text
    assert_same(selector(), DistillationSelector.load(tmp_path / "selector", Counted()))
    other = CallableEmbedder(lambda texts: torch.ones(len(texts), WIDTH))
    with pytest.raises(EmbeddingError, match="is another embedder than that of the pool"):  # by what the pool holds
        DistillationSelector.load(tmp_path / "selector", other)


def test_an_embedder_of_another_width_is_noticed(tmp_path):
    other = by_file(selector(), Counted(), tmp_path)
    with pytest.raises(EmbeddingError, match="6 dimensions as for the pool, got 5"):
        other.select_batch(["x"], vectors=torch.ones(1, 5))


# -- files --------------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        DistillationSelector.load(tmp_path / "nowhere", Counted())


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_file_is_named(share, tmp_path):
    path = tmp_path / "selector"
    selector().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PoolError, match=f"{path.name} is no stored selector"):
        DistillationSelector.load(path, Counted())


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "foreign"
    written = [b"hello", b'{"format": 1}', os.urandom(1000), save({"weight": torch.ones(3)})]
    written += [save({"document": torch.ones(3)}), save({"document": torch.tensor(list(b"[1"), dtype=torch.uint8)})]
    for content in written:
        path.write_bytes(content)
        with pytest.raises(PoolError, match=f"{path.name} is no stored selector"):
            DistillationSelector.load(path, Counted())
    path.write_bytes(save({"document": torch.tensor(list(b"[1]"), dtype=torch.uint8)}))
    with pytest.raises(PoolError, match=f"{path.name}: a stored selector of format 1 to 4 is expected, got None"):
        DistillationSelector.load(path, Counted())


def test_another_format_is_named(tmp_path):
    path = tmp_path / "selector"
    chooser = selector()
    chooser.save(path)
    tensors, parts = unpack_archive(path.read_bytes())
    path.write_bytes(pack_archive(tensors, {**parts, "format": 7}))
    with pytest.raises(PoolError, match=f"{path.name}: a stored selector of format 1 to 4 is expected, got 7"):
        DistillationSelector.load(path, Counted())
    for data, said in (({**chooser.to_dict(), "format": 7}, 7), ({}, None)):
        with pytest.raises(PoolError, match=f"format 1 to 4 is expected, got {said}"):
            DistillationSelector.from_dict(data, Counted())


@pytest.mark.parametrize("tensors", ["", "no base64!", "AAAA", None])
def test_damaged_tensors_of_a_dictionary_are_an_error(tensors):
    data = {**selector().to_dict(), "tensors": tensors}
    with pytest.raises(PoolError, match="tensors of the stored selector: the checksum is"):
        DistillationSelector.from_dict(data, Counted())
    data["checksums"] = {**data["checksums"], "tensors": checksum_json(tensors)}
    with pytest.raises(PoolError, match="tensors of the stored selector are damaged"):
        DistillationSelector.from_dict(data, Counted())


def test_an_unknown_object_inside_is_named(tmp_path):
    data = selector().to_dict()
    data["settings"]["objective"]["kernel"] = {"kind": "tomorrow"}
    data["checksums"]["settings"] = checksum_json(data["settings"])
    with pytest.raises(PoolError, match=r"settings of the stored selector are not ones .* knows(?s:.)*'tomorrow'"):
        DistillationSelector.from_dict(data, Counted())


def test_folders_are_made_and_the_file_stands_alone(tmp_path):
    path = tmp_path / "a" / "b" / "selector.safetensors"
    chooser = selector()
    chooser.save(path)
    chooser.remove(chooser.pool[0].id)
    chooser.save(str(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert_chooses_alike(chooser, DistillationSelector.load(str(path), Counted()))


KILLED = """
import os, signal, sys
import torch
from kdprompt import CallableEmbedder, DistillationSelector, Settings

def killed(descriptor):
    # in place of the flush to the disk: half of the content is there
    os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)

os.fsync = killed
embedder = CallableEmbedder(lambda texts: torch.eye(6)[: len(texts)])
chooser = DistillationSelector.from_examples([{"input": str(i)} for i in range(6)], embedder, settings=Settings(k=2))
chooser.save(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_write_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "selector"
    chooser = selector()
    chooser.save(path)
    before = path.read_bytes()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert path.read_bytes() == before
    assert_same(chooser, DistillationSelector.load(path, Counted()))


def test_a_write_that_fails_leaves_the_file_of_before_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "selector"
    chooser = selector()
    chooser.save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        chooser.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_threads_that_write_the_same_file_leave_a_whole_one(tmp_path):
    path, errors = tmp_path / "selector", []
    chooser = selector()
    together = threading.Barrier(4, timeout=60)

    def writes():
        try:
            for _ in range(10):
                together.wait()
                chooser.save(path)
                DistillationSelector.load(path, Counted())
        except Exception as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=writes) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert [each.name for each in tmp_path.iterdir()] == ["selector"]


def test_what_is_stored_may_carry_more(tmp_path):
    """What an integration wants to find again."""
    from kdprompt import storage

    stored = replace(selector().stored(), about={"who": "x", "list": [1, None]})
    storage.write(stored, tmp_path / "x")
    assert storage.read(tmp_path / "x").about == {"who": "x", "list": [1, None]}
    assert storage.from_dict(storage.to_dict(stored)).about == {"who": "x", "list": [1, None]}


# -- files of before ----------------------------------------------------------------------------------------------

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("way", ["file", "dictionary"])
@pytest.mark.parametrize("name", ["rich", "reader"])
def test_files_of_format_1_answer_as_the_version_that_wrote_them(name, way):
    """Written by kdprompt 0.1.0, before its settings had groups; so were the ids and J that are expected."""
    expected = json.loads((DATA / "format_1_expected.json").read_text(encoding="utf-8"))
    path, embedder = DATA / f"format_1_{name}.kdprompt", CallableEmbedder(lambda texts: torch.ones(len(texts), 12))
    chooser = DistillationSelector.load(path, embedder)
    if way == "dictionary":  # written again, in the present format
        chooser = DistillationSelector.from_dict(json.loads(json.dumps(chooser.to_dict())), embedder)
    found = chooser.select_batch(expected["queries"], vectors=torch.tensor(expected["vectors"]))
    assert [list(selection.ids) for selection in found] == expected[name]["ids"]
    assert [selection.terms.total for selection in found] == pytest.approx(expected[name]["totals"], abs=1e-12)


def test_settings_of_format_1_are_all_read():
    settings = DistillationSelector.load(DATA / "format_1_rich.kdprompt", CallableEmbedder(lambda t: t)).settings
    assert (settings.k, settings.k_max, settings.budget, settings.seed, settings.delta) == ("auto", 9, 300, 3, 0.1)
    assert settings.quota == Quota(most={"billing": 2}, least=0)
    assert settings.order == ByObjective(MeasuredProfile((0.2, 0.3, 0.5)))
    assert settings.objective == ObjectiveSettings(
        kernel=0.5 * Gaussian(0.3) + Laplace(0.8) * RationalQuadratic(0.5, 2.0),
        output_share=0.25,
        neighbourhood=0.5,
        weights=ObjectiveWeights(1.0, 0.1, 0.7),
        tolerance=0.05,
    )
    assert settings.search == SearchSettings(shortlist=40, near_duplicate=0.9, exclude_query_text=False)
    assert settings.static == StaticSettings(shortlist=100, queries=20, rounds=3)
    assert settings.template == PromptTemplate(instruction="Route it.")


def test_what_a_reader_chose_is_read_from_format_1():
    calibration = DistillationSelector.load(
        DATA / "format_1_reader.kdprompt", CallableEmbedder(lambda t: t)
    ).calibration
    assert calibration.order is not None and "ways to make prompts" in calibration.source
    assert calibration.trials and calibration.parameters in [trial.parameters for trial in calibration.trials]


@pytest.mark.parametrize("way", ["read", "written again"])
def test_a_file_of_format_3_answers_as_the_version_that_wrote_it(way, tmp_path):
    """Examples were records of JSON; written, as what is expected, by the version of 30 November 2026."""
    expected = json.loads((DATA / "format_3_expected.json").read_text(encoding="utf-8"))
    chooser = DistillationSelector.load(DATA / "format_3.kdprompt", CallableEmbedder(embed_by_sum))
    if way == "written again":
        assert "records" in unpack_archive((DATA / "format_3.kdprompt").read_bytes())[1]
        chooser.save(tmp_path / "x")
        assert "records" not in unpack_archive((tmp_path / "x").read_bytes())[1]
        chooser = DistillationSelector.load(tmp_path / "x", CallableEmbedder(embed_by_sum))
    found = chooser.select_batch(expected["queries"], vectors=torch.tensor(expected["vectors"]))
    assert [list(selection.ids) for selection in found] == expected["ids"]
    assert [selection.terms.total for selection in found] == pytest.approx(expected["totals"], abs=1e-12)
    assert list(chooser.select_static().ids) == expected["static"]
    shown = [[d.id, d.input, d.output, d.task, dict(d.fields)] for d in chooser.pool]
    assert shown == expected["examples"]


def embed_by_sum(texts):
    table = torch.randn(40, 8, generator=torch.Generator().manual_seed(7))
    return table[[sum(text.encode()) % 40 for text in texts]]


# -- what is read late --------------------------------------------------------------------------------------------


def save_and_load(chooser, folder, **more):
    chooser.save(folder / "selector")
    return DistillationSelector.load(folder / "selector", Counted(), **more)


def test_loading_makes_neither_examples_nor_tensors_and_a_selection_those_of_its_shortlist(tmp_path, monkeypatch):
    chooser = selector(records(120), settings=Settings(k=4, search=SearchSettings(shortlist=9)))
    read = []
    monkeypatch.setattr(
        LateExamples, "_read_fields", lambda self, i, of=LateExamples._read_fields: read.append(i) or of(self, i)
    )
    other = save_and_load(chooser, tmp_path)
    assert read == [] and not other._pool.late_tensors.is_made
    found = other.select("a query")
    assert found.ids == chooser.select("a query").ids
    shown = {other.pool.members.list_ids()[i] for i in read}
    assert shown >= set(found.ids) and len(read) == len(shown) <= 9 and other._pool.late_tensors.is_made
    other.add_example({"input": "d 99", "output": "blue"})
    other.remove(other.pool.members.list_ids()[5])
    assert len(read) <= 11


@pytest.mark.parametrize("fields", [{"budget": 60}, {"quota": Quota(most=2)}], ids=str)
def test_what_must_fit_the_whole_pool_is_compared_with_it_at_once(fields, tmp_path):
    chooser = selector(settings=Settings(k=4, **fields))
    other = save_and_load(chooser, tmp_path)
    assert other._pool.late_tensors.is_made
    assert_same(chooser, other)


def test_other_settings_are_compared_with_the_pool_when_they_are_given(tmp_path):
    chooser = selector(records(6) + records(6), settings=Settings(k=2))
    for settings, said in (
        (Settings(k=7), "distinct examples in the pool .6., got 7"),
        (Settings(k=2, quota=Quota(least={"mauve": 1})), "mauve"),
    ):
        with pytest.raises(PoolError, match=said):
            save_and_load(chooser, tmp_path, settings=settings)


def test_many_threads_may_use_what_was_just_loaded(tmp_path):
    chooser = selector()
    expected = [selection.ids for selection in chooser.select_batch(QUERIES)]
    found, other = [], save_and_load(chooser, tmp_path)

    def work(which):
        if which == 0:
            assert list(other.pool) == list(chooser.pool)
        elif which == 1:
            other.save(tmp_path / "again")
        else:
            found.append([selection.ids for selection in other.select_batch(QUERIES)])

    run_together(work, 6)
    assert found == [expected] * 4
    assert_same(chooser, DistillationSelector.load(tmp_path / "again", Counted()))


def test_examples_do_not_change_with_the_file_that_they_came_from(tmp_path):
    """Vectors are in the file, as it says; texts are in memory."""
    chooser = selector()
    other = save_and_load(chooser, tmp_path)
    content = bytearray((tmp_path / "selector").read_bytes())
    tensors, _ = unpack_archive(bytes(content))
    at = content.index(tensors["inputs"].numpy().tobytes())
    with (tmp_path / "selector").open("r+b") as file:
        file.seek(at)
        file.write(b"#" * len(tensors["inputs"]))
    assert list(other.pool) == list(chooser.pool)


def test_copies_and_pickles_of_what_is_unread_are_whole(tmp_path):
    chooser = selector()
    other = save_and_load(chooser, tmp_path)
    (tmp_path / "selector").unlink()
    assert list(pickle.loads(pickle.dumps(other.pool))) == list(chooser.pool)
    assert_same(chooser, copy.copy(other))
