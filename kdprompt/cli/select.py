"""``kdprompt select``: demonstrations for queries from a pool file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from kdprompt.cli.checks import check_apart, check_device, check_file, check_request, check_streams
from kdprompt.cli.clock import Clock
from kdprompt.cli.embeddings import NoCacheOption, open_embedder
from kdprompt.cli.options import (
    BudgetOption,
    DeviceOption,
    EmbeddingModelOption,
    IdKeyOption,
    InputKeyOption,
    InstructionOption,
    KOption,
    MinSimilarityOption,
    NoOutputsOption,
    OrderOption,
    OutputKeyOption,
    PermitOption,
    PoolOrStoredOption,
    ProfileOption,
    QueriesOption,
    TaskKeyOption,
    TaskOption,
    TemplateOption,
    TokenizerOption,
)
from kdprompt.cli.output import Written, write_selections
from kdprompt.cli.pools import Keys, PoolFile, read_pool
from kdprompt.cli.prompts import PromptOptions
from kdprompt.cli.queries import read_queries
from kdprompt.cli.reader import CacheOption, keep_answers, open_reader
from kdprompt.cli.select_job import Job, Request, load_stored, with_traffic
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_STATIC_ROUNDS

__all__ = ["select"]

QueryOption = Annotated[list[str] | None, Option(help="A query; may be given several times.")]
StaticOption = Annotated[
    bool, Option("--static", help="One prompt for all queries (without queries: for inputs like the pool's).")
]
OutputOption = Annotated[
    Path | None, Option(help="Write selections here, one JSON object a line; - is standard output.")
]
ReaderOption = Annotated[
    str | None,
    Option(
        help="The model that will read the prompts: 'smollm2', a Hugging Face name or folder, or python:MODULE:NAME "
        "(LangChain model, callable). It answers examples of the pool: with --static some 9,600 times, and the best "
        "of some 320 prompts is taken; else at most --max-answers times, to measure its profile and to choose the "
        "reading order and the prefix."
    ),
]
RoundsOption = Annotated[
    int | None,
    Option(
        help="With --reader: how often its best static prompt is changed, some 480 answers each. "
        f"Default: {DEFAULT_STATIC_ROUNDS}.",
        min=0,
    ),
]
MaxAnswersOption = Annotated[
    int | None,
    Option(help="With --reader, for single queries: most answers. Default: no limit, some 11,000.", min=1),
]
MessagesOption = Annotated[bool, Option("--messages", help="Write prompts as chats too, as OpenAI's API takes them.")]


def select(  # noqa: PLR0913 - a command's options are its interface
    pool: PoolOrStoredOption,
    query: QueryOption = None,
    queries: QueriesOption = None,
    static: StaticOption = False,
    k: KOption = None,
    budget: BudgetOption = None,
    tokenizer: TokenizerOption = None,
    output: OutputOption = None,
    messages: MessagesOption = False,
    template: TemplateOption = None,
    instruction: InstructionOption = None,
    min_similarity: MinSimilarityOption = None,
    task: TaskOption = None,
    permit: PermitOption = None,
    order: OrderOption = None,
    reader: ReaderOption = None,
    rounds: RoundsOption = None,
    max_answers: MaxAnswersOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    profile: ProfileOption = None,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
    no_outputs: NoOutputsOption = False,
    model: EmbeddingModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Choose demonstrations for each query of a file, for single queries, or one prompt for all of them.

    One query is explained on the terminal; several give one JSON object a line, on standard output or in --output.
    """
    keys = Keys(input_key, output_key, task_key, id_key, no_outputs)
    options = PromptOptions(k, budget, order, rounds, profile, template, instruction, tokenizer, min_similarity)
    source = _Source(pool, keys, model, device, cache, keep=not no_cache)
    asked = _Asked(query or [], queries, static, task, permit, max_answers)
    _run(source, options, asked, _Reader(reader, device), _Output(output, messages))


@dataclass(frozen=True)
class _Asked:
    """What is asked for: queries as texts and as a file, or one prompt, and what it may show."""

    texts: list[str]
    path: Path | None
    is_static: bool
    task: str | None
    permitted: list[str] | None
    max_answers: int | None


