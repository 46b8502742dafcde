"""The nearest inputs: exact for small pools, close to it for large ones; the recall that is said is the true one."""

import pytest
import torch

from kdprompt.diagnose.nearest_inputs import _pack, _take_largest, _unpack, find_nearest_inputs


def cloud(n, d=16, seed=0):
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def brute_force(x, k):
    similarity = x.double() @ x.double().T
    similarity.fill_diagonal_(-2)
    return similarity.topk(k, dim=-1)


@pytest.mark.parametrize("n", [2, 3, 40, 1500])
def test_all_pairs_are_compared_in_a_small_pool(n):
    x = cloud(n)
    found = find_nearest_inputs(x, 5)
    expected = brute_force(x, min(5, n - 1))
    assert torch.equal(found.index, expected.indices) and found.recall == 1
    assert torch.allclose(found.similarity.double(), expected.values, atol=1e-6)


@pytest.mark.parametrize("n", [1000, 1537])
def test_orders_come_near_to_it_and_say_how_near(n):
    x = cloud(n, d=6)
    found = find_nearest_inputs(x, 4, exact_up_to=100)
    expected = brute_force(x, 4)
    hits = (found.index[:, :, None] == expected.indices[:, None, :]).any(-1)
    assert 0.9 < float(hits.float().mean()) < 1
    assert found.recall == pytest.approx(float(hits.float().mean()), abs=0.04)
    assert torch.allclose(found.similarity, (x[found.index] * x[:, None]).sum(-1), atol=1e-5)
    assert not (found.index == torch.arange(n)[:, None]).any(), "no input is its own neighbour"
    assert all(len(set(row)) == 4 for row in found.index.tolist()), "no neighbour stands twice"
    assert torch.equal(find_nearest_inputs(x, 4, exact_up_to=100).index, found.index)


def test_near_duplicates_are_hardly_ever_missed():
    x = cloud(3000, d=64)
    x[1500:] = torch.nn.functional.normalize(x[:1500] + 0.03 * cloud(1500, d=64, seed=1), dim=-1)
    found = find_nearest_inputs(x, 3, exact_up_to=100)
    assert float((found.index[:1500, 0] == torch.arange(1500, 3000)).float().mean()) > 0.995


def test_clusters_are_not_parted():
    """Where many clusters are little more than noise, more neighbours are found than by projection trees (0.44)."""
    generator = torch.Generator().manual_seed(0)
    x = cloud(150, d=384)[torch.randint(150, (10_000,), generator=generator)]
    x = torch.nn.functional.normalize(x + 0.05 * torch.randn(x.shape, generator=generator), dim=-1)
    assert find_nearest_inputs(x, 32).recall > 0.6


def test_one_input_has_no_neighbour():
    found = find_nearest_inputs(cloud(1), 3)
    assert found.index.tolist() == [[-1]] and found.similarity.tolist() == [[-2]]


def test_packed_cosines_come_back_as_they_were_with_their_indices():
    """Every order of float32 is kept, below zero and of neighbouring numbers too."""
    similarity = 2 * torch.rand(50, 40, generator=torch.Generator().manual_seed(0)) - 1
    similarity[:, 1] = torch.nextafter(similarity[:, 0], torch.tensor(2.0))
    similarity[:, 2], similarity[:, 3] = 0.0, -3.9  # as of a pair that does not count
    index = torch.stack([torch.randperm(1 << 20, generator=torch.Generator().manual_seed(i))[:40] for i in range(50)])
    index[:, 4] = (1 << 28) - 1
    found, places = _unpack(_pack(similarity, index))
    expected = similarity.sort(descending=True)
    assert torch.equal(found[:, :-1], expected.values[:, :-1]) and (found[:, -1] == -2).all()
    assert torch.equal(places[:, :-1], index.gather(1, expected.indices)[:, :-1]) and (places[:, -1] == -1).all()
    few = _unpack(_take_largest(_pack(similarity, index), 7))
    assert torch.equal(few[0], found[:, :7]) and torch.equal(few[1], places[:, :7])
