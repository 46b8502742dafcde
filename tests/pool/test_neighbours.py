"""Neighbours from the nearest rows alone are those of the whole pool: with ties, own texts, tasks and exclusions."""

from dataclasses import replace

import pytest
import torch

from kdprompt.pool import neighbours
from kdprompt.pool.gathered_rows import GatheredRows
from kdprompt.pool.neighbours import find_duplicates, find_nearest, find_neighbours, take_nearest_in_turn, take_rows
from kdprompt.pool.pool import Pool
from kdprompt.pool.pool_tensors import build_pool_tensors
from kdprompt.pool.query_tensors import QueryTensors, find_allowed_rows
from kdprompt.theory import point_pairs

SIZE, ROWS, QUERIES = 5, 90, 12


def make(seed, device, dtype, *, lattice):
    """A pool whose texts repeat, and queries; on a lattice many rows are equally near."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS + QUERIES, 3, generator=generator)
    if lattice:
        x = torch.randint(-1, 2, x.shape, generator=generator) + torch.tensor([0.5, 0.0, 0.0])
    records = [{"input": f"text {i % 40}", "output": f"out {i}", "task": ("left", "right")[i % 2]} for i in range(ROWS)]
    x = torch.nn.functional.normalize(x.to(device, dtype), dim=-1)
    pool = build_pool_tensors(Pool.from_records(records), x[:ROWS], lambda texts: x[: len(texts)], "none")
    anyone = torch.full((QUERIES,), -1, device=device)
    return pool, QueryTensors(x[ROWS:], anyone, anyone)


def expect(pool, queries, exclude=None):
    allowed = find_allowed_rows(pool, queries)
    return find_nearest(pool.x, queries.q, allowed if exclude is None else allowed & ~exclude, SIZE)


@pytest.mark.parametrize("lattice", [False, True], ids=["continuous", "lattice"])
@pytest.mark.parametrize("spare", [2, 32, 200], ids=["few to spare", "some to spare", "the whole pool"])
@pytest.mark.parametrize("kind", ["anything", "own text", "task", "exclude"])
def test_neighbours_are_the_nearest_allowed_rows(kind, spare, lattice, device, dtype, monkeypatch):
    monkeypatch.setattr(neighbours, "SPARE", spare)
    monkeypatch.setattr(neighbours, "CHUNK", 5)
    monkeypatch.setattr(point_pairs, "LARGE", 0)  # of the last two queries rows stand first in the product
    pool, queries = make(1, device, dtype, lattice=lattice)
    exclude = None
    if kind == "own text":  # some of them, and the text of the very nearest row
        nearest = pool.text[(queries.q @ pool.x.T).argmax(-1)]
        queries = replace(queries, excluded_text=torch.where(torch.arange(QUERIES, device=device) % 3 > 0, nearest, -1))
    elif kind == "task":
        queries = replace(queries, task=torch.arange(QUERIES, device=device) % 3 - 1)
    elif kind == "exclude":
        exclude = torch.arange(ROWS, device=device) % 4 > 0
    found = find_neighbours(pool, queries, SIZE, exclude=exclude)
    index, valid = expect(pool, queries, exclude)
    assert found.valid.tolist() == valid.tolist() and bool(valid.all())
    assert found.index.tolist() == index.tolist()
    torch.testing.assert_close(found.similarity, (queries.q @ pool.x.T).gather(-1, index))


def test_where_too_few_rows_may_serve_a_query_the_rest_is_not_valid(device, dtype):
    pool, queries = make(2, device, dtype, lattice=False)
    exclude = torch.arange(ROWS, device=device) >= 3
    found = find_neighbours(pool, queries, SIZE, exclude=exclude)
    assert found.valid.sum(-1).tolist() == [3] * QUERIES
    assert [row[ok].tolist() for row, ok in zip(found.index, found.valid, strict=True)] == [[0, 1, 2]] * QUERIES
    assert found.similarity[~found.valid].tolist() == [0.0] * QUERIES * 2
    assert found.part(slice(2, 4)).similarity.tolist() == found.similarity[2:4].tolist()
    assert found.to(device, torch.float64).similarity is None


def test_a_pool_that_has_shrunk_below_the_shortlist_gives_as_many_columns_to_every_query(device, dtype):
    """Gaps are rows, so the lookup that ties set off must not take more of them than stand there."""
    pool, queries = make(3, device, dtype, lattice=True)
    alive = torch.arange(ROWS, device=device) % 3 == 0
    size = 40  # of 30 that live
    pool = replace(pool, alive=alive, rows=replace(pool.rows, ordered=pool.rows.ordered[::3]))
    assert len(pool) == 30 < size + neighbours.SPARE < len(pool.x)
    found = find_neighbours(pool, queries, size)
    assert found.index.tolist() == [list(range(0, ROWS, 3))] * QUERIES and bool(found.valid.all())


def test_gathered_rows_know_their_pairs(device, dtype):
    pool, queries = make(4, device, dtype, lattice=False)
    found = find_neighbours(pool, queries, SIZE)
    rows = GatheredRows.take(pool, found.index, found)
    inner = rows.x @ rows.x.transpose(-1, -2)
    torch.testing.assert_close(rows.among.inner, inner)
    torch.testing.assert_close(rows.with_query.inner[..., 0], (rows.x @ queries.q[..., None])[..., 0])
    torch.testing.assert_close(rows.with_query.x_norms, rows.x.square().sum(-1))
    assert GatheredRows.take(pool, found.index).with_query is None
    assert bool((find_duplicates(pool, found.index, 0.9, inner) == find_duplicates(pool, found.index, 0.9)).all())


def test_no_rows_in_turn_are_none(device, dtype):
    similarity = torch.randn(3, 7, device=device).to(dtype)
    assert take_nearest_in_turn(similarity, 0) == []
    assert take_nearest_in_turn(similarity, 3)[0] == int(similarity[0].argmax())


def test_rows_are_taken_as_indexing_takes_them(device, dtype):
    values = torch.arange(12.0, device=device).to(dtype).view(4, 3)
    index = torch.tensor([[3, 0], [1, 1]], device=device)
    assert (take_rows(values, index) == values[index]).all()
