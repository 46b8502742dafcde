"""One gate for vectors from anywhere: an embedder, a caller's ``vectors=``, a store, a file.

What passes is a tensor outside any graph, of its own memory unless whoever asks copies it, with one row a text that is
finite and not zero in float32. Behind the gate code trusts.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdprompt.errors import EmbeddingError
from kdprompt.theory.point_pairs import widen

__all__ = [
    "cast_vectors",
    "check_finite_rows",
    "check_vectors",
    "halve_rows",
    "normalise_rows",
    "parse_device",
    "read_vectors",
]

SAFE = 1e15  # components between its inverse and itself can be squared and summed in float32
UNIT = 8  # times the dtype's rounding: by so much the norm of a row that was normalised may miss 1
ROWS = 16_384  # looked at in another dtype at a time


def check_vectors(vectors: Any, texts: Sequence[str], name: str, *, copy: bool = True) -> Tensor:
    """Reads vectors and returns them if there is one finite, non-zero row a text.

    Args:
        vectors: ``[n, d]``: a tensor, an array, or rows of numbers in a list or a generator.
        texts: The texts embedded, to be named in errors.
        name: Where the vectors come from.
        copy: Whether they are copied where they are such rows already; else the rows may be the caller's own.

    Returns:
        ``[n, d]``: float16, bfloat16, float32 or float64 as it came, anything else float32.

    Raises:
        EmbeddingError: They are no numbers, of a wrong number, ragged; or a row is not finite, or is zero, as float32.
            Names the text.
    """
    tensor = read_vectors(vectors, texts, name, copy=copy)
    if tensor.ndim != 2 or tensor.shape[0] != len(texts):
        raise EmbeddingError(
            f"{name} must return one row a text, shape [{len(texts)}, d], got shape {list(tensor.shape)}; "
            "nothing was changed"
        )
    if not all(_are_ordinary_in_float32(part) for part in tensor.split(ROWS)):
        check_finite_rows(tensor, tensor.to(torch.float32), texts, name)
    return tensor


def _are_ordinary_in_float32(rows: Tensor) -> bool:
    return _are_ordinary(torch.linalg.vector_norm(rows.to(torch.float32), dim=-1), rows.shape[-1])


def cast_vectors(vectors: Tensor, like: Tensor, texts: Sequence[str], name: str) -> Tensor:
    """Vectors that passed the gate, ``[n, d]``, in the dtype and on the device of others.

    Raises:
        EmbeddingError: A row that was finite, or not zero, is so no longer; names the text.
    """
    cast = vectors.to(like)
    if cast.dtype is not vectors.dtype:
        check_finite_rows(vectors, cast, texts, name)
    return cast


def normalise_rows(x: Tensor) -> Tensor:
    """Rows of unit norm, whatever their scale: ``[..., d]``; rows of zeros stay zeros.

    Rows whose norm is 1 but for its rounding stay as they are, bit by bit; where all do, ``x`` itself is returned.
    Rows whose squares leave the dtype's range are divided by their largest component first. All others are as
    ``torch.nn.functional.normalize`` makes them, bit by bit.
    """
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    if _are_ordinary(norms, x.shape[-1]):
        is_unit = _are_unit(norms)
        return x if bool(is_unit.all()) else x / norms.masked_fill(is_unit, 1)
    largest = x.abs().amax(-1, keepdim=True)
    extreme = (largest > SAFE) | ((largest < 1 / SAFE) & (largest > 0))
    unit = torch.nn.functional.normalize(torch.where(extreme, x / largest, x), dim=-1, eps=1e-30)
    return torch.where(_are_unit(norms), x, unit)


def _are_unit(norms: Tensor) -> Tensor:
    """Which norms are 1 but for the rounding of their dtype."""
    return (norms - 1).abs() <= UNIT * torch.finfo(norms.dtype).eps


def halve_rows(x: Tensor) -> Tensor:
    """Rows of unit norm in float16 ``[n, d]``; those that are such already stay as they are, bit by bit.

    A component misses by 2⁻¹² at most, and the norm of a row by twice that; it is not corrected.
    """
    half = torch.empty(x.shape, dtype=torch.float16, device=x.device)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        wide = widen(part)
        unit = normalise_rows(wide).half()
        if x.dtype is torch.float16:
            norms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            unit = torch.where((norms - 1).abs() <= torch.finfo(torch.float16).eps, part, unit)
        half[start : start + ROWS] = unit
    return half


def _are_ordinary(norms: Tensor, width: int) -> bool:
    """Whether rows of ``width`` components are finite, neither tiny nor huge, by their norms; in one pass over them."""
    return bool(((norms < SAFE) & (norms > width / SAFE)).all())


def read_vectors(vectors: Any, texts: Sequence[str], name: str, *, copy: bool = True) -> Tensor:
    """Numbers from anywhere as a tensor: floating, detached, not yet checked; a copy unless ``copy`` is off.

    Raises:
        EmbeddingError: They are no numbers, or their rows differ in length.
    """
    if not isinstance(vectors, Tensor | np.ndarray | str | bytes | Mapping) and isinstance(vectors, Iterable):
        vectors = list(vectors) if not hasattr(vectors, "__array__") else vectors
        _check_widths(vectors, texts, name)
    try:
        tensor = _to_tensor(vectors, copy)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise EmbeddingError(
            f"{name} must return an array of numbers, got {type(vectors).__name__}: {error}"
        ) from error
    return tensor


def _to_tensor(vectors: Any, copy: bool) -> Tensor:
    """A tensor of real floating numbers."""
    tensor = _read_numbers(vectors, copy)
    if tensor.layout is not torch.strided:
        raise TypeError(f"a tensor of the layout {tensor.layout}; make it dense: vectors.to_dense()")
    if tensor.is_complex():
        raise TypeError("complex numbers")
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


def _read_numbers(vectors: Any, copy: bool) -> Tensor:
    if isinstance(vectors, list) and vectors and isinstance(vectors[0], Tensor):
        vectors, copy = torch.stack([row.detach() for row in vectors]), False
    if isinstance(vectors, list) and vectors and isinstance(vectors[0], np.ndarray):
        vectors, copy = np.stack(vectors), False
    if isinstance(vectors, Tensor):
        with torch.inference_mode(False):  # an embedder's inference mode must not bind what is kept
            plain = vectors.detach()
            is_copied = copy and plain.layout is torch.strided
            return plain.clone(memory_format=torch.contiguous_format) if is_copied else plain
    return _read_array(np.asarray(vectors), copy) if hasattr(vectors, "__array__") else torch.tensor(vectors)


def _read_array(array: Any, copy: bool) -> Tensor:
    if array.dtype.kind == "O":
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"values of type {array.dtype}")
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64  # torch has no longer ones
    native = np.ascontiguousarray(array.astype(dtype, copy=copy))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes here
        return torch.from_numpy(native)


def _check_widths(rows: Any, texts: Sequence[str], name: str) -> None:
    """Names the first text whose row is of another length than the first; rows without a length pass."""
    widths = [len(row) if hasattr(row, "__len__") else None for row in rows]
    odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if odd is not None and odd < len(texts):
        raise EmbeddingError(
            f"{name} must return an array of numbers, got rows of different lengths: {widths[0]} for text 0, "
            f"{widths[odd]} for text {odd} ({texts[odd]!r:.80}); nothing was changed"
        )


def check_finite_rows(given: Tensor, cast: Tensor, texts: Sequence[str], name: str) -> None:
    """Refuses vectors a row of which is not finite, or zero.

    Args:
        given: The vectors as they came ``[n, d]``.
        cast: The same in the dtype in which they are used.
        texts: What each row is of, to be named in errors.
        name: Where the vectors come from.

    Raises:
        EmbeddingError: A row is not finite, or is zero, as it is cast; names the text.
    """
    if cast.dtype in (torch.float32, torch.float64) and _are_ordinary(
        torch.linalg.vector_norm(cast, dim=-1), cast.shape[-1]
    ):
        return
    zero = ~(cast != 0).any(-1)
    for what, bad in (("NaN or infinite values", ~torch.isfinite(cast).all(-1)), ("zeros only", zero)):
        if bool(bad.any()):
            i = int(bad.nonzero()[0, 0])
            lost = bool(torch.isfinite(given[i]).all()) and bool((given[i] != 0).any())
            dtype = str(cast.dtype).removeprefix("torch.")
            as_dtype = f" as {dtype}, though not as given (scale them to unit norm)" if lost else ""
            words = " (one that counts words knows none of them: give it a constant component)" if bad is zero else ""
            raise EmbeddingError(
                f"{name}: the row of text {i} ({texts[i]!r:.80}) has {what}{as_dtype}; check the embedder on that "
                f"text{words}, or leave the text out. Nothing was changed."
            )


def parse_device(device: str | torch.device | None, name: str = "device") -> torch.device | None:
    """A device by its name, if this machine has it; None is none.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` and so on, or torch's own.
        name: What it is called in errors.

    Raises:
        ValueError: It is none, or not there; the message names it, and those that are there.
    """
    if device is None:
        return None
    there = ["cpu"]
    there += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    there += ["mps"] if torch.backends.mps.is_available() else []
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{name} {device!r} is no device; this machine has {', '.join(there)}") from None
    numbered = found.type == "cuda" and found.index is not None
    kinds = {one.partition(":")[0] for one in there}
    is_known = found.type in ("cpu", "cuda", "mps")  # what others have only their own back-ends know
    if is_known and (str(found) not in there if numbered else found.type not in kinds):
        raise ValueError(f"{name} {str(device)!r} is not there; this machine has {', '.join(there)}")
    return found
