"""Every reported number equals a float64 brute force written here from the texts, vectors and outputs."""

import math
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from kdprompt import (
    CAPABLE_READER,
    ByObjective,
    CallableEmbedder,
    DistillationSelector,
    EvidenceLast,
    NearestFirst,
    NearestLast,
    ObjectiveWeights,
    Query,
    ReaderProfile,
)
from kdprompt.search.position_profiles import PrimacyRecency, Recency
from kdprompt.theory.kernels import Gaussian, Laplace, Linear, Polynomial
from support import fit_ridge_plainly, make_settings

WIDTH = 6
PENALTIES = ObjectiveWeights(bias=1.0, complexity=0.05, interference=0.7)
READING = ObjectiveWeights(bias=1.0, complexity=0.05, interference=0.1, reader=0.8)
LEANING = ReaderProfile(name="leans", follow=5.0, knowledge_weight=0.5, recency=0.9, label_bias={"b": 0.7})


# -- the brute force: loops over NumPy rows, nothing of the package but the records that go in --------------------


@pytest.fixture(params=[torch.float64, torch.float32, torch.float16], ids=["float64", "float32", "held in float16"])
def dtype(request, device):
    """What vectors come in; those held in half precision come in single precision."""
    if device.type == "mps" and request.param is torch.float64:
        pytest.skip("MPS has no float64")
    return request.param


def came_in(dtype):
    return torch.float32 if dtype is torch.float16 else dtype


def unit(x, dtype):
    """Rows of norm 1, in the dtype that the vectors came in, then in float64."""
    x = np.asarray(x, dtype)
    return (x / np.sqrt((x * x).sum(-1, keepdims=True))).astype(np.float64)


def squares(a, b):
    """‖a_i − b_j‖² from the differences themselves."""
    return ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)


def gaussian(temperature):
    return lambda a, b: np.exp(-squares(a, b) / (2 * temperature))


def laplace_polynomial(a, b):
    return 2 * np.exp(-np.sqrt(squares(a, b)) / 0.8) * (a @ b.T + 0.5) ** 2


def linear(a, b):
    return a @ b.T


@dataclass
class Rows:
    """The distinct demonstrations in the order of ids."""

    ids: list
    texts: list
    outputs: list
    tasks: list
    x: np.ndarray
    v: np.ndarray
    names: list
    named_outputs: list
    task_names: list
    mode: str


def rows_of(records, vectors, output_vector, mode, dtype, *, half=False):
    kept, seen = [], set()
    for i in sorted(range(len(records)), key=lambda i: records[i]["id"]):
        key = (records[i]["input"], records[i].get("output"), records[i].get("task"))
        if key not in seen:
            seen.add(key)
            kept.append(i)
    outputs = [records[i].get("output") for i in kept]
    tasks = [records[i].get("task") for i in kept]
    task_names = sorted({t for t in tasks if t is not None})
    pairs = sorted({(t or "", o) for t, o in zip(tasks, outputs, strict=True) if o is not None})
    if mode == "labels":
        v = [[float(o is not None and (t or "", o) == p) for p in pairs] for t, o in zip(tasks, outputs, strict=True)]
    elif mode == "text":
        v = []
        for t, o in zip(tasks, outputs, strict=True):
            part = unit(output_vector(o), dtype) if o else np.zeros(WIDTH if any(outputs) else 1)
            if len(task_names) > 1:
                part = np.concatenate([part, [float(t == name) for name in task_names]]) / math.sqrt(2)
            v.append(part)
    else:
        v = [[1.0]] * len(kept)
    several = len(task_names) > 1
    names = [f"{t}: {o}" if several and t else o for t, o in pairs]
    x = unit([vectors[i] for i in kept], dtype)
    x = x.astype(np.float32).astype(np.float16).astype(np.float64) if half else x
    texts = [records[i]["input"] for i in kept]
    ids, named_outputs = [records[i]["id"] for i in kept], [o for _, o in pairs]
    return Rows(ids, texts, outputs, tasks, x, np.array(v), names, named_outputs, task_names, mode)


def plain(text):
    return " ".join(text.lower().split())


@dataclass
class Point:
    """A query with its neighbours, its estimated output, and how far the pool supports that."""

    x: np.ndarray
    near: list
    mass: np.ndarray
    value: np.ndarray
    support: float
    prior: np.ndarray
    task: str | None


