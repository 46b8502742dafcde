"""Mixtures of conflicting tasks: found where they are, not found where they are not, on made and on real pools."""

import math

import pytest
import torch
from typer.testing import CliRunner

from kdprompt.cli.app import app
from kdprompt.diagnose import find_task_mixture, measure_coverage
from kdprompt.pool.pool import Pool


def blobs(outputs_of, *, n: int = 1200, spread: float = 0.3, seed: int = 0):
    """A pool around four centres; ``outputs_of`` says from the centre and a coin what an example's output is."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(4, (n,), generator=generator)
    x = torch.nn.functional.one_hot(centre, 4).float() + spread * torch.randn(n, 4, generator=generator)
    coins = torch.randint(2, (n,), generator=generator).tolist()
    rows = [{"input": f"text {i}", "output": outputs_of(int(c), coins[i])} for i, c in enumerate(centre)]
    return Pool.from_records(rows), torch.nn.functional.normalize(x, dim=-1)


def test_two_tasks_on_the_same_inputs_are_found():
    def two_tasks(c, coin):
        return ("low", "high")[c >= 2] if coin else ("odd", "even")[c % 2]

    found = find_task_mixture(*blobs(two_tasks))
    assert {frozenset(group) for group in found.groups} == {frozenset({"low", "high"}), frozenset({"odd", "even"})}
    assert found.mixed and found.confusion > 0.9 and found.within < 0.3
    assert found.accuracy < 0.6 < 0.9 < found.accuracy_within
    assert found.cross == pytest.approx(0.5, abs=0.07) and found.conflict < 0.15
    assert "outputs=" in str(found) and "low" in str(found)


@pytest.mark.parametrize("seed", range(3))
def test_one_task_is_no_mixture(seed):
    found = find_task_mixture(*blobs(lambda c, coin: "abcd"[c], seed=seed))
    assert not found.mixed and found.groups == (("a", "b", "c", "d"),) and found.cross == 0
    assert "Nothing speaks for a mixture" in str(found)


def test_a_small_pool_is_not_judged_without_tags():
    def two_tasks(c, coin):
        return ("low", "high")[c >= 2] if coin else ("odd", "even")[c % 2]

    assert not find_task_mixture(*blobs(two_tasks, n=400)).mixed


def test_tags_are_believed():
    pool, x = blobs(lambda c, coin: ("low", "high")[c >= 2] if coin else ("odd", "even")[c % 2])
    tagged = Pool(d.model_copy(update={"task": "size" if d.output in ("low", "high") else "parity"}) for d in pool)
    found = find_task_mixture(tagged, x)
    assert found.tagged and found.mixed and str(found).startswith("Its tags name")
    apart = Pool(d.model_copy(update={"task": "left" if x[i, 0] > 0.7 else "right"}) for i, d in enumerate(pool))
    assert not find_task_mixture(apart, x).mixed and "The inputs tell its tasks apart" in str(
        find_task_mixture(apart, x)
    )


def test_the_shares_are_those_of_a_plain_count():
    """The k nearest neighbours with equal similarity have equal attention: the shares are counts."""
    x = torch.nn.functional.normalize(torch.ones(9, 3), dim=-1)
    rows = [{"input": f"{i}", "output": "aabbbcccc"[i], "task": "one" if i < 5 else "two"} for i in range(9)]
    found = find_task_mixture(Pool.from_records(rows), x, k=8)
    cross = (5 * 4 + 4 * 5) / (9 * 8)
    same = (2 * 1 + 3 * 2 + 4 * 3) / (9 * 8)
    assert found.cross == pytest.approx(cross) and found.conflict == pytest.approx(1 - same - cross)
    assert math.isclose(found.confusion, cross / ((5 * 4 / 9 + 4 * 5 / 9) / 9), rel_tol=1e-5)


@pytest.mark.parametrize(
    "rows", [[], [{"input": "a", "output": "x"}] * 1, [{"input": f"{i}", "output": "x"} for i in range(5)]]
)
def test_too_little_to_look_at_is_said(rows):
    with pytest.raises(ValueError, match="at least 3 examples with 2 outputs, got"):
        find_task_mixture(Pool.from_records(rows), torch.ones(len(rows), 3))


@pytest.mark.data
@pytest.mark.slow
def test_sst2_and_subj_conflict_and_trec_does_not(data, embedder):
    def pool(*names):
        return Pool.from_records(row for name in names for row in data(name, "pool")[: 1200 // len(names)])

    mixed = pool("sst2", "subj")
    untagged = Pool(d.model_copy(update={"task": None}) for d in mixed)
    x = torch.as_tensor(embedder.embed_documents([d.input for d in mixed]))
    found = find_task_mixture(untagged, x)
    assert found.mixed and not found.tagged
    assert {frozenset(g) for g in found.groups} == {
        frozenset({"positive", "negative"}),
        frozenset({"subjective", "objective"}),
    }
    assert found.accuracy_within > found.accuracy + 0.1 and find_task_mixture(mixed, x).tagged
    trec = pool("trec")
    assert not find_task_mixture(trec, torch.as_tensor(embedder.embed_documents([d.input for d in trec]))).mixed


# -- coverage -----------------------------------------------------------------------------------------------------


def cloud(n: int, centre: list[float], seed: int) -> torch.Tensor:
    noise = torch.randn(n, len(centre), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(torch.tensor(centre) + 0.3 * noise, dim=-1)


def test_a_pool_that_covers_the_traffic_and_one_that_does_not():
    queries = torch.cat([cloud(60, [1.0, 0, 0], 1), cloud(20, [0, 1.0, 0], 2)])
    covered = measure_coverage(torch.cat([cloud(150, [1.0, 0, 0], 3), cloud(50, [0, 1.0, 0], 4)]), queries)
    assert covered.covered and "may come from one distribution" in str(covered)
    found = measure_coverage(cloud(200, [1.0, 0, 0], 3), queries)
    assert not found.covered and found.test.p_value < 0.01 and found.bias > covered.bias
    assert sum(i >= 60 for i in found.worst(20)) >= 18, "the worst covered are those of the missing kind"


def test_the_witness_leaves_the_query_itself_out():
    x, q = cloud(7, [1.0, 0, 0], 0), cloud(5, [0, 1.0, 0], 1)
    found = measure_coverage(x, q, permutations=20)
    for i in range(5):

        def kappa(a, b):
            return math.exp((float(a @ b) - 1) / found.temperature)

        near = sum(kappa(q[i], a) for a in x) / 7
        other = sum(kappa(q[i], b) for j, b in enumerate(q) if j != i) / 4
        assert float(found.witness[i]) == pytest.approx(near - other, rel=1e-4, abs=1e-6)
        assert float(found.similarity[i]) == pytest.approx(max(float(q[i] @ a) for a in x), rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 queries, got 1"):
        measure_coverage(x, q[:1])


def test_doctor_on_the_command_line(embedder):
    from kdprompt import resources

    pool = str(resources.__path__[0]) + "/support_desk.jsonl"
    command = ["doctor", "--pool", pool, "--queries", pool.replace("desk", "desk_queries")]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "202 examples" in words and "falls on outputs of another task" in words and "30 queries" in words
