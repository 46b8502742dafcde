"""The errors that callers may want to catch.

Every message says what was wrong, the value, where it stands (index, key, line) and what to do.
Each class also derives from the built-in class that fits, so that ``except ValueError`` works.
"""

__all__ = [
    "DamagedFileError",
    "EmbeddingError",
    "KDPromptError",
    "MissingKeyError",
    "ModelNotFoundError",
    "PoolError",
    "QueryError",
    "TemplateError",
]


class KDPromptError(Exception):
    """Base of all errors that kdprompt raises on purpose."""


class PoolError(KDPromptError, ValueError):
    """A pool, or one example of it, cannot be used."""


class DamagedFileError(KDPromptError, ValueError):
    """A file that kdprompt wrote is no longer what was written, or another file stands in its place."""


class QueryError(KDPromptError, ValueError):
    """A query cannot be used."""


class MissingKeyError(PoolError, QueryError, KeyError):
    """An example or a query lacks a key that the schema names."""

    def __str__(self) -> str:
        """The message itself; ``KeyError`` would print its repr."""
        return str(self.args[0]) if self.args else ""


class EmbeddingError(KDPromptError, ValueError):
    """An embedder returned something that is no embedding of its texts."""


class ModelNotFoundError(KDPromptError, OSError):
    """No weights for the default embedding model were found."""


class TemplateError(KDPromptError, ValueError):
    """A template of a prompt cannot be read or filled."""