def regress(weights, values, prior, shrinkage):
    total = sum(weights) + shrinkage
    estimate = sum((w * v for w, v in zip(weights, values, strict=True)), shrinkage * prior)
    return estimate / total, sum(weights) / total


def join_ridge(rows, q, query, part, value, prior):
    """The estimate with a ridge regression on all rows with an output but those with the query's own text."""
    scores = ridge_of(rows, q, query, part.penalty)
    if rows.mode == "text":
        joined = part.exponent * value + part.weight * scores
        if query.task is not None and len(rows.task_names) > 1:  # what the query states stays
            joined[-len(rows.task_names) :] = value[-len(rows.task_names) :]
        return joined
    allowed = [query.outputs is None or output in query.outputs for output in rows.named_outputs]
    mass = [
        math.exp(part.exponent * math.log(share) + part.weight * score) if p > 0 and inside else 0.0
        for share, score, p, inside in zip(value, scores, prior, allowed, strict=True)
    ]
    return np.array(mass) / sum(mass)


def ridge_of(rows, q, query, penalty):
    inside = [
        i for i in range(len(rows.ids)) if rows.outputs[i] is not None and plain(rows.texts[i]) != plain(query.text)
    ]
    return fit_ridge_plainly(rows.x[inside], rows.v[inside], penalty, q)


def point_of(rows, q, query, regression, size):
    kernel, shrinkage, part = regression
    allowed = [
        i
        for i in range(len(rows.ids))
        if (query.task is None or rows.tasks[i] == query.task)
        and plain(rows.texts[i]) != plain(query.text)
        and (query.outputs is None or rows.outputs[i] in query.outputs)
    ]
    near = sorted(sorted(allowed, key=lambda i: -float(rows.x[i] @ q))[:size])
    inside = [i for i in range(len(rows.ids)) if query.task is None or rows.tasks[i] == query.task]
    prior = rows.v[inside].mean(0)
    mass = kernel(q[None], rows.x[near])[0].clip(0)
    value, support = regress(mass, rows.v[near], prior, shrinkage)
    if part is not None:
        value = join_ridge(rows, q, query, part, value, prior)
    task = query.task
    if task is None and rows.task_names:
        by_task = {t: sum(m for m, i in zip(mass, near, strict=True) if rows.tasks[i] == t) for t in rows.task_names}
        task = max(by_task, key=by_task.get)
    return Point(q, near, mass, value, support, prior, task)


def target_of(rows, points, regression, neighbourhood):
    """Points of Q with their estimated values and weights, the queries first."""
    kernel, shrinkage, _ = regression
    x, v = [p.x for p in points], [p.value for p in points]
    weights = [1 / len(points)] * len(points)
    if neighbourhood > 0:
        (point,) = points
        for j in point.near:
            others = [i for i in point.near if i != j]
            among = kernel(rows.x[[j]], rows.x[others])[0].clip(0)
            x.append(rows.x[j])
            v.append(regress(among, rows.v[others], point.prior, shrinkage)[0])
        weights = [1 - neighbourhood, *(neighbourhood * point.mass / point.mass.sum())]
    return np.array(x), np.array(v), np.array(weights)


