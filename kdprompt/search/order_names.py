"""Reading orders by the names that commands and settings have for them."""

from kdprompt.pool.records import suggest
from kdprompt.search.ordering import (
    AgreementLast,
    ByObjective,
    EvidenceLast,
    LikeliestLast,
    NearestFirst,
    NearestLast,
    Order,
)

__all__ = ["ORDERS", "order_by_name"]

ORDERS: dict[str, type[Order]] = {
    "likeliest-last": LikeliestLast,
    "evidence-last": EvidenceLast,
    "agreement-last": AgreementLast,
    "nearest-last": NearestLast,
    "nearest-first": NearestFirst,
    "by-objective": ByObjective,
}


def order_by_name(name: object) -> object:
    """The order of a name, as commands and settings have it, and what is no text as it is.

    Raises:
        ValueError: There is no order of this name; the message suggests one.
    """
    if not isinstance(name, str):
        return name
    if name not in ORDERS:
        near = suggest(name, ORDERS)
        raise ValueError(
            f"order must be one of {list(ORDERS)}, got {name!r}" + (f"; did you mean {near!r}?" if near else "")
        )
    return ORDERS[name]()
