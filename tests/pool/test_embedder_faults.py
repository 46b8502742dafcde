"""Embedders that fail: the text is named, calls are few, and errors of a connection keep their class."""

import pytest

from kdprompt import DistillationSelector, EmbeddingError, Settings
from kdprompt.pool.embedder_faults import name_text
from kdprompt.pool.embedding import embed_documents, embed_queries
from kdprompt.pool.transient_errors import back_off, is_transient, retry

TEXTS = [f"text {i}" for i in range(64)]


class Failing:
    def __init__(self, error=RuntimeError, bad="no text", times=10**9):
        self.error, self.bad, self.times, self.calls = error, bad, times, 0

    def embed_documents(self, texts):
        self.calls += 1
        if any(self.bad in text for text in texts) and self.times > 0:
            self.times -= 1
            raise self.error("fault")
        return [[float(len(text)), 1.0] for text in texts]

    embed_queries = embed_documents

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class StatusError(Exception):
    """As SDKs have them."""

    def __init__(self, message, *, status_code):
        super().__init__(message)
        self.status_code = status_code


@pytest.mark.parametrize("embed", [embed_documents, embed_queries])
@pytest.mark.parametrize("bad", ["text 0", "text 29", "text 63"])
def test_the_text_at_fault_is_named_in_few_calls(embed, bad):
    embedder = Failing(bad=bad)
    texts = TEXTS if bad != "text 0" else [bad, *(f"other {text}" for text in range(63))]
    with pytest.raises(EmbeddingError, match=rf"failed on the text '{bad}': RuntimeError: fault") as caught:
        embed(embedder, texts)
    assert embedder.calls <= 8 and isinstance(caught.value.__cause__, RuntimeError)


def test_a_selector_names_it_in_pool_and_queries():
    examples = [{"input": text, "output": i % 2} for i, text in enumerate(TEXTS)]
    with pytest.raises(EmbeddingError, match="'text 40'"):
        DistillationSelector.from_examples(examples, Failing(bad="text 40"), settings=Settings(k=2))
    selector = DistillationSelector.from_examples(examples, Failing(), settings=Settings(k=2))
    selector.embedder.bad = "poison"
    selector.embedder.calls = 0
    with pytest.raises(EmbeddingError, match="'poison'"):
        selector.select_batch([*TEXTS[:40], "poison", *TEXTS[40:63]])
    assert selector.embedder.calls <= 8


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError])
def test_a_service_that_is_down_is_called_three_times(error):
    embedder = Failing(error, bad="text")
    with pytest.raises(ConnectionError if error is ConnectionError else EmbeddingError, match="all of 64 texts"):
        embed_documents(embedder, TEXTS)
    assert embedder.calls == 3


@pytest.mark.parametrize("n", [1, 64])
def test_a_service_that_is_back_soon_costs_nobody_anything(n):
    embedder = Failing(TimeoutError, bad="text", times=1)
    assert len(embed_documents(embedder, TEXTS[:n])) == n
    assert embedder.calls <= 8


@pytest.mark.parametrize("error", [ImportError, EmbeddingError])
def test_errors_that_speak_for_themselves_stay(error):
    embedder = Failing(error, bad="text 5")
    with pytest.raises(error, match=r"^fault$"):
        embed_documents(embedder, TEXTS)
    assert embedder.calls == 1


def test_an_error_whose_class_wants_more_gets_a_note():
    original = StatusError("busy", status_code=503)
    named = name_text(original, ["a text"])
    assert named is original and "failed on the text 'a text'" in named.__notes__[0]


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StatusError("", status_code=429), True),
        (StatusError("", status_code=529), True),
        (StatusError("", status_code=400), False),
        (StatusError("", status_code=401), False),
        (type("RateLimitError", (Exception,), {})(), True),
        (type("Timeout", (OSError,), {})(), True),
        (ValueError(), False),
        (OSError("disk full"), False),
    ],
    ids=repr,
)
def test_errors_that_may_pass_are_known(error, passes):
    assert is_transient(error) is passes
    assert (back_off(error, 1) > 0) is passes
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retry(call)
    assert len(calls) == (3 if passes else 1)


def test_pauses_grow_up_to_a_bound():
    pauses = [back_off(ConnectionError(), n) for n in range(1, 12)]
    assert 0.2 <= pauses[0] <= 0.4 and 0.8 <= pauses[2] <= 1.0 and max(pauses) <= 5.2
