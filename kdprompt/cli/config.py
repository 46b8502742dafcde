"""``--config``: one TOML file for the options of all commands."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["hoist_config", "read_config"]

Options = Mapping[str, Any]
"""Parameters of a command by their names in Python."""


def hoist_config(arguments: list[str]) -> list[str]:
    """Arguments with ``--config FILE`` in front, wherever it stands: behind the command too."""
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--config" and i + 1 < len(arguments):
            return [*arguments[i : i + 2], *arguments[:i], *arguments[i + 2 :]]
        if argument.startswith("--config="):
            return [argument, *arguments[:i], *arguments[i + 1 :]]
    return arguments


def read_config(path: Path, commands: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Defaults of commands by what a file says; options on the command line win.

    Keys are the long names of options, without their dashes in front: ``input-key`` (or ``input_key``). In the table of
    a command, ``[select]``, they are for that command alone; above all tables for every command that has the option.
    What may be repeated takes a list or one value; a flag takes true or false.

    Args:
        path: The file.
        commands: The commands of the program by name.

    Returns:
        For each command its defaults by the names of parameters.

    Raises:
        ValueError: It is no TOML, or a key is no option; the message suggests one.
    """
    try:
        whole = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}, byte {error.start}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML ({error})") from error
    options = {name: {parameter.name: parameter for parameter in command.params} for name, command in commands.items()}
    every = {key: value for key, value in whole.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in whole.items() if isinstance(value, dict)}  # profile is an option too
    _check_names(every, set().union(*options.values()), f"{path}: no command has an option")
    _check_names(tables, set(options), f"{path}: there is no command")
    return {name: _defaults(every, tables.get(name, {}), own, f"{path}: {name}") for name, own in options.items()}


def _defaults(every: Mapping[str, Any], table: Mapping[str, Any], options: Options, where: str) -> dict[str, Any]:
    """The defaults of one command: what its table says, and what stands above all tables where it has the option."""
    _check_names(table, set(options), f"{where} has no option")
    mine = {key: value for key, value in every.items() if _python(key) in options}
    return {
        _python(key): _read_value(options[_python(key)], value, f"{where}.{key}")
        for key, value in {**mine, **table}.items()
    }


def _python(key: str) -> str:
    return key.replace("-", "_")


def _check_names(keys: Iterable[str], known: set[str], message: str) -> None:
    from kdprompt.pool.records import suggest

    for key in keys:
        if _python(key) not in known:
            near = suggest(_python(key), known)
            raise ValueError(f"{message} {key!r}" + (f"; did you mean {near.replace('_', '-')!r}?" if near else ""))


def _read_value(parameter: Any, value: Any, where: str) -> Any:
    """A value in the form that the option takes."""
    several = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise ValueError(f"{where} must be true or false, got {value!r:.60}")
        return value
    values = value if several and isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        raise ValueError(
            f"{where} must be a text or a number{', or a list of them' if several else ''}, got {value!r:.60}"
        )
    return values if several else value
