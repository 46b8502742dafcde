"""Predictions of the theory on a real language model: random prompts, and the loss at their queries."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdprompt.evaluate.benchmark_pool import EmbeddingFunction
from kdprompt.evaluate.datasets import Case, Dataset
from kdprompt.pool.prompt import PromptTemplate
from kdprompt.pool.records import Demonstration
from kdprompt.probe import KeyEmbedder, calibrate_position_profile, probe
from kdprompt.readers import CausalLM
from kdprompt.reproduce.phenomenon import Phenomenon, judge_above, judge_below, rank_correlation
from kdprompt.selector import DistillationSelector
from kdprompt.theory.kernels import Gaussian, Kernel
from kdprompt.theory.results import bias, order_sensitivity
from kdprompt.theory.samples import JointSample

__all__ = [
    "LanguageModelSetup",
    "RandomPrompt",
    "measure_bias_and_loss",
    "measure_interference_and_share",
    "measure_length_and_loss",
    "measure_order_and_spread",
]

LOSS = "−log p(true label), nats"
KEY_SAMPLE = 64  # texts that the kernel of the model's keys is calibrated on
KEY_TEMPERATURE = 0.5
ORDER_TEMPERATURE = 0.25
PROFILE_QUERIES = 3
PROFILE_ORDERS = 4


@dataclass(frozen=True)
class RandomPrompt:
    """A random prompt.

    Attributes:
        rows: Rows of the pool, in prompt order.
        case: The query at its end, with the true output.
    """

    rows: list[int]
    case: Case


@dataclass(frozen=True)
class LanguageModelSetup:
    """A language model and the data set that its prompts are made from.

    Attributes:
        model: The language model.
        dataset: Pool and test queries.
        embed: Texts to unit-norm embeddings.
        template: How prompts are written.
        seed: Seed of every random draw.
    """

    model: CausalLM
    dataset: Dataset
    embed: EmbeddingFunction
    template: PromptTemplate = field(default_factory=PromptTemplate)
    seed: int = 0
    _losses: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def loss(self, shown: Sequence[Demonstration], case: Case) -> float:
        """−log probability of the true label among all labels, in nats; the same prompt is computed once.

        Args:
            shown: Demonstrations, in prompt order.
            case: The query with its true output.

        Raises:
            ValueError: The true output is none of the pool's labels.
        """
        labels = self.dataset.labels
        if labels is None or case.output not in labels:
            raise ValueError(f"{self.dataset.name}: {case.output!r} is none of the pool's labels {labels}")
        key = self.template.text(shown, case.query.text), case.output
        if key not in self._losses:
            scores = self.model.label_scores(key[0], labels)
            self._losses[key] = -float(scores.double().log_softmax(-1)[labels.index(case.output)])
        return self._losses[key]

    def draw_prompts(self, count: int, k: int) -> list[RandomPrompt]:
        """Draws prompts of k random demonstrations; queries are taken in turn."""
        rng = random.Random(self.seed)
        rows, test = range(len(self.dataset.pool)), self.dataset.test
        return [RandomPrompt(rng.sample(rows, k), test[i % len(test)]) for i in range(count)]

    def demonstrations(self, rows: Sequence[int]) -> list[Demonstration]:
        """The demonstrations at some rows of the pool."""
        return [self.dataset.pool[row] for row in rows]


@dataclass(frozen=True)
class _Geometry:
    """Where demonstrations and queries lie: ``demonstrations: [p, k, d]``, ``queries: [p, d]``, and the kernel there.

    ``name`` says in which space.
    """

    name: str
    kernel: Kernel
    demonstrations: Tensor
    queries: Tensor


def measure_bias_and_loss(
    setup: LanguageModelSetup, *, prompts: int = 200, k: int = 4, attention: bool = False
) -> Phenomenon:
    """R2 on a language model: the bias predicted for random prompts against the loss at the query.

    Args:
        setup: The language model and the data set.
        prompts: Number of random prompts, with one query each.
        k: Demonstrations a prompt.
        attention: Whether to predict in the space of the model's own keys instead of that of the embedding.

    Returns:
        Predicted ‖W_D − W_q‖, the query's output estimated on the pool, against −log p of the true label; their rank
        correlation with a 95 % bootstrap interval.
    """
    pool, drawn = setup.dataset.pool, setup.draw_prompts(prompts, k)
    x = setup.embed([d.input for d in pool])
    q = setup.embed([prompt.case.query.text for prompt in drawn])
    selector = DistillationSelector.from_examples(pool, None, vectors=x)
    regression = selector.calibration.regression
    labels = setup.dataset.labels or ()
    v = torch.nn.functional.one_hot(torch.tensor([labels.index(str(d.output)) for d in pool])).to(x.dtype)
    estimated, _ = regression(regression.kernel(q, x), v, v.mean(0))
    if attention:
        space = _key_geometry(setup, drawn)
    else:
        inputs = torch.stack([x[prompt.rows] for prompt in drawn])
        space = _Geometry("the embedding", selector.calibration.parameters.kernel, inputs, q)
    values = torch.stack([v[prompt.rows] for prompt in drawn])
    query = JointSample(space.queries[:, None], estimated[:, None])
    predicted = bias(space.kernel, JointSample(space.demonstrations, values), query).tolist()
    measured = [setup.loss(setup.demonstrations(prompt.rows), prompt.case) for prompt in drawn]
    correlation = rank_correlation(predicted, measured, seed=setup.seed)
    return Phenomenon(
        f"bias and loss, {setup.dataset.name}, {space.name}",
        "R2: the larger the predicted bias, the larger the loss at the query (rank correlation above 0)",
        "predicted ‖W_D − W_q‖",
        LOSS,
        predicted,
        measured,
        correlation,
        (judge_above("rank correlation of bias and loss is above 0", correlation),),
    )


def _key_geometry(setup: LanguageModelSetup, drawn: Sequence[RandomPrompt]) -> _Geometry:
    """The prompts in the space of the model's keys."""
    inputs = [[d.input for d in setup.demonstrations(prompt.rows)] for prompt in drawn]
    sample = [text for texts in inputs for text in texts][:KEY_SAMPLE]
    keys = KeyEmbedder(setup.model.model, setup.model.tokenizer, sample=sample, template=setup.template)
    return _Geometry(
        "the model's keys",
        Gaussian(KEY_TEMPERATURE),
        torch.stack([keys.embed_documents(texts) for texts in inputs]),
        keys.embed_documents([prompt.case.query.text for prompt in drawn]),
    )


