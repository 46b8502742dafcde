"""Logs and traces: what is said of each step, that it is numbers alone, and that nothing is said where nobody asks."""

import asyncio
import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kdprompt import CachedEmbedder, CallableEmbedder, DistillationSelector, EmbeddingError, QueryError
from kdprompt.errors import PoolError
from kdprompt.micro_batching import MicroBatcher
from kdprompt.pool.transient_errors import retry
from support import make_settings

SECRET = "hunter2"
EXAMPLES = [{"input": f"{SECRET} {i}", "output": f"{SECRET} out {i % 2}", "task": SECRET} for i in range(12)]


def embed(texts):
    if any("poison" in text for text in texts):
        raise ValueError(f"cannot read {texts}")
    return [[float(len(text)), float(ord(text[-1])), 1.0] for text in texts]


@pytest.fixture(scope="module")
def exporter():
    """Of the process's provider, which can be set once; a page of the documentation may have set it."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    kept = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(kept))
    return kept


@pytest.fixture
def spans(exporter):
    """The spans that end during a test."""
    exporter.clear()
    return exporter.get_finished_spans


def make():
    return DistillationSelector.from_examples(
        EXAMPLES, CallableEmbedder(embed), settings=make_settings(k=2, near_duplicate=2.0)
    )


def by_name(spans):
    return {span.name.removeprefix("kdprompt."): span for span in spans}


def test_each_step_is_a_span_with_its_numbers(spans, tmp_path):
    selector = make()
    selector.select(f"{SECRET} query")
    selector.select_static()
    selector.add_example({"input": f"{SECRET} new", "output": "out"})
    selector.save(tmp_path / "it")
    DistillationSelector.load(tmp_path / "it", CallableEmbedder(embed))
    made = by_name(spans())
    assert set(made) == {"embed", "calibrate", "select", "select_static", "order", "change", "save", "load"}
    assert dict(made["select"].attributes) == {"kdprompt.queries": 1, "kdprompt.examples": 12, "kdprompt.k": 2}
    assert made["change"].attributes["kdprompt.examples"] == 13
    assert made["save"].attributes["kdprompt.bytes"] == (tmp_path / "it").stat().st_size
    assert made["load"].attributes["kdprompt.examples"] == 13
    assert all(span.end_time > span.start_time for span in spans())


def test_spans_stand_under_the_step_that_takes_them(spans):
    selector = make()
    before = len(spans())
    selector.select("a query")
    select = by_name(spans()[before:])
    assert select["embed"].parent.span_id == select["order"].parent.span_id == select["select"].context.span_id
    assert select["select"].parent is None


def test_concurrent_calls_have_a_span_each_and_their_batch_stands_under_one(spans):
    selector = make()
    before = len(spans())

    async def ask():
        return await asyncio.gather(*(selector.aselect(f"query {i}") for i in range(8)))

    asyncio.run(ask())
    made = spans()[before:]
    calls = {span.context.span_id for span in made if span.name == "kdprompt.aselect"}
    batches = [span for span in made if span.name == "kdprompt.select"]
    assert len(calls) == 8 and [span.attributes["kdprompt.queries"] for span in batches] == [8]
    assert batches[0].parent.span_id in calls


def test_an_error_is_a_status_and_a_class_without_its_message(spans):
    with pytest.raises(EmbeddingError, match="poison"):
        make().select("poison")
    failed = [span for span in spans() if not span.status.is_ok and span.status.description is None]
    failed = [span for span in failed if span.status.status_code is trace.StatusCode.ERROR]
    assert {span.name for span in failed} == {"kdprompt.embed", "kdprompt.select"}
    assert {span.attributes["error.type"] for span in failed} == {"EmbeddingError by ValueError"}
    assert not any(span.events for span in failed) and "poison" not in "".join(span.to_json() for span in failed)


def test_no_text_of_an_example_or_a_query_is_in_any_record_or_span(spans, caplog, tmp_path):
    with caplog.at_level(logging.DEBUG, logger="kdprompt"):
        selector = DistillationSelector.from_examples(
            EXAMPLES, CachedEmbedder(CallableEmbedder(embed), tmp_path, name="it"), settings=make_settings(k=2)
        )
        selector.select(f"{SECRET} query", task=SECRET, outputs=[f"{SECRET} out 0"])
        selector.explain(f"{SECRET} query")
        selector.update(selector.pool[0].id, {"input": f"{SECRET} new", "output": "out"})
        selector.remove(selector.pool[1].id)
        for call in (lambda: selector.select(f"{SECRET} poison"), lambda: selector.remove(SECRET)):
            with pytest.raises((EmbeddingError, PoolError)):
                call()

        async def ask(*texts):
            return await asyncio.gather(*(selector.aselect(text) for text in texts), return_exceptions=True)

        found = asyncio.run(ask(f"{SECRET} a", f"{SECRET} poison", f"{SECRET} b"))
    assert isinstance(found[1], EmbeddingError)
    assert len(caplog.records) > 20 and all(record.name.startswith("kdprompt.") for record in caplog.records)
    assert {record.name for record in caplog.records} >= {
        "kdprompt.pool.embedding",
        "kdprompt.pool.embedding_cache",
        "kdprompt.selector",
        "kdprompt.editable_pool",
        "kdprompt.micro_batching",
        "kdprompt.calibration.calibration",
    }
    assert SECRET not in caplog.text + "".join(span.to_json() for span in spans())
    assert not any(record.exc_info for record in caplog.records)


def test_steps_are_told_at_debug_and_what_fails_at_warning(caplog):
    selector = make()
    with caplog.at_level(logging.DEBUG, logger="kdprompt"):
        selector.select("a query")
        with pytest.raises(EmbeddingError):
            selector.select_batch(["a", "poison", "b"])
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert any(level == "DEBUG" and text.startswith("select took ") and "queries=1" in text for level, text in said)
    assert any(level == "DEBUG" and text.startswith("select failed after ") for level, text in said)
    failed = "embed_queries of 3 texts failed (ValueError); the text at fault is looked for"
    assert ("WARNING", failed) in said


def test_a_call_that_is_tried_again_is_a_warning(caplog):
    answers = iter([ConnectionError("secret host"), "fine"])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING, logger="kdprompt"):
        assert retry(call) == "fine"
    assert caplog.messages == ["a call failed (ConnectionError), attempt 1 of 3; trying again"]


PROGRAM = """
import sys
from kdprompt import CallableEmbedder, DistillationSelector, Settings

examples = [{"input": f"text {i}", "output": i % 2} for i in range(8)]
embedder = CallableEmbedder(lambda texts: [[float(len(t)), float(ord(t[-1])), 1.0] for t in texts])
selector = DistillationSelector.from_examples(examples, embedder, settings=Settings(k=1))
assert len(selector.select("text 9")) == 1
assert not any(name.split(".")[0] == "opentelemetry" for name in sys.modules), "imported for nobody"
"""


def test_without_opentelemetry_nothing_is_imported_and_nothing_is_printed():
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_call_that_is_wrong_in_itself_is_refused_without_a_batch():
    """It went to the batch, which was bisected for it."""
    selector, batches = make(), []
    answer = selector._together.answer_batch
    selector._together = MicroBatcher(lambda asked: batches.append(len(asked)) or answer(asked))

    async def ask():
        calls = [selector.aselect("a", task="nobody's"), selector.aselect("b", outputs=["nothing"])]
        calls += [selector.aselect(f"query {i}") for i in range(6)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(ask())
    assert [type(each) for each in found[:2]] == [QueryError, QueryError]
    assert batches == [6] and all(len(each) == 2 for each in found[2:])
