"""``DistilledPredict``: a ``dspy.Predict`` that selects the demonstrations of each call from a pool.

A subclass of ``dspy.Predict``, so that programs, optimisers, ``named_predictors``, traces and saved states see what
they know. What optimisers set as ``demos`` stays: it stands before the selected demonstrations.

Rejected: a module around a predictor (one more level in the names of saved states, and ``dspy.ChainOfThought`` wants
a predictor in its ``predict``); a new ``forward`` on an instance (gone after ``deepcopy``, and not in ``aforward``).
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import dspy

from dspy_kdprompt.translation import (
    assign_examples,
    assign_queries,
    build_demos,
    build_pool,
    build_query,
    build_settings,
    check_task,
    check_used,
    copy_examples,
    drop_repeated,
)
from dspy_kdprompt.values import Signature, encode_value, restore_types
from kdprompt.errors import PoolError
from kdprompt.explanation import Explanation
from kdprompt.pool.embedding import Embedder
from kdprompt.selection.result import Selection
from kdprompt.selector import DistillationSelector
from kdprompt.settings import Settings
from kdprompt.storage import from_dict

__all__ = ["DistilledPredict", "per_query"]

STATE = "selector"


class DistilledPredict(dspy.Predict):  # type: ignore[misc]  # DSPy has no types
    """Predicts with demonstrations that are selected for each call; takes the place of ``dspy.Predict``.

    Make one with ``from_examples``, or of the predictors of a program with ``DistilledFewShot(per_query=True)``. The
    constructor wraps a kdprompt selector that is at hand; without one the predictor is a ``dspy.Predict`` until
    ``load`` brings a pool.

    ``demos=`` in a call are shown as they are, and nothing is selected.

    Attributes:
        selector: The kdprompt selector: pool, settings, calibration; or None.
        embeddings: Embeds the queries of a pool that is loaded; None takes the selector's, else the stored model.
        settings: Settings of a pool that is loaded, where they could not be stored; None takes the selector's.

    Example:
        >>> from kdprompt import CallableEmbedder
        >>> trainset = [dspy.Example(n=i, even=i % 2 == 0).with_inputs("n") for i in range(8)]
        >>> embedder = CallableEmbedder(lambda texts: [[float(text), 1.0] for text in texts])
        >>> predict = DistilledPredict.from_examples("n: int -> even: bool", trainset, embedder, k=2)
        >>> lm = dspy.utils.DummyLM([{"even": "True"}])
        >>> with dspy.context(lm=lm):
        ...     predict(n=10).even
        True
        >>> len(lm.history[0]["messages"])  # the system's, the question's, and two for each demonstration
        6
    """

    def __init__(
        self,
        signature: str | Signature,
        selector: DistillationSelector | None = None,
        *,
        embeddings: Embedder | None = None,
        settings: Settings | None = None,
        callbacks: Sequence[Any] | None = None,
        **config: Any,
    ) -> None:
        """Wraps a kdprompt selector.

        Args:
            signature: The signature.
            selector: Its schema's inputs are input fields of the signature; None leaves the pool to ``load``.
            embeddings: The embedder that ``load`` gives to a pool, where the stored one was none of kdprompt's.
            settings: Settings that ``load`` gives to a pool, where they hold a function of yours and were not stored.
            callbacks: As ``dspy.Predict`` takes them.
            **config: As ``dspy.Predict`` takes it: keywords for the language model.

        Raises:
            PoolError: The selector's schema has inputs that the signature has not.
        """
        super().__init__(signature, callbacks=None if callbacks is None else list(callbacks), **config)
        self.embeddings = embeddings
        self.settings = settings
        self.selector = selector
        inputs = () if selector is None else selector.pool.schema.inputs
        for name in inputs:
            if name not in self.signature.input_fields:
                raise PoolError(
                    f"the pool's input {name!r} must be an input field of the signature, which has "
                    f"{list(self.signature.input_fields)}; name them alike"
                )

    @classmethod
    def from_examples(  # noqa: PLR0913 -- a predictor's and a selector's arguments
        cls,
        signature: str | Signature,
        trainset: Iterable[dspy.Example | Mapping[str, Any]],
        embeddings: Embedder | None = None,
        *,
        k: int | Literal["auto"] | None = None,
        queries: Iterable[Any] | None = None,
        settings: Settings | None = None,
        task_key: str | None = None,
        **config: Any,
    ) -> Self:
        """Makes a predictor of examples: embeds them once and calibrates on them.

        Args:
            signature: The signature. Its input fields are compared; its output fields, as far as the examples have
                them, are the outputs.
            trainset: The pool. Every example has all input fields and at least one output field, all the same ones.
            embeddings: Any kdprompt ``Embedder`` or LangChain ``Embeddings``; None takes kdprompt's default model.
            k: Demonstrations a call, or ``"auto"``; None takes the settings', or 8. At most all distinct examples.
            queries: A sample of the traffic, without outputs, for calibration: examples, mappings, or texts where
                there is one input.
            settings: Everything else that kdprompt lets one set.
            task_key: Key of the task tag; a call that has it (a field or a further keyword) chooses from that task.
            **config: As ``dspy.Predict`` takes it.

        Raises:
            MissingKeyError: An example or a query lacks a field.
            PoolError, QueryError: An example or a query cannot be used.
            EmbeddingError: The embeddings do not fit.
        """
        predictor = cls(signature, embeddings=embeddings, **config)
        only = {"": predictor.signature}
        examples = copy_examples(trainset)
        pools = assign_examples(examples, only)
        check_used(examples, pools, only)
        check_task(examples, task_key)
        pool = build_pool(pools[""], predictor.signature, task_key)
        predictor.selector = DistillationSelector.from_examples(
            pool,
            embeddings,
            queries=assign_queries(queries, only, task_key)[""],
            settings=build_settings(pool, k, settings),
        )
        return predictor

    def explain(self, **inputs: Any) -> Explanation:
        """Selects for a call with these inputs and explains; ``str()`` is the page.

        Raises:
            PoolError: There is no pool.
            MissingKeyError, QueryError: As a call.
        """
        if self.selector is None:
            raise PoolError("there is no pool to choose from; make the predictor with from_examples, or load one")
        return self.selector.explain(self._query(self.selector, inputs))

    # -- calls --------------------------------------------------------------------------------------------------------

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        """Selects, and predicts as ``dspy.Predict`` does.

        Raises:
            MissingKeyError: An input field is missing.
            QueryError: The inputs are empty, or of a task that no example has.
        """
        if self.selector is None or "demos" in kwargs:
            return super().forward(**self._known(kwargs))
        selection = self.selector.select(self._query(self.selector, kwargs))
        return super().forward(**self._known(kwargs), demos=self._shown(self.selector, selection))

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        """As ``forward``; the selections of concurrent calls are computed together."""
        if self.selector is None or "demos" in kwargs:
            return await super().aforward(**self._known(kwargs))
        selection = await self.selector.aselect(self._query(self.selector, kwargs))
        return await super().aforward(**self._known(kwargs), demos=self._shown(self.selector, selection))

    def _known(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords without a task tag that is no field of the signature."""
        task = None if self.selector is None else self.selector.pool.schema.task
        return {key: value for key, value in kwargs.items() if key != task or key in self.signature.input_fields}

    def _query(self, selector: DistillationSelector, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return build_query(inputs, self.signature, selector.pool.schema)

    def _shown(self, selector: DistillationSelector, selection: Selection) -> list[Any]:
        schema = selector.pool.schema
        return [*drop_repeated(self.demos, selection, self.signature, schema), *build_demos(selection, schema)]

    # -- copies and states --------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a pool of its own; embedder and examples, which do not change, are shared."""
        shared: list[Any] = [self.embeddings]
        if self.selector is not None:
            shared += [self.selector.embedder, self.selector.pool]
        memo.update({id(unchanging): unchanging for unchanging in shared})
        duplicate = self.__class__.__new__(self.__class__)
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """The state of ``dspy.Predict``, and under ``"selector"`` the pool with its embeddings and calibration.

        Raises:
            PoolError: JSON cannot keep a value of an example.
        """
        state: dict[str, Any] = super().dump_state(json_mode=json_mode)
        state[STATE] = None if self.selector is None else self.selector.to_dict(encode_value)
        return state

    def load_state(self, state: Mapping[str, Any], *, allow_unsafe_lm_state: bool = False) -> Self:
        """Takes a state; nothing is embedded again. The state of a plain ``dspy.Predict`` leaves the pool as it is.

        Raises:
            PoolError: The stored pool is of another format, or its settings were not stored and there are none here.
            EmbeddingError: Its embedder was none of kdprompt's, and there is none here: set ``embeddings``.
        """
        rest = {key: value for key, value in state.items() if key != STATE}
        super().load_state(rest, allow_unsafe_lm_state=allow_unsafe_lm_state)
        if STATE in state:
            self.selector = None if state[STATE] is None else self._restored(state[STATE])
        return self

    def _restored(self, data: Mapping[str, Any]) -> DistillationSelector:
        stored = from_dict(data)
        embeddings, settings = self.embeddings, stored.settings or self.settings
        if self.selector is not None:
            embeddings = self.selector.embedder if embeddings is None else embeddings
            settings = settings or self.selector.settings
        typed = replace(stored, pool=restore_types(stored.pool, self.signature))
        return DistillationSelector.restored(typed, embeddings, settings)


def per_query(program: dspy.Module, embeddings: Embedder | None = None, *, settings: Settings | None = None) -> Any:
    """A copy of a program whose ``dspy.Predict`` are ``DistilledPredict`` without pools, for ``load``.

    The copy's predictors change their class: so one that stands in two places, or in a tuple, changes in all of them.

    Args:
        program: The program, as it was before ``DistilledFewShot(per_query=True)`` compiled it.
        embeddings: As ``DistilledPredict`` takes them.
        settings: Likewise.

    Raises:
        TypeError: A predictor is of a class of its own, whose methods would be lost.
    """
    converted = program.deepcopy()
    for name, predictor in converted.named_predictors():
        if type(predictor) is dspy.Predict:
            predictor.__class__ = DistilledPredict
            predictor.selector, predictor.embeddings, predictor.settings = None, embeddings, settings
        elif not isinstance(predictor, DistilledPredict):
            raise TypeError(
                f"the predictor {name!r} must be a dspy.Predict, got the subclass {type(predictor).__name__}; put a "
                "DistilledPredict into the program yourself, or compile static demonstrations (per_query=False)"
            )
    return converted
