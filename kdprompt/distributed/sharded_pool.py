"""A pool in shards on a Ray cluster: prompts for a data set of queries, and one prompt for all of them."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from kdprompt.distributed.shard import PoolShard, ShardPlan
from kdprompt.distributed.sharded_search import ShardedSearch
from kdprompt.selection.embedded_pool import AnyQuery
from kdprompt.selection.pool_part import PoolRows
from kdprompt.selection.result import Selection
from kdprompt.selection.traffic import POOL_STANDS_IN, TrafficRequest, draw_inputs
from kdprompt.selector import DistillationSelector

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

__all__ = ["ShardedPool"]

FOREVER = {"max_restarts": -1, "max_task_retries": -1}  # a worker that dies is replaced, and its work done again


class ShardedPool:
    """A selector's pool in shards, each in a process of its own, for queries by the million.

    The result of ``select`` is that of the selector's ``select_batch``. A shard looks up its nearest examples, and J is
    searched over those of all shards. A process that dies is replaced; Ray does its work again.

    Needs ``pip install 'kdprompt[ray]'``; ``ray.init()`` as your cluster asks for it, before.

    Args:
        selector: Its pool as it is now; later changes of the selector do not reach the shards.
        shards: Processes that hold a share of the pool, at least 1.
        **remote: Options of Ray for each of these, ``num_cpus=0.5`` or ``num_gpus=1`` say. Without, Ray's defaults.

    Raises:
        ImportError: Ray is not installed.
        ValueError: There are fewer examples than shards.

    Example:
        >>> pool = ShardedPool(selector, shards=4)  # doctest: +SKIP
        >>> pool.select(ray.data.read_parquet("queries.parquet"), workers=8).write_parquet("prompts")  # doctest: +SKIP
    """

    def __init__(self, selector: DistillationSelector, shards: int = 2, **remote: Any) -> None:
        ray = _import_ray()
        plan, parts = ShardPlan.lay_out(selector, shards)
        self._stored_plan = ray.put(plan)
        self._notes: list[str] = [] if selector._traffic else [POOL_STANDS_IN]
        self._traffic = selector._traffic or draw_inputs(selector._pool, selector.settings, None, self._notes)
        actor = ray.remote(PoolShard).options(**{**FOREVER, **remote})
        self._parts = [ray.put(part) for part in parts]
        self._shards = [actor.remote(self._stored_plan, part) for part in self._parts]  # kept: restarts need the parts
        self._search = ShardedSearch(plan, partial(_ask, self._shards))

    def select(
        self,
        queries: "Dataset",
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        workers: int = 2,
        batch_size: int = 256,
        column: str = "demonstrations",
        **remote: Any,
    ) -> "Dataset":
        """Chooses the demonstrations for each row of a data set, as ``DistillationSelector.select_batch`` does.

        Args:
            queries: Rows with the input keys of the selector's schema, and the task key where it has one.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            workers: Processes that search; each holds one batch and what the shards found for it.
            batch_size: Queries that are computed together.
            column: Where the ids stand, a list of text in reading order.
            **remote: Options of Ray for each worker.

        Returns:
            The data set, lazily, with one more column. Its rows may come in another order.

        Raises:
            MissingKeyError, QueryError, EmbeddingError: As ``select_batch``, where the data set is computed.
        """
        from ray.data import ActorPoolStrategy

        permitted = None if outputs is None else tuple(outputs)
        return queries.map_batches(
            _QueryWorker,
            fn_constructor_args=(self._stored_plan, self._shards, task, permitted, column),
            batch_format="pyarrow",
            batch_size=batch_size,
            compute=ActorPoolStrategy(size=workers),
            **remote,
        )

    def select_static(
        self,
        queries: Iterable[AnyQuery] | None = None,
        *,
        task: str | None = None,
        outputs: Iterable[str] | None = None,
        k: int | Literal["auto"] | None = None,
    ) -> Selection:
        """One prompt for many queries, in two rounds: each shard finds 4·k examples, J decides among these.

        Each shard looks at as many candidates as ``DistillationSelector.select_static`` does of a whole pool: at all of
        them where J is the MMD alone. ``selection.terms.bias`` is the MMD that was reached.

        Args:
            queries: As ``DistillationSelector.select_static`` takes them.
            task: Choose from this task alone.
            outputs: Choose from examples with these outputs alone.
            k: Demonstrations; None takes the settings'.

        Raises:
            QueryError, EmbeddingError: As there.
        """
        request = TrafficRequest(queries, task, outputs)
        return self._search.choose_static(self._traffic, request, k, self._notes)


class _QueryWorker:
    """Chooses for batches of queries: looks up what the shards hold for them, and searches among it."""

    def __init__(
        self, plan: Any, shards: Sequence[Any], task: str | None, outputs: tuple[str, ...] | None, column: str
    ) -> None:
        import ray

        self._search = ShardedSearch(ray.get(plan), partial(_ask, shards))
        self._task, self._outputs, self._column = task, outputs, column

    def __call__(self, table: "pyarrow.Table") -> "pyarrow.Table":
        import pyarrow

        ids = [list(found.ids) for found in self._search.choose(table.to_pylist(), self._task, self._outputs)]
        return table.append_column(self._column, pyarrow.array(ids, pyarrow.list_(pyarrow.string())))


def _ask(shards: Sequence[Any], method: str, *arguments: Any) -> list[PoolRows]:
    """What every shard answers; they work at the same time, and arguments travel once."""
    import ray

    shared = [ray.put(argument) for argument in arguments]
    answers: list[PoolRows] = ray.get([getattr(shard, method).remote(*shared) for shard in shards])
    return answers


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("a pool in shards needs Ray: pip install 'kdprompt[ray]'") from error
    if not ray.is_initialized():
        ray.init()
    return ray
