"""``kdprompt bench``: selectors side by side on the answers of a model."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdprompt.cli.checks import check_device, check_streams
from kdprompt.cli.options import IdKeyOption, InputKeyOption, OutputKeyOption, SeedOption, TaskKeyOption
from kdprompt.cli.pools import Keys
from kdprompt.cli.reader import import_attribute, open_reader
from kdprompt.cli.tables import check_results_folder, write_results
from kdprompt.cli.terminal import Terminal
from kdprompt.defaults import DEFAULT_DETAILS, DEFAULT_K
from kdprompt.paths import expand_home

__all__ = ["bench"]

Option = typer.Option


@dataclass(frozen=True)
class _Files:
    data: list[Path]
    pool: Path | None
    dev: Path | None
    test: Path | None
    keys: Keys


PoolFile = Annotated[Path | None, Option(help="Instead of --data: the pool.", exists=True)]
DevFile = Annotated[Path | None, Option(help="… the dev queries: the traffic.", exists=True)]
TestFile = Annotated[Path | None, Option(help="… the labelled test queries.", exists=True)]
Data = Annotated[
    list[Path] | None, Option(help="Prefix of PREFIX.pool.jsonl (or .csv, …), .dev and .test; repeatable.")
]
Selectors = Annotated[
    list[str] | None,
    Option(
        help="A selector with options, e.g. 'mmr:trade_off=0.9', or per-query, static, all; or a row without a "
        "language model: majority:SELECTOR, nearest-vote, logistic-regression; repeatable."
    ),
]
Suites = Annotated[
    list[str] | None,
    Option(help="clean, noise=0.3, duplicates=0.1, imbalance=20, mixed=tags|outputs|nothing; repeatable."),
]
Model = Annotated[
    list[str] | None,
    Option(
        help="'smollm2' (the default), a Hugging Face name or folder, or python:MODULE:NAME (LangChain model, "
        "callable); repeatable."
    ),
]
ModelDevice = Annotated[str | None, Option(help="Of a local model: cpu, cuda, mps, … Default: the best there is.")]
OutputFolder = Annotated[
    Path, Option(help="Folder for answers, results (JSON, Markdown) and report.html; a killed run goes on.")
]
MaxNewTokens = Annotated[
    int | None, Option(help="Most tokens that a local model writes where outputs are text. Default: 32.", min=1)
]
MetricName = Annotated[
    str,
    Option(
        help="accuracy, exact-match, token-f1, json-match, json-f1, or python:MODULE:FUNCTION. Default: json-match "
        "where all outputs are JSON objects or lists, else accuracy."
    ),
]
Details = Annotated[
    int,
    Option(
        help="Queries of each data set whose prompts and answers the results show; 0 where texts must not leave.", min=0
    ),
]
Scoring = Literal["normalised", "sum", "constrained"]
Precision = Literal["float32", "bfloat16", "float16"]
Split = Literal["test", "dev"]


def bench(  # noqa: PLR0913 - a command's options are its interface
    output: OutputFolder,
    data: Data = None,
    pool: PoolFile = None,
    dev: DevFile = None,
    test: TestFile = None,
    model: Model = None,
    scoring: Annotated[Scoring, Option(help="How a local model chooses among labels.")] = "normalised",
    dtype: Annotated[Precision | None, Option(help="Precision of a local model. Default: its own.")] = None,
    device: ModelDevice = None,
    max_new_tokens: MaxNewTokens = None,
    selector: Selectors = None,
    reference: Annotated[str | None, Option(help="Compared with all others. Default: the first selector.")] = None,
    k: Annotated[list[int] | None, Option(help=f"Demonstrations; repeatable. Default: {DEFAULT_K}.", min=0)] = None,
    suite: Suites = None,
    limit: Annotated[int | None, Option(help="Most test queries of each data set.", min=1)] = None,
    split: Annotated[Split, Option(help="dev for choosing settings, test for reporting.")] = "test",
    metric: MetricName = "auto",
    details: Details = DEFAULT_DETAILS,
    embedder: Annotated[str, Option(help="'minilm', 'lsa', or a sentence-transformers model.")] = "minilm",
    seed: SeedOption = 0,
    input_key: InputKeyOption = None,
    output_key: OutputKeyOption = None,
    task_key: TaskKeyOption = None,
    id_key: IdKeyOption = None,
) -> None:
    """Compare selectors by what a model answers: score, log-loss, calibration, tokens, latency, paired statistics."""
    output = expand_home(output)
    files = {"--pool": pool, "--dev": dev, "--test": test}
    check_results_folder(output, files)
    check_streams(files)
    check_device(device)
    how = {"limit": limit, "split": split, "seed": seed, "metric": _metric(metric), "details": details}
    ks = k or [DEFAULT_K]
    selectors, first = _selectors(selector or ["kdprompt", "nearest-last"], reference)
    keys = Keys(input_key, output_key, task_key, id_key)
    base = _datasets(_Files(data or [], pool, dev, test, keys), max(ks))
    readers = _open_readers(model, Terminal(stderr=True), scoring, max_new_tokens, dtype=dtype, device=device)
    make_plan = _prepare(base, suite or ["clean"], ks, _embed(embedder, base, output), how)
    _run(make_plan, selectors, readers, output, first)


def _prepare(
    base: Sequence[Any], suites: Sequence[str], ks: list[int], embed: Any, how: dict[str, Any]
) -> "partial[Any]":
    """A plan but for its selectors and its reader."""
    from kdprompt.evaluate import Plan, apply_suite

    datasets = [dataset for name in suites for dataset in apply_suite(base, name, seed=how["seed"])]
    return partial(Plan, datasets=datasets, ks=ks, embed=embed, **how)


def _open_readers(models: list[str] | None, log: Terminal, *scoring: Any, **how: Any) -> Iterator[Any]:
    """Each model when its turn comes, so that one of them is in memory at a time; Python objects are sought at once."""
    names = dict.fromkeys(models or ["smollm2"])
    for name in (name for name in names if name.startswith("python:")):
        import_attribute(name)
    return (open_reader(name, log, *scoring, **how) for name in names)


def _selectors(specs: list[str], reference: str | None) -> tuple[list[Any], str]:
    """The selectors and predictors named, and the name of the selector that is compared with all others."""
    from kdprompt.evaluate import Predictor, make_selectors

    selectors = make_selectors(specs)
    names = [selector.name for selector in selectors if not isinstance(selector, Predictor)]
    if not names:
        raise ValueError("--selector names rows without a language model only; add a selector, kdprompt say")
    first = reference or names[0]
    if first not in names:
        raise ValueError(f"--reference {first!r} is none of the selectors {names}")
    return selectors, first


def _run(
    make_plan: "partial[Any]", selectors: Sequence[Any], readers: Iterator[Any], output: Path, reference: str
) -> None:
    """Runs the plan with each reader; what needs none is computed with the first."""
    from kdprompt.cli.progress import show_tables_progress
    from kdprompt.evaluate import Predictor, Store, summarise

    with Store(output) as store:
        if len(store):
            log = Terminal(stderr=True)
            log.print(f"{len(store):,} answers are known from earlier runs", style="dim")
        names, cells = list[str](), list[Any]()
        while (reader := next(readers, None)) is not None:
            if reader.name in names:
                raise ValueError(f"two of the models are named {reader.name!r}; rename the folder of one of them")
            names.append(reader.name)
            cells += _run_reader(make_plan(selectors=selectors, reader=reader), store)
            selectors = [selector for selector in selectors if not isinstance(selector, Predictor)]
            reader = None  # before the next one is loaded
    about = {
        "command": " ".join(["kdprompt", *sys.argv[1:]]),
        "reader": ", ".join(names),
        "embedder": make_plan.keywords["embed"].name,
        "split": make_plan.keywords["split"],
        "seed": make_plan.keywords["seed"],
    }
    with show_tables_progress() as progress:
        results = summarise(cells, reference, about, seed=make_plan.keywords["seed"], progress=progress)
    write_results(results, output)


def _run_reader(plan: Any, store: Any) -> list[Any]:
    from kdprompt.cli.progress import progress_bar
    from kdprompt.evaluate import count_prompts, run

    with progress_bar() as progress:
        bar = progress.add_task("starting", total=count_prompts(plan))
        return list(run(plan, store, lambda done, what: progress.update(bar, advance=done, description=what)))


def _datasets(files: _Files, largest_k: int) -> list[Any]:
    """The data sets, each with a pool of at least so many examples."""
    datasets = _read_datasets(files)
    small = min(datasets, key=lambda dataset: dataset.pool.distinct)
    if largest_k > small.pool.distinct:
        raise ValueError(
            f"--k {largest_k} is more than the pool of {small.name!r} has: {small.pool.distinct} distinct examples"
        )
    return datasets


def _read_datasets(files: _Files) -> list[Any]:
    from kdprompt.evaluate import Dataset

    schema = files.keys.schema()
    single = (files.pool, files.dev, files.test)
    if any(single):
        if files.data or not all(single):
            raise ValueError("give either --data, or all of --pool, --dev and --test")
        assert files.pool and files.dev and files.test
        name = files.pool.name.removesuffix(".gz").rpartition(".")[0].removesuffix(".pool") or files.pool.name
        return [Dataset.from_files(files.pool, files.dev, files.test, name=name, schema=schema)]
    if not files.data:
        raise ValueError("nothing to run on: give --data PREFIX, or --pool, --dev and --test")
    return [Dataset.from_prefix(prefix, schema) for prefix in files.data]


def _embed(name: str, datasets: Sequence[Any], output: Path) -> Any:
    from kdprompt.cli.progress import ProgressEmbedder
    from kdprompt.evaluate import EmbeddingCache

    folder = output / "vectors"
    if name == "lsa":
        from kdprompt.evaluate.lsa import LatentSemanticEmbedder

        texts = [d.input for dataset in datasets for d in dataset.pool]
        cache = EmbeddingCache(LatentSemanticEmbedder(texts), name="lsa", folder=folder)
    else:
        model = None if name == "minilm" else name
        cache = EmbeddingCache(ProgressEmbedder(model), name=name, folder=folder)
    for dataset in datasets:
        cache(dataset.texts())
    return cache


def _metric(spec: str) -> Any:
    from kdprompt.evaluate.metrics import METRICS

    if spec == "auto":
        return None
    if spec.startswith("python:"):
        return import_attribute(spec)
    if spec not in METRICS:
        raise ValueError(f"--metric must be one of {sorted(METRICS)} or python:MODULE:FUNCTION, got {spec!r}")
    return METRICS[spec]