@dataclass
class Brute:
    """J and its parts for one query or one sample of queries."""

    rows: Rows
    points: list
    x: np.ndarray
    v: np.ndarray
    w: np.ndarray
    kernel: object
    share: float
    penalties: ObjectiveWeights
    profile: object
    reader: ReaderProfile

    def evidence(self, chosen):
        """R9 by output, means over the queries: shown, pool, prompt, target, expected; and L."""
        weights = self.profile.weights(len(chosen)) if chosen else []
        everything = range(len(self.rows.names))
        shown = [sum(w * self.rows.v[i, y] for w, i in zip(weights, chosen, strict=True)) for y in everything]
        last = [self.rows.v[chosen[-1], y] if chosen else 0.0 for y in everything]
        leaning = [self.reader.label_bias.get(output, 0.0) for output in self.rows.named_outputs]
        carried = [leaning[y] + self.reader.follow * shown[y] + self.reader.recency * last[y] for y in everything]
        table, counts, loss, m = {}, {}, 0.0, len(self.points)
        for point in self.points:
            possible = [y for y in everything if point.prior[y] > 0 and point.value[y] > 0]
            odds = {y: math.log(point.value[y] / point.prior[y]) for y in possible}
            mass, answered = sum(map(math.exp, odds.values())), sum(math.exp(carried[y]) for y in possible)
            for y in possible:
                pi, answer = math.exp(odds[y]) / mass, math.exp(carried[y]) / answered
                loss -= pi * math.log(answer) / m
                row = table.setdefault(y, {"pool": 0.0, "target": 0.0, "expected": 0.0})
                counts[y] = counts.get(y, 0) + 1
                row["pool"] += odds[y]
                row["target"] += pi / m
                row["expected"] += answer / m
        for y, row in table.items():
            row |= {"pool": row["pool"] / counts[y], "shown": shown[y], "prompt": carried[y], "own": 0.0}
        return table, loss

    def attention(self, chosen, weights, q):
        pull = np.array(weights) * self.kernel(self.rows.x[chosen], q[None])[:, 0].clip(0)
        return pull / pull.sum() if pull.sum() > 0 else pull

    def conflicts(self, chosen, weights):
        """R6 by member and query, support and query weights included."""
        table = np.zeros((len(chosen), len(self.points)))
        for j, point in enumerate(self.points):
            for i, a in enumerate(self.attention(chosen, weights, point.x)):
                distance = math.sqrt(((self.rows.v[chosen[i]] - point.value) ** 2).sum())
                table[i, j] = a * point.support * distance / len(self.points)
        return table

    def terms(self, chosen):
        weights = np.array(self.profile.weights(len(chosen)) if chosen else [])
        x, v = np.concatenate([self.rows.x[chosen], self.x]), np.concatenate([self.rows.v[chosen], self.v])
        signed = np.concatenate([weights, -self.w])  # MMD²: one double sum over both samples, one of them negative
        joint = self.kernel(x, x) * ((1 - self.share) + self.share * (v @ v.T))
        bias = math.sqrt(max((signed[:, None] * signed[None, :] * joint).sum(), 0.0))
        trace = (weights**2 * self.kernel(self.rows.x[chosen], self.rows.x[chosen]).diagonal()).sum()
        complexity = self.radius * math.sqrt(self.rows.v.shape[1] * trace)
        interference = float(self.conflicts(chosen, weights).sum())
        for point in self.points:  # where nothing is attended to the read-out is 0
            if not self.attention(chosen, weights, point.x).sum() > 0:
                interference += point.support * math.sqrt((point.value**2).sum()) / len(self.points)
        p = self.penalties
        reader = self.evidence(chosen)[1] if self.rows.mode == "labels" else 0.0
        total = p.bias * bias + p.complexity * complexity + p.interference * interference + p.reader * reader
        parts = {"bias": bias, "complexity": complexity, "interference": interference, "reader": reader}
        return parts | {"total": total}

    @property
    def largest_kernel(self):
        return self.kernel(self.x, self.x).diagonal().max()

    @property
    def radius(self):
        return math.sqrt((self.rows.v**2).sum(-1).max() * self.largest_kernel)

    def report(self, chosen, delta, sampled):
        """Everything that a selection says, by name."""
        weights = self.profile.weights(len(chosen)) if chosen else []
        now, empty = self.terms(chosen), self.terms([])
        found = {f"before.{name}": value for name, value in empty.items()}
        found |= {f"after.{name}": value for name, value in now.items()}
        table = self.conflicts(chosen, weights)
        cross = 0.0
        for i, row in enumerate(chosen):
            own = self.rows.tasks[row]
            other = [own is not None and p.task is not None and own != p.task for p in self.points]
            cross += sum(value for value, differs in zip(table[i], other, strict=True) if differs)
            attention = [self.attention(chosen, weights, p.x)[i] for p in self.points]
            found |= {
                f"{i}.weight": weights[i],
                f"{i}.attention": sum(attention) / len(attention),
                f"{i}.gain": self.terms(chosen[:i])["total"] - self.terms(chosen[: i + 1])["total"],
                f"{i}.marginal": self.terms(chosen[:i] + chosen[i + 1 :])["total"] - now["total"],
                f"{i}.interference": float(table[i].sum()),
                f"{i}.other_task": float(sum(other) / len(other) > 0.5),
            }
        found |= {"cross_task": cross, "label_conflict": float(table.sum()) - cross}
        found["support"] = sum(p.support for p in self.points) / len(self.points)
        effective = sum(w * w for w in weights)
        deviation = 3 * math.sqrt(math.log(2 / delta) * effective / 2)
        found["R2"] = math.sqrt(self.largest_kernel) * now["bias"]
        found["R4"] = 2 * math.sqrt(2) * now["complexity"] + deviation
        found["R6"] = now["interference"]
        if sampled:
            largest = self.largest_kernel * (1 - self.share + self.share * (self.rows.v**2).sum(-1).max())
            found["R5"] = math.sqrt(largest / sampled) * (1 + math.sqrt(2 * math.log(1 / delta)))
        if self.rows.mode == "labels":
            mean = sum(p.value for p in self.points) / len(self.points)
            likeliest = sorted(zip(mean, self.rows.names, strict=True), reverse=True)[:3]
            found |= {f"estimate.{name}": float(value) for value, name in likeliest}
            found |= self.report_evidence(chosen)
        return found

    def report_evidence(self, chosen):
        table = self.evidence(chosen)[0]
        order = sorted(table, key=lambda y: -table[y]["target"])
        kept = [y for place, y in enumerate(order) if place < 3 or table[y]["shown"] > 0]
        return {f"evidence.{self.rows.names[y]}.{name}": value for y in kept for name, value in table[y].items()}


