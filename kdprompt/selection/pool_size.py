"""Whether a pool is large enough for a prompt."""

from kdprompt.errors import PoolError
from kdprompt.pool.pool import Pool
from kdprompt.settings import Settings

__all__ = ["check_size"]


def check_size(pool: Pool, distinct: int, settings: Settings) -> None:
    """Raises a ``PoolError`` if the pool is empty, or k exceeds the number of its distinct examples."""
    if not len(pool):
        raise PoolError("the pool is empty; give it at least one example")
    if settings.k != "auto" and settings.k > distinct:
        raise PoolError(
            f"k must be at most the number of distinct examples in the pool ({distinct}), got {settings.k}; add "
            "examples, lower k, or use k='auto'"
        )


def choose_k(settings: Settings, k: int | str | None, pool: Pool, distinct: int) -> Settings:
    """The settings with another k for one call, checked; None leaves it."""
    if k is None:
        return settings
    changed = Settings.model_validate({**dict(settings), "k": k})
    check_size(pool, distinct, changed)
    return changed
