"""Former public names that still work: each use warns and names the new one."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from operator import attrgetter
from types import ModuleType
from typing import Any, TypeVar, cast

__all__ = ["FormerAttribute", "keep_attributes", "rename_argument", "resolve_renamed", "warn_renamed"]

Function = TypeVar("Function", bound=Callable[..., Any])


def warn_renamed(old: str, new: str, stacklevel: int) -> None:
    """Warns that a name is deprecated.

    Args:
        old: The former name.
        new: What to write instead.
        stacklevel: Which frame the warning is attributed to: 1 is this function, 2 its caller, and so on.
    """
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel)


def resolve_renamed(module: ModuleType, name: str, renamed: Mapping[str, str]) -> object:
    """Looks up a name that a module does not have, for its ``__getattr__``.

    Args:
        module: The module that was asked.
        name: The attribute that was asked for.
        renamed: Former names of the module's public objects to present ones.

    Returns:
        The object under its present name, after a ``DeprecationWarning`` that is attributed to who asked.

    Raises:
        AttributeError: The name is no former name of the module.
    """
    if name not in renamed:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    new = renamed[name]
    warn_renamed(f"{module.__name__}.{name}", f"{module.__name__}.{new}", stacklevel=4)
    return getattr(module, new)


class FormerAttribute(property):
    """An attribute under its former name; ``dir`` leaves it out."""


def keep_attributes(owner: type, renamed: Mapping[str, str]) -> None:
    """Gives a class its former attributes: each warns and reads the present one.

    Args:
        owner: The class.
        renamed: Former names to present ones, dotted where they now stand in an object of their own.
    """

    def follow(old: str, new: str) -> property:
        def read(instance: object) -> Any:
            warn_renamed(f"{owner.__name__}.{old}", new, stacklevel=3)
            return attrgetter(new)(instance)

        return FormerAttribute(read, doc=f"Deprecated: use ``{new}``.")

    for old, new in renamed.items():
        setattr(owner, old, follow(old, new))


def rename_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Decorates a function whose keyword argument was renamed: the former keyword still works and warns.

    Raises:
        TypeError: From the function, where a call gives both keywords.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got both {new} and its former name {old}; give {new} alone")
                warn_renamed(f"{function.__name__}({old}=…)", f"{new}=…", stacklevel=3)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return cast(Function, call)

    return decorate
