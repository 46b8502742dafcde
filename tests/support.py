"""Helpers that several test modules share; oracles stay in the tests, or are formulas of a line."""

import math
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from pydantic import BaseModel

from kdprompt import ObjectiveSettings, SearchSettings, Settings, StaticSettings
from kdprompt.objective.candidate_outputs import CandidateOutputs
from kdprompt.objective.gram import compute_gram_blocks
from kdprompt.objective.objective import Objective
from kdprompt.objective.reader_loss import ReaderLoss
from kdprompt.objective.reader_profile import ReaderProfile
from kdprompt.objective.target import Target
from kdprompt.search.ordering import OrderingProblem
from kdprompt.theory.kernels import Gaussian


def invoke(*arguments):
    """What a command of kdprompt gave; what it raised, other than its own exit, is raised here."""
    from typer.testing import CliRunner

    from kdprompt.cli.app import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@contextmanager
def at_most(seconds):
    """Stops what does not end."""

    def stop(*_):
        raise TimeoutError(f"still at work after {seconds} seconds")

    if not hasattr(signal, "SIGALRM"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_together(work, threads):
    """Calls ``work(i)`` for i = 0, 1, … in threads that begin at one moment; raises what one of them raised."""
    start = threading.Barrier(threads, timeout=60)

    def begin(i):
        start.wait()
        work(i)

    with ThreadPoolExecutor(threads) as executor:
        for call in [executor.submit(begin, i) for i in range(threads)]:
            call.result(120)


def make_settings(**fields):
    """Settings with the fields of all groups side by side; those of static prompts begin with ``static_``."""
    return change_settings(Settings(), **fields)


def change_settings(settings, **fields):
    """A copy, validated, with fields changed that are named as ``make_settings`` names them."""
    values = {name: dict(value) if isinstance(value, BaseModel) else value for name, value in settings}
    for name, value in fields.items():
        if name in ObjectiveSettings.model_fields:
            values["objective"][name] = value
        elif name in SearchSettings.model_fields:
            values["search"][name] = value
        elif name.removeprefix("static_") in StaticSettings.model_fields:
            values["static"][name.removeprefix("static_")] = value
        else:
            values[name] = value
    return Settings.model_validate(values)


READER = ReaderProfile(name="planted", follow=2.5, knowledge_weight=0.6, recency=0.8, label_bias={"b": 0.4})


def build_ordering_problem(kernel, candidates, target, output_share, weights, value_radius=1.0):
    """J and the outputs of candidates ``(x, v)`` with a target, as reading orders take them."""
    x, v = candidates
    blocks = compute_gram_blocks(kernel, x, v, target, value_radius)
    reader = ReaderLoss.build(target, READER, ["a", "b", "c"]) if weights.reader > 0 else None
    objective = Objective.build(blocks, output_share, weights, reader)
    return OrderingProblem(objective, CandidateOutputs(v, target, value_radius))


def fit_ridge_plainly(x, v, penalty, q):
    """The ridge regression of all the points given, at q; an unpenalised intercept."""
    centred = x - x.mean(0)
    slope = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (v - v.mean(0)))
    return (q - x.mean(0)) @ slope + v.mean(0)


def kappa(a, b, temperature):
    """The Gaussian kernel of two points, by its formula."""
    return math.exp(-float((a - b) @ (a - b)) / (2 * temperature))


class RandomProblems:
    """Raw data of b problems with n candidates, one query and 3 more target points, and J over them.

    Attributes:
        raw: The data in float64, in the values of the dtype under test.
        mass: Weights of the target points ``[b, 4]``.
        problem: J and the outputs, as reading orders take them.
    """

    TEMPERATURE, OUTPUT_SHARE, NEIGHBOURHOOD = 0.5, 0.6, 0.4

    def __init__(self, seed, device, dtype, *, b, n, weights):
        rng = np.random.default_rng(seed)

        def unit(*shape):
            x = rng.normal(size=shape)
            return x / np.linalg.norm(x, axis=-1, keepdims=True)

        raw = {
            "x": unit(b, n, 5),
            "v": np.eye(3)[rng.integers(3, size=(b, n))],
            "tx": unit(b, 4, 5),
            "tv": rng.dirichlet(np.ones(3), size=(b, 4)),
            "support": rng.random((b, 1)),
            "query_mass": np.eye(4)[[0] * b],
            "nearby_mass": rng.dirichlet(np.ones(4), size=b),
        }
        tensors = {name: torch.as_tensor(value, device=device, dtype=dtype) for name, value in raw.items()}
        self.x, v = tensors.pop("x"), tensors.pop("v")
        self.target = Target(
            x=tensors.pop("tx"),
            v=tensors.pop("tv"),
            task=torch.full((b, 1), -1, device=device),
            queries=1,
            neighbourhood=self.NEIGHBOURHOOD,
            **tensors,
        )
        kernel = Gaussian(self.TEMPERATURE)
        self.problem = build_ordering_problem(kernel, (self.x, v), self.target, self.OUTPUT_SHARE, weights)
        kept = {"x": self.x, "v": v, "tx": self.target.x, "tv": self.target.v, **tensors}
        self.raw = {name: value.cpu().double().numpy() for name, value in kept.items()}
        self.mass = 0.6 * self.raw["query_mass"] + 0.4 * self.raw["nearby_mass"]
        self.b, self.n, self.device, self.weights = b, n, device, weights

    def kappa(self, a, b):
        """The kernel of two points."""
        return kappa(a, b, self.TEMPERATURE)
