"""What becomes of files that are damaged: random bit flips, cuts, files made by hand, and writers that are killed.

Prints a table. A case is *silent* where damaged content is taken for good, *foreign* where an error is not one of
kdprompt's own, *lost* where a kill leaves neither the old file nor the new one, or a temporary file that the next save
does not remove. All of them must be 0; the exit code is 1 otherwise.

    python tools/damage.py --flips 300 --truncations 100 --hostile 166 --settings 300 --kills 40
"""

import argparse
import copy
import json
import logging
import math
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from kdprompt import CallableEmbedder, DistillationSelector, KDPromptError, Quota, Settings
from kdprompt.checksums import checksum_json
from kdprompt.evaluate import Answer, Cell, EmbeddingCache, Store, read_results, summarise, write_results_text
from kdprompt.evaluate.cell import Latency
from kdprompt.storage.archive import pack_archive, unpack_archive

__all__ = ["main"]

WIDTH = 6
QUERIES = ["ask 1", "ask 2", "ask 3"]
GOOD = ("refused", "harmless")  # what may become of a case
DEEP: Any = "deep"
for _ in range(400):
    DEEP = [DEEP]
VALUES = [None, True, -1, 0, 3, 2**80, -0.5, 1e308, math.nan, math.inf, "", "x", "\ud83d", [], {}, [[]], {"": 1}, DEEP]


def embed(texts: list[str]) -> torch.Tensor:
    """Unit vectors ``[n, 6]`` that a text determines."""
    draws = [random.Random(text) for text in texts]
    rows = torch.tensor([[draw.gauss(0, 1) for _ in range(WIDTH)] for draw in draws])
    return torch.nn.functional.normalize(rows, dim=-1)


EMBEDDER = CallableEmbedder(embed)


@cache
def build_selector(k: int = 3) -> DistillationSelector:
    """A selector with everything that a file can hold: tasks, traffic, embedded outputs, a quota, a calibration."""
    examples = [{"input": f"text {i}", "output": f"out {i % 4}", "task": "ab"[i % 2]} for i in range(108)]
    settings = Settings(k=k, outputs="labels", budget=200, quota=Quota(most=2))
    return DistillationSelector.from_examples(examples, EMBEDDER, queries=QUERIES, settings=settings)


def judge(attempt: Callable[[], bool]) -> str:
    """What becomes of a case: ``attempt`` reads the damaged content and says whether it was the true one after all."""
    try:
        return "harmless" if attempt() else "silent"
    except KDPromptError:
        return "refused"
    except Exception as error:
        logging.getLogger("damage").error("foreign: %s: %.300s", type(error).__name__, error)
        return "foreign"


def use(selector: DistillationSelector) -> None:
    """Works with a selector that was loaded."""
    selector.select_batch(QUERIES)
    selector.select_static(k=2)
    selector.explain(QUERIES[0])
    assert len(list(selector.pool)) == len(selector.pool)  # examples are read when they are asked for


# -- bits and cuts ------------------------------------------------------------------------------------------------


def flip(content: bytes, draw: random.Random) -> bytes:
    """The content with one bit changed."""
    damaged, bit = bytearray(content), draw.randrange(8 * len(content))
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def cut(content: bytes, draw: random.Random) -> bytes:
    """A part of the content from its beginning."""
    return content[: draw.randrange(len(content))]


def damage_files(folder: Path, names: str, change: Callable[[bytes, random.Random], bytes], n: int) -> Iterator[str]:
    """What becomes of n changes of files, each of which is restored; ``names`` is ``selector`` or ``bench``."""
    readers = _selector_files(folder) if names == "selector" else _bench_files(folder)
    draw = random.Random(f"{names} {change.__name__}")
    for i in range(n):
        path, attempt = readers[i % len(readers)]
        content = path.read_bytes()
        path.write_bytes(change(content, draw))
        yield judge(attempt)
        path.write_bytes(content)


def _selector_files(folder: Path) -> list[tuple[Path, Callable[[], bool]]]:
    path = folder / "selector.kdprompt"
    build_selector().save(path)
    whole = path.read_bytes()

    def attempt() -> bool:
        DistillationSelector.load(path, EMBEDDER)
        return path.read_bytes() == whole

    return [(path, attempt)]