def reported(selection):
    """The same names, read off a selection."""
    found = {f"before.{name}": value for name, value in selection.empty_terms.model_dump().items()}
    found |= {f"after.{name}": value for name, value in selection.terms.model_dump().items()}
    for i, chosen in enumerate(selection.chosen):
        for name in ("weight", "attention", "gain", "marginal", "interference", "other_task"):
            found[f"{i}.{name}"] = float(getattr(chosen, name))
    found |= {name: getattr(selection, name) for name in ("cross_task", "label_conflict", "support")}
    found |= {bound.result: bound.value for bound in selection.bounds}
    for item in selection.evidence:
        numbers = item.model_dump(exclude={"output"})
        found |= {f"evidence.{item.output}.{name}": value for name, value in numbers.items()}
    return found | {f"estimate.{name}": value for name, value in selection.estimate.items()}


# -- the pools ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A pool whose texts have vectors that depend on their cluster, with duplicates and look-alikes in it."""

    records: list
    vectors: np.ndarray
    lookup: dict = field(repr=False)

    @classmethod
    def make(cls, seed, *, kind="labels", tasks=(None,), n=44):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(4, WIDTH))
        records, vectors, lookup = [], [], {}
        for i in range(n):
            cluster = int(rng.integers(4))
            record = {"id": f"{int(rng.integers(10**6)):06d}-{i}", "input": f"Pool text {i}"}
            record |= {} if (task := tasks[i % len(tasks)]) is None else {"task": task}
            if kind == "labels":
                record["output"] = "abc"[cluster % 3] if rng.random() < 0.7 else "abc"[int(rng.integers(3))]
            elif kind == "blank":
                record["output"] = ""
            elif kind == "text" and rng.random() < 0.85:
                record["output"] = f"free answer {i} of {cluster}"
                lookup[record["output"]] = centres[cluster][::-1] + 0.8 * rng.normal(size=WIDTH)
            records.append(record)
            vectors.append(centres[cluster] + 0.7 * rng.normal(size=WIDTH))
            lookup[record["input"]] = vectors[-1]
        copied = [{**records[3], "id": "~copy"}, {**records[5], "id": "!copy"}]  # behind and before the originals
        queries = {f"query {j}": centres[j % 4] + 0.7 * rng.normal(size=WIDTH) for j in range(5)}
        shouted = {**records[7], "id": "shout", "input": "QUERY  0"}  # the query's own text, differently written
        lookup |= queries | {"QUERY  0": queries["query 0"]}
        vectors += [vectors[3], vectors[5], queries["query 0"]]
        return cls([*records, *copied, shouted], np.array(vectors), lookup)

    def embedder(self, dtype, device):
        def embed(texts):
            return torch.tensor(np.array([self.lookup[text] for text in texts]), dtype=dtype, device=device)

        return CallableEmbedder(embed)


