"""Texts as bytes one behind the other, against a list of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdprompt.pool.text_column import TextColumn

SIGNS = st.characters(exclude_categories=["Cs"])
TEXTS = st.lists(st.text(SIGNS | st.sampled_from(" \t\n\x1c\x85\u00a0\u2003\u3000aé漢😀\0"), max_size=6), max_size=9)
SAME_WIDTH = st.lists(st.text("abé\x7f漢", min_size=2, max_size=3), max_size=9).map(
    lambda texts: [text for text in texts if len(text.encode()) == 3]
)


@given(TEXTS)
def test_a_column_is_the_list_that_it_was_made_of(texts):
    column = TextColumn.of(texts)
    assert len(column) == len(texts)
    assert list(column) == column.to_list() == column[:] == texts
    assert [column.take_bytes(i) for i in range(len(texts))] == [text.encode() for text in texts]
    assert column.find_unreadable() is None
    assert list(TextColumn(column.content, column.ends)) == texts
    if texts:
        assert column[-1] == texts[-1]
    with pytest.raises(IndexError):
        column[len(texts)]


@given(TEXTS)
def test_the_first_blank_text_is_found(texts):
    blank = [i for i, text in enumerate(texts) if not text.strip()]
    assert TextColumn.of(texts).find_blank() == (blank[0] if blank else None)


@given(TEXTS | SAME_WIDTH, st.randoms())
def test_an_order_is_compared_as_python_compares_texts(texts, draw):
    order = sorted(range(len(texts)), key=texts.__getitem__)
    column = TextColumn.of(texts)
    is_strict = len(set(texts)) == len(texts)
    assert column.ascends(np.array(order, dtype=np.int64)) == is_strict
    draw.shuffle(order)
    shown = [texts[i] for i in order]
    assert column.ascends(np.array(order, dtype=np.int64)) == (is_strict and shown == sorted(texts))


def test_texts_that_differ_by_a_zero_at_their_end_are_others():
    column = TextColumn.of(["a\0", "ab"])
    assert column.ascends(np.array([0, 1]))
    assert not TextColumn.of(["a\0", "a\0"]).ascends(np.array([0, 1]))


@given(TEXTS, st.binary(min_size=1, max_size=3), st.data())
def test_bytes_that_are_no_text_are_found_and_no_cut_through_a_sign_passes(texts, noise, data):
    content = "".join(texts).encode()
    at = data.draw(st.integers(0, len(content)))
    content = content[:at] + noise + content[at:]
    ends = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5)))
    column = TextColumn(content, np.array([*ends, len(content)], dtype=np.int64))
    begins = [0, *ends]
    unreadable = []
    for i, (begin, end) in enumerate(zip(begins, [*ends, len(content)], strict=True)):
        try:
            content[begin:end].decode()
        except UnicodeDecodeError:
            unreadable.append(i)
    assert column.find_unreadable() == (unreadable[0] if unreadable else None)


@pytest.mark.parametrize("ends", [[1, 2], [4], [2, 1, 3], [-1, 3], [2**62, 3], [], [3, 3, 2]])
def test_ends_that_do_not_ascend_to_the_end_are_refused(ends):
    with pytest.raises(ValueError, match="must ascend to 3"):
        TextColumn(b"abc", np.array(ends, dtype=np.int64))