def _bench_files(folder: Path) -> list[tuple[Path, Callable[[], bool]]]:
    """A file of answers, a selection, a file of vectors, and results, each with what reads it."""
    answers = {f"prompt {i}": Answer(f"answer {i}", (-0.5, -1.0 - i)) for i in range(30)}

    class Asked:
        name = "asked"

        def answers(self, prompts: Sequence[str], labels: Sequence[str] | None) -> Iterator[Answer]:
            return (answers[prompt] for prompt in prompts)

        def count_tokens(self, text: str) -> int:
            return len(text)

    with Store(folder) as store:
        list(store.answers(Asked(), list(answers), ["a", "b"]))
        selection = {"ids": [["a", "b"], ["c"]], "p50": 1.5, "p99": 2.5, "prepare": 0.25}
        store.save_selection("key", selection)
    texts = [f"text {i}" for i in range(20)]
    vectors = EmbeddingCache(EMBEDDER, name="mine", folder=folder)(texts)
    cells = [_cell(name, shift) for name, shift in (("one", 0.0), ("two", 0.25))]
    results = summarise(cells, "one", {"reader": "asked", "seed": 0})
    (folder / "results.json").write_text(write_results_text(results), encoding="utf-8")

    written = next(folder.glob("answers*.jsonl"))

    def same_answers() -> bool:
        with Store(folder) as store:
            found = list(store.answers(Asked(), list(answers), ["a", "b"]))  # one that was cut off is asked again
        for path in set(folder.glob("answers*.jsonl")) - {written}:
            path.unlink()
        return found == list(answers.values())

    def same_vectors() -> bool:  # what is damaged is embedded again, with a warning
        with warnings.catch_warnings(action="ignore"):
            return torch.equal(EmbeddingCache(EMBEDDER, name="mine", folder=folder)(texts), vectors)

    return [
        (written, same_answers),
        (folder / "selections" / "key.json", lambda: Store(folder).load_selection("key") == selection),
        (next(folder.glob("*.sqlite3")), same_vectors),
        (folder / "results.json", lambda: read_results(folder / "results.json") == results),
    ]


def _cell(selector: str, shift: float) -> Cell:
    numbers = [0.25 * (i % 4) + shift for i in range(12)]
    names = ("score", "log_loss", "confidence", "tokens", "shown", "off_task", "draws", "one_output")
    return Cell(
        dataset="data",
        suite="clean",
        selector=selector,
        k=2,
        calibration_error=0.5,
        latency=Latency(p50=1.0, p99=2.0, prepare=0.5),
        reader="asked",
        **dict.fromkeys(names, numbers),
    )


# -- made by hand -------------------------------------------------------------------------------------------------


def make_hostile(folder: Path, n: int) -> Iterator[str]:
    """What becomes of n files in which a part was changed by hand, with right checksums.

    They are refused, or what was loaded works: a changed text is a text.
    """
    path, draw = folder / "hostile.kdprompt", random.Random(0)
    build_selector().save(path)
    tensors, parts = unpack_archive(path.read_bytes())
    for _ in range(n):
        changed, others = copy.deepcopy(parts), {name: tensor.clone() for name, tensor in tensors.items()}
        if draw.random() < 0.3:
            _change_tensors(others, draw)
        else:
            _change_inside(changed, draw)
        path.write_bytes(pack_archive(others, changed))
        yield judge(lambda: _load_and_use(path))


def _load_and_use(path: Path) -> bool:
    use(DistillationSelector.load(path, EMBEDDER))
    return True


def _change_inside(parts: Any, draw: random.Random) -> None:
    """Puts a hostile value somewhere, or removes what stands there."""
    place = parts
    while True:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.15:
            break
        place = place[key]
    if draw.random() < 0.2:
        del place[key]
    else:
        place[key] = draw.choice(VALUES)


def _change_tensors(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    name = draw.choice(list(tensors))
    tensor = tensors[name]
    if not tensor.is_floating_point():
        tensors[name] = _change_numbers(tensor, draw)
        return
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: tensor.index_fill(0, torch.tensor(draw.randrange(len(tensor))), draw.choice([0, math.nan, math.inf])),
        lambda: tensor[: draw.randrange(len(tensor))],
        lambda: tensor[:, : draw.randrange(tensor.shape[1])],
        lambda: tensor.flatten(),
        lambda: tensor.T,
        lambda: tensor.to(draw.choice([torch.int64, torch.bool, torch.float16])),
        lambda: tensor * draw.choice([1e38, 1e-38, 1e-45]),
    ]
    tensors[name] = draw.choice(changes)().contiguous()


