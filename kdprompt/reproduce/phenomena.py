"""What the theory predicts, measured: on synthetic linear attention, and on a real small LM.

What fails is shown as it is. Each function returns a ``Phenomenon``: points, and the figures that sum them up.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdprompt.evaluate.datasets import Case, Dataset, Embed
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.probe import KeyEmbedder, calibrate_position_profile, probe
from kdprompt.readers import CausalLM
from kdprompt.selector import DistillationSelector
from kdprompt.theory.kernels import Gaussian, Kernel, Polynomial
from kdprompt.theory.results import bias, distilled_weights, order_sensitivity
from kdprompt.theory.samples import JointSample

__all__ = [
    "Phenomenon",
    "Reading",
    "bias_and_loss",
    "bias_and_mmd",
    "gap_and_length",
    "interference_and_share",
    "length_and_loss",
    "order_and_spread",
    "rank_correlation",
]


@dataclass(frozen=True)
class Phenomenon:
    """Points and what they say.

    Attributes:
        name: In a few words.
        claim: What the theory says of them, with its R-number.
        x_name: Of the horizontal axis, with its unit.
        y_name: Of the vertical axis.
        x: ``[n]``.
        y: ``[n]``.
        figures: What sums them up: slopes, R², correlations with their intervals.
    """

    name: str
    claim: str
    x_name: str
    y_name: str
    x: list[float]
    y: list[float]
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """A real LM reading a real data set.

    Attributes:
        model: The reader.
        dataset: Pool and test queries.
        embed: Texts to unit-norm embeddings.
        template: How prompts are written.
        seed: Of everything that is drawn.
    """

    model: CausalLM
    dataset: Dataset
    embed: Embed
    template: PromptTemplate = field(default_factory=PromptTemplate)
    seed: int = 0
    _read: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def loss(self, shown: Sequence[Demonstration], case: Case) -> float:
        """−log probability of the true label among all labels, in nats; a prompt is read once."""
        labels = self.dataset.labels
        if labels is None or case.output not in labels:
            raise ValueError(f"{self.dataset.name}: {case.output!r} is none of the pool's labels {labels}")
        key = self.template.text(shown, case.query.text), case.output
        if key not in self._read:
            scores = self.model.label_scores(key[0], labels)
            self._read[key] = -float(scores.double().log_softmax(-1)[labels.index(case.output)])
        return self._read[key]

    def draws(self, count: int, k: int) -> list[tuple[list[int], Case]]:
        """Random prompts: rows of the pool, and the query that each is read with."""
        rng = random.Random(self.seed)
        rows = range(len(self.dataset.pool))
        return [(rng.sample(rows, k), self.dataset.test[i % len(self.dataset.test)]) for i in range(count)]

    def shown(self, rows: Sequence[int]) -> list[Demonstration]:
        """The pool's examples at some rows."""
        return [self.dataset.pool[row] for row in rows]


# -- synthetic ----------------------------------------------------------------------------------------------------


def bias_and_mmd(*, problems: int = 200, seed: int = 0) -> Phenomenon:
    """R2 on linear attention with explicit features: ‖W_D − W_Q‖ against the MMD, slope 1."""
    g = torch.Generator().manual_seed(seed)
    kernel, x, y = Polynomial(degree=2, offset=1.0), [], []
    for _ in range(problems):
        k, m = (int(torch.randint(2, 20, (1,), generator=g)) for _ in range(2))
        shift = 2 * torch.rand(1, generator=g, dtype=torch.float64)
        a, q = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (k, m))
        v, u = (torch.randn(n, 2, generator=g, dtype=torch.float64) for n in (k, m))
        q = q + shift
        phi = [torch.cat([z, torch.ones_like(z[:, :1])], -1) for z in (a, q)]
        phi = [(z[:, :, None] * z[:, None, :]).flatten(1) for z in phi]
        uniform = [torch.full((n,), 1 / n, dtype=torch.float64) for n in (k, m)]
        apart = distilled_weights(uniform[0], v, phi[0]) - distilled_weights(uniform[1], u, phi[1])
        x.append(float(bias(kernel, JointSample(a, v), JointSample(q, u))))
        y.append(float(torch.linalg.matrix_norm(apart)))
    slope, r2 = _line(x, y)
    claim = "R2: the distance of the distilled weights is the MMD, slope 1"
    return Phenomenon("bias and MMD", claim, "MMD", "‖W_D − W_Q‖", x, y, {"slope": slope, "R²": r2})


