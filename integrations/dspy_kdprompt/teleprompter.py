"""``DistilledFewShot``: compiles a program's demonstrations, once for all calls or once for each.

Rejected: demonstrations for predictors whose fields the examples have not (what LabeledFewShot does: DSPy shows them
with "not supplied" in place of inputs); a bootstrap of its own (``dspy.BootstrapFewShot`` runs the teacher).
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import dspy
from dspy.teleprompt import Teleprompter

from dspy_kdprompt.predict import DistilledPredict, per_query
from dspy_kdprompt.translation import (
    assign_examples,
    assign_queries,
    build_demos,
    build_pool,
    build_settings,
    check_task,
    check_used,
    copy_examples,
    copy_fields,
    find_missing_fields,
    find_output_fields,
)
from dspy_kdprompt.values import Fields, Signature
from kdprompt.errors import PoolError
from kdprompt.pool.embedding import Embedder
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings

__all__ = ["DistilledFewShot"]

logger = logging.getLogger(__name__)


class DistilledFewShot(Teleprompter):  # type: ignore[misc]  # DSPy has no types
    """Gives each predictor of a program the demonstrations that fit its signature.

    A predictor takes the examples that have all its input fields and at least one of its output fields. One that no
    example fits is left without demonstrations, with a warning, or gets the traces of a teacher. A language model is
    called for a teacher alone.

    Attributes:
        k, embeddings, queries, settings, task_key, per_query, metric: As given.

    Example:
        >>> from kdprompt import CallableEmbedder
        >>> trainset = [dspy.Example(n=i, even=i % 2 == 0).with_inputs("n") for i in range(8)]
        >>> embedder = CallableEmbedder(lambda texts: [[float(text), 1.0] for text in texts])
        >>> program = dspy.Predict("n: int -> even: bool")
        >>> compiled = DistilledFewShot(k=3, embeddings=embedder).compile(program, trainset=trainset)
        >>> len(compiled.demos), len(program.demos)
        (3, 0)
    """

    def __init__(  # noqa: PLR0913 -- a DSPy optimiser takes here what its compile needs
        self,
        k: int | Literal["auto"] | None = None,
        *,
        embeddings: Embedder | None = None,
        queries: Sequence[Any] | None = None,
        settings: Settings | None = None,
        task_key: str | None = None,
        per_query: bool = False,
        metric: Callable[..., Any] | None = None,
    ) -> None:
        """Sets what ``compile`` does; nothing is computed.

        Args:
            k: Demonstrations a predictor, or ``"auto"``; None takes the settings', or 8. At most all distinct
                examples.
            embeddings: Any kdprompt ``Embedder`` or LangChain ``Embeddings``; None takes kdprompt's default model.
            queries: A sample of the traffic, without outputs: examples, mappings, or texts where there is one input.
                Each predictor takes those that have its inputs; one that gets none takes its examples' inputs.
            settings: Everything else that kdprompt lets one set.
            task_key: Key of the task tag.
            per_query: Select for each call (predictors become ``DistilledPredict``), not once for all.
            metric: Which of a teacher's runs to learn from, as ``dspy.BootstrapFewShot`` takes it.
        """
        super().__init__()
        self.k = k
        self.embeddings = embeddings
        self.queries = queries
        self.settings = settings
        self.task_key = task_key
        self.per_query = per_query
        self.metric = metric

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: Sequence[dspy.Example | Mapping[str, Any]],
        teacher: dspy.Module | None = None,
    ) -> Any:
        """Chooses the demonstrations.

        Args:
            student: The program; it stays as it is.
            trainset: The examples.
            teacher: A program of the student's structure, which may be the student itself. It is run on every example
                by ``dspy.BootstrapFewShot``, and its traces are the examples of predictors that the trainset does not
                cover or whose outputs it has only in part. It is not run where there are none such.

        Returns:
            A copy. With static demonstrations it counts as compiled, as BootstrapFewShot's; per query it does not, so
            that other optimisers can go on with it.

        Raises:
            MissingKeyError: An example or a query fits no predictor, or an output is missing in some examples only.
            PoolError, QueryError: An example or a query cannot be used, or no run of the teacher.
            TypeError: ``per_query``, and a predictor is of a class of its own.
            ValueError: The student has no predictors.
        """
        program = student.reset_copy()
        if self.per_query:
            program = per_query(program)
        signatures = {name: predictor.signature for name, predictor in program.named_predictors()}
        if not signatures:
            raise ValueError(f"student must have predictors, got {type(student).__name__} without any")
        queries = assign_queries(self.queries, signatures, self.task_key)
        pools = self._pools(student, trainset, teacher, signatures)
        for name, predictor in program.named_predictors():
            if pools[name]:
                self._fill(name, predictor, pools[name], queries[name])
        program._compiled = not self.per_query
        return program

    def _pools(
        self,
        student: dspy.Module,
        trainset: Sequence[Any],
        teacher: dspy.Module | None,
        signatures: Mapping[str, Signature],
    ) -> dict[str, dict[int, Fields]]:
        """The examples of each predictor, by their index."""
        examples = copy_examples(trainset)
        pools = assign_examples(examples, signatures)
        check_task(examples, self.task_key)
        if teacher is None:
            check_used(examples, pools, signatures)
        else:
            uncovered = [name for name, signature in signatures.items() if not _covered(pools[name], signature)]
            pools |= self._traces(student, trainset, teacher, uncovered) if uncovered else {}
        for name in (name for name, pool in pools.items() if not pool):
            _warn_left(name, signatures[name])
        return pools

    def _traces(
        self, student: dspy.Module, trainset: Sequence[Any], teacher: dspy.Module, names: Sequence[str]
    ) -> dict[str, dict[int, Fields]]:
        """What the teacher's predictors were asked and answered, for the predictors that want it."""
        for i, example in enumerate(trainset):
            if not isinstance(example, dspy.Example) or example._input_keys is None:
                raise PoolError(
                    f"example {i} must be a dspy.Example with inputs marked for a teacher to run on, got "
                    f"{example!r:.80}; write dspy.Example(…).with_inputs(…)"
                )
        bootstrap = dspy.BootstrapFewShot(metric=self.metric, max_bootstrapped_demos=len(trainset), max_labeled_demos=0)
        traced = bootstrap.compile(student, teacher=teacher, trainset=list(trainset))
        traces = {
            name: _complete([copy_fields(demo, f"trace {i}") for i, demo in enumerate(predictor.demos)], predictor)
            for name, predictor in traced.named_predictors()
            if name in names
        }
        traces = {name: pool for name, pool in traces.items() if pool}
        if not traces:
            raise PoolError(
                f"no run of the teacher on {len(trainset)} examples passed the metric and used the predictors "
                f"{list(names)}; look at its errors above, or at the metric"
            )
        return traces

    def _fill(
        self, name: str, predictor: dspy.Predict, examples: Mapping[int, Fields], queries: Sequence[Fields]
    ) -> None:
        pool = build_pool(examples, predictor.signature, self.task_key)
        selector = DistillationSelector.from_examples(
            pool, self.embeddings, queries=queries, settings=build_settings(pool, self.k, self.settings)
        )
        if isinstance(predictor, DistilledPredict) and self.per_query:
            predictor.selector, predictor.embeddings = selector, self.embeddings
            return
        selection = selector.select_static()
        predictor.demos = build_demos(selection, pool.schema)
        for note in selection.notes:
            logger.info("%s: %s", name, note)


def _covered(examples: Mapping[int, Fields], signature: Signature) -> bool:
    """Whether there are examples, with all outputs of the signature."""
    return bool(examples) and len(find_output_fields(examples.values(), signature)) == len(signature.output_fields)


def _complete(traces: Sequence[Fields], predictor: dspy.Predict) -> dict[int, Fields]:
    """Traces with all that the signature needs and answers, by their index."""
    signature = predictor.signature
    whole = [
        not find_missing_fields(trace, signature)
        and all(trace.get(name) is not None for name in signature.output_fields)
        for trace in traces
    ]
    return {i: trace for i, trace in enumerate(traces) if whole[i]}


def _warn_left(name: str, signature: Signature) -> None:
    warnings.warn(
        f"no example has the fields of the predictor {name!r} ({signature.signature}): it is left without "
        "demonstrations. Give examples with its fields, or a teacher whose traces have them: compile(teacher=…).",
        stacklevel=3,
    )
