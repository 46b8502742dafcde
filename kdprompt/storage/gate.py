"""The gate of everything that is loaded: what does not fit is refused by name, whoever wrote the file.

Checksums find damage; what was made by hand, or by a program with a fault, has the right checksums. So every part is
read within ``reading``, and what was read is checked as a whole by ``check_stored``: what was loaded can select.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from kdprompt.calibration.calibration import Calibration
from kdprompt.errors import EmbeddingError, KDPromptError, PoolError
from kdprompt.pool.fingerprint import Fingerprint
from kdprompt.pool.pool import Pool
from kdprompt.pool.vectors import check_finite_rows
from kdprompt.selection.traffic import Traffic
from kdprompt.settings import Settings
from kdprompt.theory.kernels import Kernel

__all__ = ["REMEDY", "check_embedder", "check_mapping", "check_rows", "check_stored", "explain_error", "reading"]

REMEDY = "load a copy of the file, or build the selector again and save it"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@contextmanager
def reading(part: str) -> Iterator[None]:
    """Makes one error of whatever goes wrong while a part of a stored selector is read.

    Raises:
        PoolError: It names the part and the remedy.
    """
    try:
        yield
    except KDPromptError:
        raise
    except Exception as error:  # what is read may be anything, so any library may stumble over it
        raise PoolError(
            f"{part} of the stored selector cannot be read: {explain_error(error)}. {REMEDY.capitalize()}."
        ) from error


def explain_error(error: Exception) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        return f"{where:.120}: {first['msg']:.200}, got {first['input']!r:.60}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r:.60}" if error.args else "it lacks a key"
    return f"{type(error).__name__}: {error!s:.160}"


def check_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """The value, if it is a mapping.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be an object, got {value!r:.60}")
    return value


def check_embedder(value: Any) -> Mapping[str, Any]:
    """The value, if it describes an embedder.

    Raises:
        TypeError, ValueError: It does not.
    """
    described = check_mapping(value, "embedder")
    if not isinstance(described.get("class"), str):
        raise TypeError(f"its class must be a text, got {described.get('class')!r:.60}")
    if "model" in described:
        prompts = described.get("prompts")
        if not isinstance(prompts, list | tuple) or len(prompts) != 2:
            raise TypeError(f"its prompts must be two names, got {prompts!r:.60}")
        for name in (described["model"], *prompts):
            if name is not None and not isinstance(name, str):
                raise TypeError(f"its model and its prompts must be texts, got {name!r:.60}")
    if described.get("fingerprint") is not None:
        Fingerprint.read(described["fingerprint"])
    return described


def check_stored(
    pool: Pool, vectors: Tensor, traffic: Traffic | None, settings: Settings | None, calibration: Calibration | None
) -> None:
    """Checks that the parts of a stored selector fit together and can be worked with.

    Raises:
        PoolError: They do not; the message names the example, the query or the parameter.
    """
    names = _ExampleNames(pool)
    check_rows(vectors, names, "vectors")
    if traffic is not None:
        pool.queries(traffic.queries)
        check_rows(traffic.vectors, [f"query {i}" for i in range(len(traffic.queries))], "queries")
        if traffic.vectors.shape[-1] != vectors.shape[-1]:
            raise PoolError(
                f"queries of the stored selector are {traffic.vectors.shape[-1]} wide, its vectors "
                f"{vectors.shape[-1]}. {REMEDY.capitalize()}."
            )
    with reading("the kernels"):
        for kernel in _list_kernels(settings, calibration):
            _check_kernel(kernel, torch.nn.functional.normalize(vectors[:2].double(), dim=-1))


def check_rows(vectors: Any, names: Sequence[str], part: str) -> None:
    """Checks that there is one finite row a name that is not all zeros.

    Raises:
        PoolError: It names the row and what is wrong with it.
    """
    if not isinstance(vectors, Tensor) or vectors.dtype not in DTYPES or vectors.ndim != 2 or not vectors.shape[-1]:
        kind = f"{vectors.dtype} {list(vectors.shape)}" if isinstance(vectors, Tensor) else type(vectors).__name__
        raise PoolError(
            f"{part} of the stored selector must be floating-point numbers [n, d], got {kind}. {REMEDY.capitalize()}."
        )
    if len(vectors) != len(names):
        raise PoolError(
            f"{part} of the stored selector must have a row each of {len(names)}, got {len(vectors)}. "
            f"{REMEDY.capitalize()}."
        )
    try:
        check_finite_rows(vectors, vectors.to(torch.float32), names, f"{part} of the stored selector")
    except EmbeddingError as error:
        raise PoolError(f"{error} {REMEDY.capitalize()}.") from error


class _ExampleNames(Sequence[str]):
    """What names the examples of a pool in errors, made where it is asked for."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __getitem__(self, i: Any) -> Any:
        return f"example {i} (id {self.pool[i].id!r})"

    def __len__(self) -> int:
        return len(self.pool)


def _list_kernels(settings: Settings | None, calibration: Calibration | None) -> list[Kernel]:
    kernels = [] if settings is None else [settings.objective.kernel]
    if calibration is not None:
        trials = (calibration.chosen, *calibration.trials)
        kernels += [calibration.static_parameters.kernel, calibration.regression.kernel]
        kernels += list({trial.parameters.kernel: None for trial in trials})
    return [kernel for kernel in kernels if kernel is not None]


def _check_kernel(kernel: Kernel, points: Tensor) -> None:
    gram, diagonal = kernel(points, points), kernel.diagonal(points)
    if gram.shape != (len(points),) * 2 or not bool(gram.isfinite().all() and diagonal.isfinite().all()):
        raise ValueError(f"{kernel!r:.100} gives no finite number for two examples of the pool")