@dataclass(frozen=True)
class _Reader:
    """The model that will read the prompts, by name."""

    name: str | None
    device: str | None


@dataclass(frozen=True)
class _Output:
    """Where selections go, and whether as chats too."""

    path: Path | None
    messages: bool

    @property
    def file(self) -> Path | None:
        """The file; None for standard output."""
        return None if self.path == Path("-") else self.path


@dataclass(frozen=True)
class _Source:
    """A file of examples, or what ``kdprompt build`` made of one.

    Attributes:
        path: The file.
        keys: Of examples and queries.
        model: The embedding model.
        device: Of the embedder.
        cache: Folder that keeps embeddings and a reader's answers; None: the user's, for embeddings alone.
        keep: Whether embeddings are kept.
    """

    path: Path
    keys: Keys
    model: str | None
    device: str | None
    cache: Path | None
    keep: bool

    def load(self, settings: Any) -> "_Loaded":
        """The pool, and the selector where the file holds one; ``settings`` changes settings."""
        from kdprompt import Settings

        file = PoolFile.open(self.path)
        if not file.is_stored:
            return _Loaded(self, read_pool(self.path, self.keys, file.content), settings(Settings()))
        if self.model is not None or self.keys != Keys():
            raise ValueError(
                f"{self.path} holds its keys and its embedder already; --model and keys belong to kdprompt build"
            )
        selector = load_stored(file, settings, self.device)
        return _Loaded(self, selector.pool, selector.settings, selector)


def _run(source: _Source, options: PromptOptions, asked: _Asked, reader: _Reader, output: _Output) -> None:
    """Checks everything, then works."""
    log = Terminal(stderr=True)
    check_file(output.file)
    check_apart(filter(None, [output.file]), {"--pool": source.path, "--queries": asked.path, **options.files()})
    check_streams({"--pool": source.path, "--queries": asked.path})
    check_device(source.device)
    loaded = source.load(options.settings())
    request = loaded.check(asked)
    model = open_reader(reader.name, log, device=reader.device) if reader.name else None
    with keep_answers(model, source.cache) as kept:
        job = Job(request, kept, Clock(log))
        selector = loaded.open(job)
        if output.path is None and not output.messages and (asked.is_static or len(request.queries) == 1):
            job.explain(selector)
            return
        own = options.template is not None or options.instruction is not None
        written = Written(selector.settings.template if own else None, output.messages, options.instruction or "")
        write_selections(job.select(selector), output.file, written, log)


@dataclass(frozen=True)
class _Loaded:
    """A pool as it was read, with its settings, and its selector where it is stored."""

    source: _Source
    pool: Any
    settings: Any
    stored: Any = None

    def check(self, asked: _Asked) -> Request:
        """What is asked of the selector; whatever can be wrong is found before anything costs time."""
        from kdprompt import QueryError
        from kdprompt.selection.pool_size import check_size

        check_size(self.pool, self.pool.distinct, self.settings)
        check_request(self.pool, asked.task, asked.permitted)
        for example in self.pool:
            self.settings.template.render(example)
        queries, names = read_queries(asked.path, asked.texts, self.pool.schema)
        if not queries and not asked.is_static:
            raise QueryError("nothing to select for: give --query, --queries, or --static")
        for parsed, name in zip(self.pool.queries(queries, names), names, strict=True):
            if asked.task is None and parsed.task is not None:
                check_request(self.pool, parsed.task, None, f"the task of {name},")
        return Request(queries, asked.is_static, asked.task, asked.permitted, asked.max_answers)

    def open(self, job: Job) -> Any:
        """The selector, ready."""
        if self.stored is None:
            source = self.source
            embedder = open_embedder(source.model, source.device, source.cache, keep=source.keep)
            return job.build_selector(self.pool, self.settings, embedder)
        job.clock.print_lap(f"loaded {len(self.pool):,} examples")
        queries = job.request.queries if job.request.is_static or job.reader else []
        return job.calibrate(with_traffic(self.stored, queries) if queries else self.stored)