def measure_order_and_spread(
    setup: LanguageModelSetup, *, prompts: int = 30, k: int = 4, orders: int = 8
) -> Phenomenon:
    """R7 on a language model: the predicted order sensitivity at the query against the spread of log p over orders.

    Args:
        setup: The language model and the data set.
        prompts: Number of random prompts.
        k: Demonstrations a prompt.
        orders: Number of random orders of each prompt.
    """
    drawn = setup.draw_prompts(prompts, k)
    omega = _position_weights(setup, drawn, k)
    rng, predicted, measured = random.Random(setup.seed), [], []
    for prompt in drawn:
        predicted.append(float(order_sensitivity(_interaction(setup, prompt), omega).rms))
        shuffled = [setup.demonstrations(rng.sample(prompt.rows, k)) for _ in range(orders)]
        losses = [setup.loss(demonstrations, prompt.case) for demonstrations in shuffled]
        measured.append(float(torch.tensor(losses).std()))
    correlation = rank_correlation(predicted, measured, seed=setup.seed)
    return Phenomenon(
        f"order, {setup.dataset.name}",
        "R7: prompts that are predicted to depend on their order do (rank correlation above 0)",
        "predicted spread of the read-out",
        "measured spread of log p(true label), nats",
        predicted,
        measured,
        correlation,
        (judge_above("rank correlation of predicted and measured spread is above 0", correlation),),
    )