def _change_numbers(tensor: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """Bytes of texts, their ends, codes and places, of which some are others now, or are lost, or of another kind."""
    at, low, high = draw.randrange(len(tensor)), int(tensor.min()), int(tensor.max())
    other = draw.choice([low, high, high + 1, low - 1, draw.randint(low, high), 0, 2**62])
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: tensor.index_fill(0, torch.tensor(at), other % 256 if tensor.dtype is torch.uint8 else other),
        lambda: tensor.index_copy(0, torch.tensor([at]), tensor[draw.randrange(len(tensor))][None]),
        lambda: tensor[:at],
        lambda: torch.cat([tensor, tensor[:at]]),
        lambda: tensor[None],
        lambda: tensor.flip(0),
        lambda: tensor.roll(1),
        lambda: tensor.to(draw.choice([torch.float32, torch.bool, torch.int16, torch.int64])),
    ]
    return (draw.choice(changes) if other < 2**31 or tensor.dtype is torch.int64 else changes[2])().contiguous()


def change_settings(n: int) -> Iterator[str]:
    """What becomes of n bit flips in the settings of a dictionary: by turns with the old and with right checksums."""
    data, draw = build_selector().to_dict(), random.Random(1)
    text, made = json.dumps(data["settings"]).encode(), 0
    while made < n:
        try:
            settings = json.loads(flip(text, draw))
        except (ValueError, RecursionError):
            continue  # no JSON, which whoever reads the dictionary notices
        changed = {**data, "settings": settings}
        sums = data["checksums"]
        right = bool(made % 2)
        if right:
            changed["checksums"] = {**sums, "settings": checksum_json(settings)}
        made += 1
        yield judge(lambda changed=changed, right=right: _restore_and_use(changed, data, right))


def _restore_and_use(changed: dict[str, Any], data: dict[str, Any], right: bool) -> bool:
    use(DistillationSelector.from_dict(changed, EMBEDDER))
    return right or changed == data


# -- kills --------------------------------------------------------------------------------------------------------


def kill_writers(folder: Path, n: int) -> Iterator[str]:
    """What n writers leave that are killed while they write, by turns a selector and a ``results.json``."""
    selectors = [build_selector(k) for k in (2, 3)]
    results = [write_results_text(summarise([_cell("one", shift)], "one")) for shift in (0.0, 0.25)]
    draw = random.Random(2)
    for i in range(n):
        path = folder / ("killed.kdprompt" if i % 2 else "killed.json")
        writes = _writes(path, selectors) if i % 2 else _writes(path, results)
        for write in writes:
            write()
        yield judge_kill(path, writes, draw.uniform(0, 0.02))


def _writes(path: Path, contents: Sequence[Any]) -> list[Callable[[], None]]:
    from kdprompt.atomic_write import atomic_write

    if isinstance(contents[0], str):
        return [lambda text=text: atomic_write(path, text) for text in contents]
    return [lambda chooser=chooser: chooser.save(path) for chooser in contents]


def judge_kill(path: Path, writes: Sequence[Callable[[], None]], seconds: float) -> str:
    """Kills a process that writes the contents by turns; ``lost``, or ``harmless``."""
    wanted = []
    for write in writes:
        write()
        wanted.append(path.read_bytes())
    parent, process = os.getpid(), os.fork()
    if process == 0:
        while os.getppid() == parent:  # else nobody would end it
            for write in writes:
                write()
        os._exit(0)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    whole = path.read_bytes() in wanted
    writes[0]()
    orphans = list(path.parent.glob("*.part"))
    return "harmless" if whole and not orphans and path.read_bytes() == wanted[0] else "lost"


# -- the table ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is asked for; 0 where nothing was silent, foreign or lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("flips", "truncations", "hostile", "settings", "kills"):
        parser.add_argument(f"--{name}", type=int, default=0, help="how many")
    asked = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = {
            "bit flips, selector": damage_files(folder, "selector", flip, asked.flips),
            "bit flips, stores of bench": damage_files(folder, "bench", flip, asked.flips),
            "cuts, selector": damage_files(folder, "selector", cut, asked.truncations),
            "cuts, stores of bench": damage_files(folder, "bench", cut, asked.truncations),
            "made by hand": make_hostile(folder, asked.hostile),
            "settings": change_settings(asked.settings),
            "kill -9 of writers": kill_writers(folder, asked.kills),
        }
        for kind, cases in kinds.items():
            found = Counter(cases)
            failed |= any(found[name] for name in found if name not in GOOD)
            counts = ", ".join(f"{found[name]} {name}" for name in ("refused", "harmless", "silent", "foreign", "lost"))
            print(f"{kind:28} {found.total():4} cases: {counts}", flush=True)  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
