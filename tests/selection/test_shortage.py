"""Prompts with fewer demonstrations than asked for: as few as need be, and the one reason in a note."""

import pytest
import torch

from kdprompt import DistillationSelector, ObjectiveSettings, ObjectiveWeights, Quota, SearchSettings, Settings

VECTORS = torch.randn(21, 16, generator=torch.Generator().manual_seed(0))
POOL = [{"input": f"t {i}", "output": "ab"[i % 2]} for i in range(20)]
SHORT = SearchSettings(shortlist=8, lexical_share=0.0)


def by_number(texts):
    return [VECTORS[int(text.split()[1])] for text in texts]


def mostly_equal(texts):
    """All are equal, but for two that say so."""
    return [{"one": [0.3, 1.0, 0.0], "two": [0.3, 0.0, 1.0]}.get(text.split()[-1], [1.0, 0.0, 0.0]) for text in texts]


EQUAL = [{"input": f"equal {i}", "output": "ab"[i % 2]} for i in range(28)]
OTHERS = [{"input": "other one", "output": "a"}, {"input": "other two", "output": "b"}]


def choose(query="t 20", pool=POOL, embed=by_number, select=None, **settings):
    settings = Settings(**{"search": SHORT, "calibrate": False, **settings})
    selector = DistillationSelector.from_examples(pool, embed, settings=settings)
    return selector.select(query, **(select or {}))


@pytest.mark.parametrize("k", [8, 9, 20])
def test_k_above_the_shortlist_is_k(k):
    found = choose(k=k)
    assert len(found) == k and not any("demonstrations:" in note for note in found.notes)


def test_a_shortlist_of_repeats_is_left_behind():
    found = choose("equal query", EQUAL + OTHERS, mostly_equal, k=3)
    assert len(found) == 3 and {"other one", "other two"} < {d.input for d in found.demonstrations}
    assert not any("demonstrations:" in note for note in found.notes)


def test_others_in_a_batch_stay_as_they_are():
    settings = Settings(k=3, search=SHORT, calibrate=False)
    selector = DistillationSelector.from_examples(EQUAL + OTHERS, mostly_equal, settings=settings)
    queries = ["equal query", "new one", "equal other"]
    assert [found.ids for found in selector.select_batch(queries)] == [selector.select(query).ids for query in queries]


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (
            dict(query="equal query", pool=EQUAL + OTHERS, embed=mostly_equal, k=4),
            "3 of 4 demonstrations: each of the other examples that may be shown repeats one",
        ),
        (dict(k=16, budget=40), "others at hand fits the budget of 40 tokens"),
        (dict(k=16, quota=Quota(most=3)), "6 of 16 demonstrations: none of the 10 others at hand fits the quotas"),
        (dict(k=16, select={"outputs": ["a"]}), "10 of 16 demonstrations: no more than 10 examples may be shown"),
        (dict(query="t 5", k=16, select={"outputs": ["b"]}), "no more than 9 examples may be shown, by the task"),
    ],
    ids=["repeats", "budget", "quota", "outputs", "own text"],
)
def test_the_note_names_the_one_reason(more, note):
    (found,) = [each for each in choose(**more).notes if "demonstrations:" in each]
    assert note in found
    reasons = ["repeats one", "budget", "quotas", "may be shown, by the task"]
    assert sum(reason in found for reason in reasons) == 1


def test_a_shortlist_that_cannot_grow_further_is_named(monkeypatch):
    found = choose("equal query", EQUAL + OTHERS, mostly_equal, k=3)
    assert len(found) == 3
    monkeypatch.setattr("kdprompt.selection.per_query.LONGEST", 16)  # 1,024 would take long
    found = choose("equal query", EQUAL + OTHERS, mostly_equal, k=3)
    (note,) = [each for each in found.notes if "demonstrations:" in each]
    assert len(found) == 1 and "each of the 8 nearest examples, the shortlist" in note


# -- a floor of similarity ----------------------------------------------------------------------------------------