@dataclass
class Setting:
    """One case: a world, settings, and the kernel as a plain function."""

    world: dict
    settings: dict = field(default_factory=dict)
    mode: str = "labels"
    kernel: object = Gaussian(0.5)
    plain_kernel: object = gaussian(0.5)
    task: str | None = None
    outputs: tuple | None = None
    named: bool = True  # whether each (task, output) has a name of its own in the estimate


TWO = ("left", "right")
CASES = {
    "labels": Setting({"kind": "labels"}),
    "joint kernel with share 1": Setting({"kind": "labels"}, {"output_share": 1.0}),
    "share 0": Setting({"kind": "labels"}, {"output_share": 0.0}),
    "neighbourhood 0.4": Setting({"kind": "labels"}, {"neighbourhood": 0.4}),
    "free text": Setting({"kind": "text"}, mode="text"),
    "free text, neighbourhood 0.4": Setting({"kind": "text"}, {"neighbourhood": 0.4}, mode="text"),
    "no outputs": Setting({"kind": "none"}, {"neighbourhood": 0.4}, mode="none"),
    "two tasks, task given": Setting({"kind": "labels", "tasks": TWO}, task="right"),
    "two tasks, task not given": Setting({"kind": "labels", "tasks": TWO}),
    "two tasks and untagged": Setting({"kind": "labels", "tasks": (*TWO, None)}, {"neighbourhood": 0.4}),
    "two tasks, free text, given": Setting({"kind": "text", "tasks": TWO}, mode="text", task="left"),
    "two tasks, free text": Setting({"kind": "text", "tasks": TWO}, {"neighbourhood": 0.4}, mode="text"),
    "two tasks, blank outputs": Setting({"kind": "blank", "tasks": TWO}, {"outputs": "text"}, mode="text"),
    "permitted outputs": Setting({"kind": "labels"}, {"neighbourhood": 0.4}, outputs=("a", "b")),
    "order by objective": Setting({"kind": "labels"}, {"order": ByObjective()}),
    "nearest last, recency": Setting({"kind": "labels"}, {"order": NearestLast(Recency())}),
    "nearest first, both ends": Setting({"kind": "text"}, {"order": NearestFirst(PrimacyRecency())}, mode="text"),
    "order by objective, k auto": Setting({"kind": "labels"}, {"order": ByObjective(Recency(0.6)), "k": "auto"}),
    "k auto, none chosen": Setting({"kind": "labels"}, {"k": "auto", "weights": ObjectiveWeights(1.0, 9.0, 0.5)}),
    "a kernel above 1": Setting(
        {"kind": "labels"},
        {"neighbourhood": 0.4},
        kernel=2.0 * Laplace(0.8) * Polynomial(2, 0.5),
        plain_kernel=laplace_polynomial,
    ),
    "a kernel below 0": Setting({"kind": "labels"}, kernel=Linear(), plain_kernel=linear),
    "the reader": Setting({"kind": "labels"}, {"weights": READING}),
    "the reader, recency": Setting({"kind": "labels"}, {"weights": READING, "order": EvidenceLast(Recency())}),
    "a reader that leans": Setting({"kind": "labels"}, {"weights": READING, "profile": LEANING, "k": "auto"}),
    "the reader, two tasks, one given": Setting({"kind": "labels", "tasks": TWO}, {"weights": READING}, task="left"),
    "the reader, permitted outputs": Setting({"kind": "labels"}, {"weights": READING}, outputs=("a", "c")),
    "more shortlist than pool": Setting({"kind": "labels", "tasks": TWO}, {"shortlist": 99}, task="left"),
    "one task tag beside untagged": Setting({"kind": "labels", "tasks": ("left", None)}, named=False),
}


def make(setting, seed, dtype, device, **more):
    """The selector of a case, with nothing left to calibrate, and its world."""
    world = World.make(seed, **setting.world)
    pinned = {"k": 5, "shortlist": 14, "output_share": 0.4, "neighbourhood": 0.0, "weights": PENALTIES}
    selector = DistillationSelector.from_examples(
        world.records,
        world.embedder(came_in(dtype), device),
        settings=make_settings(
            kernel=setting.kernel, half_precision=dtype is torch.float16, **{**pinned, **setting.settings}
        ),
        vectors=torch.tensor(world.vectors, dtype=came_in(dtype), device=device),
        **more,
    )
    return selector, world