def _position_weights(setup: LanguageModelSetup, drawn: Sequence[RandomPrompt], k: int) -> Tensor:
    """Weights ω of the k positions ``[k]``, float64, measured on the model."""
    profile = calibrate_position_profile(
        setup.model.model,
        setup.model.tokenizer,
        setup.demonstrations(drawn[0].rows),
        [prompt.case.query.text for prompt in drawn[:PROFILE_QUERIES]],
        orders=PROFILE_ORDERS,
        template=setup.template,
        seed=setup.seed,
    )
    return torch.tensor(profile.weights(k), dtype=torch.float64)


def _interaction(setup: LanguageModelSetup, prompt: RandomPrompt) -> Tensor:
    """Inner products ``[k, k]`` of the demonstrations' contributions at the query: κ_i κ_j where outputs agree."""
    demonstrations = setup.demonstrations(prompt.rows)
    x = setup.embed([d.input for d in demonstrations])
    q = setup.embed([prompt.case.query.text])
    same = torch.tensor([[float(a.output == b.output) for b in demonstrations] for a in demonstrations])
    similarity = Gaussian(ORDER_TEMPERATURE)(x, q).squeeze(-1)
    return (similarity[:, None] * similarity * same).double()


def measure_interference_and_share(
    setup: LanguageModelSetup, other: Sequence[Demonstration], *, queries: int = 20, k: int = 4
) -> Phenomenon:
    """R6 on a model's heads: the bound on the interference of another task, and the loss, against the task's share.

    Args:
        setup: The language model and the data set.
        other: Demonstrations of another task, at least k.
        queries: Number of test queries.
        k: Demonstrations a prompt; from none to k − 1 of them are of the other task.
    """
    rng, x, y, bounds = random.Random(setup.seed), [], [], []
    for prompt in setup.draw_prompts(queries, k):
        off_task = rng.sample(list(other), k)
        for count in range(k):
            shown = [*off_task[:count], *setup.demonstrations(prompt.rows[count:])]
            x.append(count / k)
            y.append(setup.loss(shown, prompt.case))
            bounds.append(_interference_bound(setup, shown, prompt.case.query.text, count))
    on_heads, on_loss = (rank_correlation(x, side, seed=setup.seed) for side in (bounds, y))
    return Phenomenon(
        f"interference, {setup.dataset.name}",
        "R6: the larger the other task's share, the larger its pull on the heads, and the loss",
        "share of the other task",
        LOSS,
        x,
        y,
        {**on_loss, "correlation of R6 on the heads with the share": on_heads["Spearman"]},
        (
            judge_above("rank correlation of the share and R6 on the heads is above 0", on_heads),
            judge_above("rank correlation of the share and the loss is above 0", on_loss),
        ),
    )


def _interference_bound(setup: LanguageModelSetup, shown: Sequence[Demonstration], query: str, count: int) -> float:
    """R6's bound, averaged over heads and layers, where the first ``count`` demonstrations are of another task."""
    tasks = [1] * count + [0] * (len(shown) - count)
    probed = probe(setup.model.model, setup.model.tokenizer, shown, query, template=setup.template)
    return float(torch.stack([layer.interference(tasks, 0).bound.mean() for layer in probed.layers]).mean())


def measure_length_and_loss(
    setup: LanguageModelSetup, *, queries: int = 30, lengths: Sequence[int] = (0, 1, 2, 4, 8)
) -> Phenomenon:
    """Task adaptation: the loss at the query against the number of random demonstrations of its task.

    Args:
        setup: The language model and the data set.
        queries: Number of test queries.
        lengths: Numbers of demonstrations.
    """
    x, y = [], []
    for prompt in setup.draw_prompts(queries, max(lengths)):
        for n in lengths:
            x.append(float(n))
            y.append(setup.loss(setup.demonstrations(prompt.rows[:n]), prompt.case))
    found = rank_correlation(x, y, seed=setup.seed)
    return Phenomenon(
        f"task adaptation, {setup.dataset.name}",
        "R1, R3: more demonstrations of the task build a better reference model (rank correlation below 0)",
        "demonstrations",
        LOSS,
        x,
        y,
        found,
        (judge_below("rank correlation of number and loss is below 0", found),),
    )