def similarities(query):
    """Cosine of the query to each of the pool's examples, by id."""
    x = torch.nn.functional.normalize(VECTORS.double(), dim=1)
    return {f"t {i}": float(x[i] @ x[int(query.split()[1])]) for i in range(20)}


def with_floor(least, **more):
    return choose(search=SearchSettings(shortlist=8, lexical_share=0.0, min_similarity=least), **more)


@pytest.mark.parametrize("more", [{}, {"quota": Quota(most=9, least={"a": 1})}], ids=["free", "a quota"])
@pytest.mark.parametrize("least", [-1.0, 0.0, 0.2, 0.4, 0.5, 0.9])
def test_nothing_below_the_floor_is_shown_and_the_note_says_so(least, more):
    found, cosine = with_floor(least, k=4, **more), similarities("t 20")
    fits = [text for text, value in cosine.items() if value >= least]
    assert {d.input for d in found.demonstrations} <= set(fits) and len(found) == min(4, len(fits))
    notes = [note for note in found.notes if "fits" in note]
    below = f"{max(value for value in cosine.values() if value < least):.2f}" if len(fits) < 20 else None
    if len(fits) >= 4:
        assert notes == []
    elif fits:
        assert notes == [
            f"{len(fits)} of 4 demonstrations: no other example fits; the next has a similarity of {below} to the "
            f"query, below SearchSettings(min_similarity={least})"
        ]
    else:
        assert notes == [
            f"no example fits: the most similar one has a similarity of {below} to the query, below "
            f"SearchSettings(min_similarity={least}); the prompt is empty"
        ]


def test_with_k_auto_a_prompt_that_the_floor_empties_has_the_note_and_one_that_j_empties_has_none():
    search = SearchSettings(shortlist=8, lexical_share=0.0, min_similarity=0.9)
    settings = Settings(k="auto", search=search, calibrate=False)
    selector = DistillationSelector.from_examples(POOL, by_number, settings=settings)
    floored, free = selector.select_batch(["t 20", "t 3 again"])
    assert len(floored) == 0 and any(note.startswith("no example fits") for note in floored.notes)
    assert len(free) <= 1 and not any("fits" in note for note in free.notes)
    assert [d.input for d in selector.select("t 3 again", k=1).demonstrations] == ["t 3"]


def test_nearest_neighbours_keep_the_floor_and_a_prefix_stands_below_it():
    search = SearchSettings(shortlist=8, lexical_share=0.0, min_similarity=0.4)
    selector = DistillationSelector.from_examples(
        POOL, by_number, settings=Settings(k=4, search=search, calibrate=False)
    )
    cosine = similarities("t 20")
    far = min(cosine, key=cosine.__getitem__)
    prefix = [d.id for d in selector.pool if d.input == far]
    found = selector.select("t 20", prefix=prefix)
    assert found.ids[0] == prefix[0] and all(cosine[d.input] >= 0.4 for d in found.demonstrations[1:])
    nearest = selector.explain("t 20").nearest_ids
    assert nearest and all(cosine[selector.pool[selector.pool.index(ident)].input] >= 0.4 for ident in nearest)


@pytest.mark.parametrize("least", [-1.1, 1.5, float("nan"), "half"])
def test_a_floor_that_is_no_cosine_is_refused(least):
    with pytest.raises(ValueError, match="min_similarity"):
        SearchSettings(min_similarity=least)


def test_k_auto_returns_nothing_with_a_word_alone():
    dear = ObjectiveSettings(weights=ObjectiveWeights(1.0, 9.0, 0.5))
    selector = DistillationSelector.from_examples(POOL, by_number, settings=Settings(k="auto", objective=dear))
    for found in (selector.select("t 20"), selector.select_static(["t 20"])):
        assert len(found) == 0 and any(note.startswith("no demonstrations: by J") for note in found.notes)
    assert not any("no demonstrations" in note for note in selector.select("t 20", k=2).notes)
