"""What options say of prompts: settings, how they are written, and how their length is counted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdprompt.paths import expand_home

__all__ = ["PromptOptions", "load_tokenizer"]


@dataclass(frozen=True)
class PromptOptions:
    """Options of prompts; what is None stays as the settings have it.

    Attributes:
        k: A whole number, or ``auto``.
        budget: Most tokens of the demonstrations.
        order: Name of a reading order.
        rounds: Of a static prompt with a reader.
        profile: Name of a shipped reader's profile, or a file with one.
        template: File with a jinja2 template of the whole prompt.
        instruction: What stands in front of everything.
        tokenizer: Name or file of the tokenizer that counts.
        min_similarity: Of an example to the query, below which it is not shown.
    """

    k: str | None = None
    budget: int | None = None
    order: str | None = None
    rounds: int | None = None
    profile: str | None = None
    template: Path | None = None
    instruction: str | None = None
    tokenizer: str | None = None
    min_similarity: float | None = None

    def files(self) -> dict[str, str | Path | None]:
        """What may name a file that is read, by its option."""
        return {"--profile": self.profile, "--template": self.template, "--tokenizer": self.tokenizer}

    def settings(self) -> Callable[[Any], Any]:
        """A function that applies the options to ``Settings``; files are read and checked now.

        Raises:
            ValueError, OSError: An option cannot be used, by itself at once, in the settings by the function.
        """
        from pydantic import ValidationError

        from kdprompt import Settings

        changes = {
            "k": None if self.k is None else _parse_k(self.k),
            "budget": self.budget,
            "order": self.order,
            "template": _make_template(self.template, self.instruction),
            "count_tokens": None if self.tokenizer is None else load_tokenizer(self.tokenizer),
        }
        groups = {
            "objective": {"profile": _find_profile(self.profile)},
            "search": {"min_similarity": self.min_similarity},
            "static": {"rounds": self.rounds},
        }

        def apply(settings: Any) -> Any:
            whole = {name: {**dict(getattr(settings, name)), **_given(group)} for name, group in groups.items()}
            try:
                return Settings.model_validate({**dict(settings), **whole, **_given(changes)})
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                option = next(str(name) for name in first["loc"] if name not in groups).replace("_", "-")
                raise ValueError(f"--{option}: {first['msg']}, got {first['input']!r:.60}") from error

        return apply


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _find_profile(name: str | None) -> Any:
    from kdprompt.objective.reader_profile import find_profile

    return None if name is None else find_profile(name)


def _parse_k(k: str) -> int | str:
    if k == "auto" or (k.isascii() and k.isdecimal() and len(k) < 10):
        return k if k == "auto" else int(k)
    raise ValueError(f"--k must be a whole number from 0 or 'auto', got {k!r}")


def _make_template(path: Path | None, instruction: str | None) -> Any:
    from kdprompt import PromptTemplate
    from kdprompt.pool.jinja_template import JinjaTemplate

    if path is not None:
        return JinjaTemplate.from_file(path, instruction or "")
    return None if instruction is None else PromptTemplate(instruction=instruction)


def load_tokenizer(spec: str) -> Callable[[str], int]:
    """What counts a text's tokens as a model does.

    Args:
        spec: A ``tokenizer.json``, a folder that holds one, or the name of a model of the Hugging Face hub.

    Raises:
        ValueError: There is no such tokenizer; the message names it.
    """
    from tokenizers import Tokenizer

    path = expand_home(spec)
    try:
        if path.exists():
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
        else:
            tokenizer = Tokenizer.from_pretrained(spec)
    except Exception as error:  # the library raises bare ones
        where = "it is no tokenizer.json" if path.is_file() else "it is neither a file nor a model that is to be had"
        raise ValueError(f"--tokenizer {spec!r} cannot be loaded: {where} ({error!s:.200})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