def gap_and_length(*, draws: int = 300, seed: int = 0) -> Phenomenon:
    """R3 and R4: how far the risk of W_D exceeds its risk on the demonstrations, against their number; slope −½."""
    g = torch.Generator().manual_seed(seed)
    x, y = [], []
    truth = torch.nn.functional.normalize(torch.randn(8, generator=g), dim=0)

    def sample(*shape: int) -> tuple[Tensor, Tensor]:
        at = torch.nn.functional.normalize(torch.randn(*shape, 8, generator=g), dim=-1)
        return at, (at @ truth + 0.3 * torch.randn(*shape, generator=g)).sign()

    for n in (4, 8, 16, 32, 64, 128, 256):
        at, label = sample(draws, n)
        model = (label[..., None] * at).mean(-2)  # W_D with uniform weights
        fresh, answer = sample(draws, 2000)
        own = (label - (at @ model[..., None]).squeeze(-1)).square().mean(-1)
        risk = (answer - (fresh @ model[..., None]).squeeze(-1)).square().mean(-1)
        x.append(float(n))
        y.append(float((risk - own).mean()))
    logs = torch.tensor([x, y]).clamp_min(1e-12).log()
    slope, r2 = _line(logs[0].tolist(), logs[1].tolist())
    claim = "R3, R4: bounded by the 1/√n law, slope −½ or steeper on logarithmic axes"
    return Phenomenon(
        "generalisation gap", claim, "demonstrations n", "risk − own risk", x, y, {"slope": slope, "R²": r2}
    )


# -- a real small LM ----------------------------------------------------------------------------------------------


def bias_and_loss(reading: Reading, *, prompts: int = 200, k: int = 4, attention: bool = False) -> Phenomenon:
    """R2 on a real LM: the bias predicted for random prompts against the loss at the query.

    Args:
        reading: Who reads what.
        prompts: Random prompts, a query each.
        k: Demonstrations a prompt.
        attention: Predict in the geometry of the model's own keys instead of the embedding's.

    Returns:
        Predicted ‖W_D − W_q‖, the query's output estimated on the pool, against −log p of the true label; their rank
        correlation with a 95 % bootstrap interval.
    """
    pool, draws = reading.dataset.pool, reading.draws(prompts, k)
    x = reading.embed([d.input for d in pool])
    q = reading.embed([case.query.text for _, case in draws])
    selector = DistillationSelector.from_examples(pool, None, vectors=x)
    regression, kernel = selector.calibration.regression, selector.calibration.chosen.kernel
    labels = reading.dataset.labels or ()
    v = torch.nn.functional.one_hot(torch.tensor([labels.index(str(d.output)) for d in pool])).to(x.dtype)
    estimated, _ = regression(regression.kernel(q, x), v, v.mean(0))
    if attention:
        texts = [[pool[row].input for row in rows] for rows, _ in draws]
        sample = [text for part in texts for text in part][:64]
        keys = KeyEmbedder(reading.model.model, reading.model.tokenizer, sample=sample, template=reading.template)
        kernel = Gaussian(0.5)
        at = torch.stack([keys.embed_documents(part) for part in texts])
        to = keys.embed_documents([case.query.text for _, case in draws])
    else:
        at, to = torch.stack([x[rows] for rows, _ in draws]), q
    values = torch.stack([v[rows] for rows, _ in draws])
    predicted = bias(kernel, JointSample(at, values), JointSample(to[:, None], estimated[:, None])).tolist()
    measured = [reading.loss(reading.shown(rows), case) for rows, case in draws]
    geometry = "the model's keys" if attention else "the embedding"
    return Phenomenon(
        f"bias and loss, {reading.dataset.name}, {geometry}",
        "R2: the larger the predicted bias, the larger the loss at the query (rank correlation above 0)",
        "predicted ‖W_D − W_q‖",
        "−log p(true label), nats",
        predicted,
        measured,
        rank_correlation(predicted, measured, seed=reading.seed),
    )