def regression_of(selector, setting):
    """The regression in force as a plain function with its shrinkage; leave-one-out itself: test_calibration.py."""
    found = selector.calibration.regression
    if setting.mode == "none":
        assert found.kernel == setting.kernel
        return setting.plain_kernel, found.shrinkage, None
    assert isinstance(found.kernel, Gaussian)
    return gaussian(found.kernel.temperature), found.shrinkage, found.ridge


def brute_of(selector, world, setting, queries, dtype, *, static=False):
    width, half = np.float32 if came_in(dtype) is torch.float32 else np.float64, dtype is torch.float16
    rows = rows_of(world.records, world.vectors, world.lookup.__getitem__, setting.mode, width, half=half)
    regression = regression_of(selector, setting)
    if static:  # estimated by the neighbours alone
        regression = (*regression[:2], None)
    size = selector.settings.search.shortlist
    points = [point_of(rows, unit(world.lookup[q.text], width), q, regression, size) for q in queries]
    parameters = selector.calibration.static_parameters if static else selector.calibration.parameters
    x, v, w = target_of(rows, points, regression, 0.0 if static else parameters.neighbourhood)
    profile = (selector.settings.for_static_prompt() if static else selector.settings).query_order.profile
    reader = setting.settings.get("profile", CAPABLE_READER)
    share, weights = parameters.output_share, parameters.weights
    return Brute(rows, points, x, v, w, setting.plain_kernel, share, weights, profile, reader)


def nearest_of(brute, queries, k):
    """Rows nearest to the queries on average that may serve one of them and repeat no nearer one, nearest last."""
    rows = brute.rows
    mean = sum(p.x for p in brute.points) / len(brute.points)
    allowed = [
        i
        for i in range(len(rows.ids))
        if any(
            (q.task is None or rows.tasks[i] == q.task)
            and plain(rows.texts[i]) != plain(q.text)
            and (q.outputs is None or rows.outputs[i] in q.outputs)
            for q in queries
        )
    ]
    near = []
    for i in sorted(allowed, key=lambda i: -float(rows.x[i] @ mean)):
        repeats = any(plain(rows.texts[i]) == plain(rows.texts[j]) or rows.x[i] @ rows.x[j] >= 0.95 for j in near)
        near += [] if repeats else [i]
    return near[:k][::-1]


def compare(found, expected, dtype):
    """Same names; each number relative to its own size, or a small part of J's: gains are differences of J."""
    assert found.keys() == expected.keys()
    # In half precision a query lies beside the row of its own text, from which the regression is taken as if it lay
    # there, and a pool's own rows as queries beside what the oracle embeds.
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3}[dtype]
    floor = 1e-4 if dtype is torch.float64 else 1e-2
    smallest = floor * max(abs(expected["before.total"]), abs(expected["after.total"]))
    worst = {
        name: abs(found[name] - value) / max(abs(value), smallest)
        for name, value in expected.items()
        if abs(found[name] - value) > tolerance * max(abs(value), smallest)
    }
    assert not worst, {name: (found[name], expected[name], error) for name, error in worst.items()}


def check(selector, world, setting, queries, dtype, selection, nearest, *, sampled=0, static=False):
    brute = brute_of(selector, world, setting, queries, dtype, static=static)
    chosen = [brute.rows.ids.index(ident) for ident in selection.ids]
    shown, truth = reported(selection), brute.report(chosen, selector.settings.delta, sampled)
    if not setting.named:
        shown, truth = (
            {k: v for k, v in table.items() if "estimate" not in k and "evidence" not in k} for table in (shown, truth)
        )
    compare(shown, truth, dtype)
    terms = brute.terms(nearest_of(brute, queries, len(chosen)))
    compare(
        {"before.total": selection.empty_terms.total} | {f"after.{k}": v for k, v in nearest.model_dump().items()},
        {"before.total": brute.terms([])["total"]} | {f"after.{k}": v for k, v in terms.items()},
        dtype,
    )
    return brute


