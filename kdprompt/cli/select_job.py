"""The work of ``kdprompt select``: a selector made or loaded, and what is asked of it."""

from dataclasses import dataclass, replace
from typing import Any

from kdprompt.cli.clock import Clock
from kdprompt.cli.pools import PoolFile
from kdprompt.cli.reader import count_answers
from kdprompt.cli.terminal import Terminal

__all__ = ["Job", "Request", "load_stored", "with_traffic"]


def load_stored(file: PoolFile, settings: Any, device: str | None) -> Any:
    """A stored selector, with its own embedder and its own settings but for what is changed.

    Args:
        file: The file.
        settings: A function that changes the settings.
        device: Of the embedder; None takes the best there is.

    Raises:
        PoolError, EmbeddingError: It is damaged, or its embedder was none of kdprompt's own.
    """
    from kdprompt import DistillationSelector
    from kdprompt.storage import read, restore_embedder

    stored = read(file.path, content=file.content)
    embedder: Any = restore_embedder(stored.embedder, None)
    embedder.device = device
    return DistillationSelector.restored(stored, embedder, settings(stored.restored_settings()))


def with_traffic(selector: Any, queries: list[Any]) -> Any:
    """A selector with another sample of the traffic, and everything else as it is."""
    from kdprompt import DistillationSelector
    from kdprompt.pool.embedding import embed_queries
    from kdprompt.selection.traffic import Traffic

    parsed = selector.pool.queries(queries)
    traffic = Traffic(parsed, embed_queries(selector.embedder, [query.text for query in parsed]))
    return DistillationSelector.restored(
        replace(selector.stored(), traffic=traffic), selector.embedder, selector.settings
    )


@dataclass(frozen=True)
class Request:
    """What is asked of the selector.

    Attributes:
        queries: As the user gave them.
        is_static: Whether one prompt is wanted for all of them.
        task: The task to choose from.
        outputs: Permitted outputs.
        max_answers: Most answers of the reader, for single queries.
    """

    queries: list[Any]
    is_static: bool
    task: str | None
    outputs: list[str] | None
    max_answers: int | None = None


@dataclass(frozen=True)
class Job:
    """A request, the reader that answers for it, and the clock that its steps are timed by."""

    request: Request
    reader: Any
    clock: Clock

    def build_selector(self, pool: Any, settings: Any, embedder: Any) -> Any:
        """Embeds the pool and calibrates on it."""
        from kdprompt import DistillationSelector
        from kdprompt.pool.embedding import embed_documents

        request = self.request
        vectors = embed_documents(embedder, [example.input for example in pool]) if len(pool) else None
        self.clock.print_lap(f"embedded {len(pool):,} examples")
        traffic = request.queries if request.is_static or self.reader else None
        with self.clock.log.status("calibrating on the pool"):
            selector = DistillationSelector.from_examples(
                pool, embedder, queries=traffic, settings=settings, vectors=vectors
            )
        self.clock.print_lap("prepared the pool and calibrated")
        return self.calibrate(selector)

    def calibrate(self, selector: Any) -> Any:
        """Calibrates on what the reader answers, where one is asked for single queries."""
        request = self.request
        if self.reader and not request.is_static:
            plan = selector.plan_answers(request.max_answers)
            self.clock.log.print(f"asking {self.reader.name}: {plan}", style="dim", soft_wrap=True)
            with count_answers(self.reader, total=plan.answers) as reader:
                selector.calibrate(reader, max_answers=request.max_answers)
            self.clock.print_lap(f"calibrated by the answers of {self.reader.name}")
        return selector

    def explain(self, selector: Any) -> None:
        """Prints one selection with its reasons and the finished prompt."""
        from kdprompt.cli.selection_view import show

        request = self.request
        query = None if request.is_static else request.queries[0]
        with count_answers(self.reader if request.is_static else None) as reader:
            explanation = selector.explain(query, task=request.task, outputs=request.outputs, reader=reader)
        selection = explanation.selection
        text = selection.query.text if selection.query else "{the query}"
        show(Terminal(), explanation, selector.settings.template.text(selection.demonstrations, text))

    def select(self, selector: Any) -> list[Any]:
        """The selections that are asked for."""
        request = self.request
        if request.is_static:
            with self.clock.log.status("selecting one prompt"), count_answers(self.reader) as reader:
                selection = selector.select_static(task=request.task, outputs=request.outputs, reader=reader)
            self.clock.print_lap("selected one prompt")
            return [selection]
        return self._select_batch(selector)

    def _select_batch(self, selector: Any) -> list[Any]:
        from kdprompt.cli.progress import progress_bar
        from kdprompt.pool.embedding import embed_queries

        request = self.request
        texts = [query.text for query in selector.pool.queries(request.queries)]
        vectors = embed_queries(selector.embedder, texts)
        self.clock.print_lap(f"embedded {len(texts):,} queries")
        with progress_bar() as progress:
            bar = progress.add_task("selecting", total=len(texts))
            selections: list[Any] = selector.select_batch(
                request.queries,
                task=request.task,
                outputs=request.outputs,
                vectors=vectors,
                progress=lambda done: progress.advance(bar, done),
            )
        self.clock.print_lap(f"selected for {len(texts):,} queries")
        return selections
