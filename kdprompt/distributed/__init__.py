"""Selection beyond one machine, on Ray: ``ShardedPool``. Needs ``pip install 'kdprompt[ray]'``."""

from kdprompt.distributed.sharded_pool import ShardedPool

__all__ = ["ShardedPool"]