# -- the laws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CASES)
def test_every_number_equals_the_brute_force(name, seed, dtype, device):
    setting = CASES[name]
    selector, world = make(setting, seed, dtype, device)
    for text in ("query 0", "query 2"):
        found = selector.explain(text, task=setting.task, outputs=setting.outputs)
        query = Query(text=text, task=setting.task, outputs=setting.outputs and frozenset(setting.outputs))
        assert found.selection.query == query
        check(selector, world, setting, [query], dtype, found.selection, found.nearest)


def test_an_estimate_never_hides_the_likeliest_output(device):
    """Tagged and untagged examples share output names; whatever they are called, the largest share is shown."""
    setting = CASES["one task tag beside untagged"]
    selector, world = make(setting, 1, torch.float64, device)
    for j in range(5):
        query = Query(text=f"query {j}")
        (point,) = brute_of(selector, world, setting, [query], torch.float64).points
        assert max(selector.select(query).estimate.values()) >= point.value.max() - 1e-12


def test_weights_and_attention_sum_to_1_and_gains_to_the_whole_fall_of_j(dtype, device):
    for name in ("order by objective", "two tasks, free text", "a kernel below 0"):
        selector, _ = make(CASES[name], 0, dtype, device)
        selections = selector.select_batch([f"query {j}" for j in range(5)])
        for selection in [*selections, selector.select_static()]:
            assert len(selection) == 5
            assert math.isclose(sum(c.weight for c in selection.chosen), 1, rel_tol=1e-12)
            assert math.isclose(sum(c.attention for c in selection.chosen), 1, rel_tol=1e-12)
            fall = selection.empty_terms.total - selection.terms.total
            assert math.isclose(sum(c.gain for c in selection.chosen), fall, rel_tol=1e-12, abs_tol=1e-12)
            parts = sum(c.interference for c in selection.chosen)
            assert math.isclose(parts, selection.terms.interference, rel_tol=1e-12)
            assert math.isclose(selection.cross_task + selection.label_conflict, parts, rel_tol=1e-12, abs_tol=1e-15)


STATIC = {
    name: CASES[name]
    for name in (
        "labels",
        "free text",
        "no outputs",
        "permitted outputs",
        "two tasks, task given",
        "two tasks, blank outputs",
        "two tasks, task not given",
        "two tasks and untagged",
        "order by objective",
        "nearest last, recency",
        "a kernel above 1",
        "k auto, none chosen",
    )
}