def order_and_spread(reading: Reading, *, prompts: int = 30, k: int = 4, orders: int = 8) -> Phenomenon:
    """R7 on a real LM: the order sensitivity predicted at the query against the spread of log p over orders."""
    pool, draws = reading.dataset.pool, reading.draws(prompts, k)
    profile = calibrate_position_profile(
        reading.model.model,
        reading.model.tokenizer,
        reading.shown(draws[0][0]),
        [case.query.text for _, case in draws[:3]],
        orders=4,
        template=reading.template,
        seed=reading.seed,
    )
    omega = torch.tensor(profile.weights(k), dtype=torch.float64)
    kernel: Kernel = Gaussian(0.25)
    rng, predicted, measured = random.Random(reading.seed), [], []
    for rows, case in draws:
        x, q = reading.embed([pool[row].input for row in rows]), reading.embed([case.query.text])
        same = torch.tensor([[float(pool[a].output == pool[b].output) for b in rows] for a in rows])
        pull = kernel(x, q).squeeze(-1)
        predicted.append(float(order_sensitivity((pull[:, None] * pull * same).double(), omega).rms))
        losses = []
        for _ in range(orders):
            losses.append(reading.loss(reading.shown(rng.sample(rows, k)), case))
        measured.append(float(torch.tensor(losses).std()))
    return Phenomenon(
        f"order, {reading.dataset.name}",
        "R7: prompts that are predicted to depend on their order do (rank correlation above 0)",
        "predicted spread of the read-out",
        "measured spread of log p(true label), nats",
        predicted,
        measured,
        rank_correlation(predicted, measured, seed=reading.seed),
    )


def interference_and_share(
    reading: Reading, other: Sequence[Demonstration], *, queries: int = 20, k: int = 4
) -> Phenomenon:
    """R6 on a real LM's heads: the bound on the pull of another task, and the loss, against the task's share.

    Args:
        reading: Who reads what.
        other: Demonstrations of another task, at least k.
        queries: Test queries.
        k: Demonstrations a prompt; from none to k − 1 of them are of the other task.
    """
    rng, x, y, pulls = random.Random(reading.seed), [], [], []
    for rows, case in reading.draws(queries, k):
        strangers = rng.sample(list(other), k)
        for count in range(k):
            shown = [*strangers[:count], *reading.shown(rows[count:])]
            task = [1] * count + [0] * (k - count)
            found = probe(
                reading.model.model, reading.model.tokenizer, shown, case.query.text, template=reading.template
            )
            bounds = [layer.interference(task, 0)[1].mean() for layer in found.layers]
            x.append(count / k)
            y.append(reading.loss(shown, case))
            pulls.append(float(torch.stack(bounds).mean()))
    return Phenomenon(
        f"interference, {reading.dataset.name}",
        "R6: the larger the other task's share, the larger its pull on the heads, and the loss",
        "share of the other task",
        "−log p(true label), nats",
        x,
        y,
        {
            **rank_correlation(x, y, seed=reading.seed),
            "correlation of R6 on the heads with the share": rank_correlation(x, pulls, seed=reading.seed)["Spearman"],
        },
    )


def length_and_loss(reading: Reading, *, queries: int = 30, lengths: Sequence[int] = (0, 1, 2, 4, 8)) -> Phenomenon:
    """Task adaptation: the loss at the query against the number of random demonstrations of its task."""
    x, y = [], []
    for rows, case in reading.draws(queries, max(lengths)):
        for n in lengths:
            x.append(float(n))
            y.append(reading.loss(reading.shown(rows[:n]), case))
    return Phenomenon(
        f"task adaptation, {reading.dataset.name}",
        "R1, R3: more demonstrations of the task build a better reference model (rank correlation below 0)",
        "demonstrations",
        "−log p(true label), nats",
        x,
        y,
        rank_correlation(x, y, seed=reading.seed),
    )


# -- figures ------------------------------------------------------------------------------------------------------


def rank_correlation(x: Sequence[float], y: Sequence[float], *, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Spearman's rank correlation with a 95 % bootstrap interval over the points.

    Returns:
        ``Spearman``, ``low`` and ``high``; 0 where one side does not vary.
    """
    points = torch.tensor([list(x), list(y)], dtype=torch.float64)
    n = points.shape[-1]
    index = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    sampled = torch.stack([_spearman(points[:, rows]) for rows in index])
    low, high = sampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"Spearman": float(_spearman(points)), "low": low, "high": high}


def _spearman(points: Tensor) -> Tensor:
    ranks = torch.stack([_ranks(side) for side in points])
    centred = ranks - ranks.mean(-1, keepdim=True)
    scale = centred.square().sum(-1).prod().sqrt()
    return centred.prod(0).sum() / scale if scale > 0 else torch.zeros((), dtype=points.dtype)


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0, ties at their mean."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).to(values.dtype)
    found: Tensor = (ends - (counts.to(values.dtype) + 1) / 2)[inverse]
    return found


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and R² of the least-squares line."""
    a, b = torch.tensor(list(x), dtype=torch.float64), torch.tensor(list(y), dtype=torch.float64)
    a, b = a - a.mean(), b - b.mean()
    covariance = (a * b).sum()
    return float(covariance / a.square().sum()), float(covariance**2 / (a.square().sum() * b.square().sum()))