def queries_of(setting, texts=tuple(f"query {j}" for j in range(5)), tasks=(None,)):
    outputs = setting.outputs and frozenset(setting.outputs)
    return [
        Query(text=text, task=setting.task or tasks[i % len(tasks)], outputs=outputs) for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize("name", STATIC)
def test_static_for_given_queries_equals_the_brute_force_with_r5(name, dtype, device):
    setting = STATIC[name]
    traffic = [f"query {j}" for j in range(5)]
    selector, world = make(setting, 3, dtype, device, queries=traffic)
    found = selector.explain(task=setting.task, outputs=setting.outputs)
    again = selector.select_static(traffic, task=setting.task, outputs=setting.outputs)
    assert again == found.selection
    queries = queries_of(setting)
    check(selector, world, setting, queries, dtype, found.selection, found.nearest, sampled=5, static=True)


@pytest.mark.parametrize("name", STATIC)
def test_static_from_the_pool_equals_the_brute_force_without_r5(name, dtype, device):
    setting = STATIC[name]
    selector, world = make(setting, 4, dtype, device)
    found = selector.explain(task=setting.task, outputs=setting.outputs)
    shown = [r for r in world.records if setting.task in (None, r.get("task"))]
    queries = queries_of(setting, [r["input"] for r in shown], [r.get("task") for r in shown])
    check(selector, world, setting, queries, dtype, found.selection, found.nearest, static=True)


def test_static_for_queries_of_several_tasks_equals_the_brute_force(dtype, device):
    setting = CASES["two tasks, task not given"]
    selector, world = make(setting, 5, dtype, device)
    queries = queries_of(setting, tasks=("right", "left", "left"))
    selection = selector.select_static(queries)
    nearest = selector.explain().nearest  # of other queries: not compared
    brute = brute_of(selector, world, setting, queries, dtype, static=True)
    chosen = [brute.rows.ids.index(ident) for ident in selection.ids]
    compare(reported(selection), brute.report(chosen, 0.05, 5), dtype)
    assert nearest.total > 0


def test_a_calibrated_selector_reports_the_brute_force_of_its_calibration(dtype, device):
    world = World.make(6, kind="labels", n=140)
    selector = DistillationSelector.from_examples(
        world.records,
        world.embedder(came_in(dtype), device),
        settings=make_settings(k=5, order=ByObjective(), shortlist=20, half_precision=dtype is torch.float16),
        vectors=torch.tensor(world.vectors, dtype=came_in(dtype), device=device),
    )
    parameters = selector.calibration.parameters
    assert len(selector.calibration.trials) > 10
    setting = Setting({}, kernel=parameters.kernel, plain_kernel=gaussian(parameters.kernel.temperature))
    for text in ("query 0", "query 3"):
        found = selector.explain(text)
        assert found.selection.weights == parameters.weights
        check(selector, world, setting, [Query(text=text)], dtype, found.selection, found.nearest)


def test_the_printed_page_holds_the_same_numbers_rounded(device):
    setting = CASES["two tasks and untagged"]
    selector, world = make(setting, 0, torch.float64, device)
    found = selector.explain("query 0")
    query = [Query(text="query 0")]
    brute = check(selector, world, setting, query, torch.float64, found.selection, found.nearest)
    chosen = [brute.rows.ids.index(ident) for ident in found.selection.ids]
    truth = brute.report(chosen, 0.05, 0)
    nearest = brute.terms(nearest_of(brute, query, 5))
    lines = str(found).splitlines()

    def numbers(start):
        (line,) = (line for line in lines if line.strip().startswith(start))
        return [float(number) for number in re.findall(r"(?<![\w.-])-?\d+\.\d{2,4}(?!\w)", line)]

    def rounded(*values):
        return [pytest.approx(value, abs=5.1e-5) for value in values]

    for term, name in (("bias", "bias, MMD"), ("complexity", "complexity (R3)"), ("interference", "interference (R6)")):
        weight = getattr(PENALTIES, term)
        assert numbers(name) == rounded(truth[f"before.{term}"], truth[f"after.{term}"], nearest[term], weight)
    assert numbers("J, their") == rounded(truth["before.total"], truth["after.total"], nearest["total"])
    assert numbers("interference from other tasks") == rounded(truth["cross_task"], truth["label_conflict"])
    for result in ("R2", "R4", "R6"):
        assert numbers(result)[0] == pytest.approx(truth[result], abs=5.1e-5)
    (first,) = (i for i, line in enumerate(lines) if line.split()[:2] == ["weight", "attends"])
    for i, row in enumerate(chosen):
        shown = lines[first + 1 + i].split()
        names = ("weight", "attention", "gain", "marginal", "interference")
        assert [float(cell) for cell in shown[:5]] == rounded(*(truth[f"{i}.{name}"] for name in names))
        assert shown[5] == brute.rows.ids[row]
        assert lines[first + 1 + i].endswith("[other task]") == bool(truth[f"{i}.other_task"])
    (support,) = (line for line in lines if line.startswith("support"))
    assert f"{truth['support']:.4f}" in support
    for name, value in truth.items():
        if name.startswith("estimate."):
            assert f"{name.removeprefix('estimate.')} {value:.2f}" in support


@pytest.mark.parametrize("what", ["bias", "interference"])
def test_the_brute_force_notices_a_wrong_setting(what, device):
    """The comparison itself can fail: another share, or another support, is seen."""
    selector, world = make(CASES["labels"], 0, torch.float64, device)
    selection = selector.select("query 0")
    brute = brute_of(selector, world, CASES["labels"], [Query(text="query 0")], torch.float64)
    chosen = [brute.rows.ids.index(ident) for ident in selection.ids]
    if what == "bias":
        brute.share += 1e-6
    else:
        brute.points[0].support *= 1 + 1e-6
    with pytest.raises(AssertionError, match=what):
        compare(reported(selection), brute.report(chosen, 0.05, 0), torch.float64)
