"""Reading orders by name, and the one that is in force where nobody names one."""

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

__all__ = ["ORDERS", "choose_order", "order_by_name"]

ORDERS: dict[str, type[Order]] = {  # by the names of commands
    "likeliest-last": LikeliestLast,
    "evidence-last": EvidenceLast,
    "agreement-last": AgreementLast,
    "nearest-last": NearestLast,
    "nearest-first": NearestFirst,
    "by-objective": ByObjective,
}


def choose_order(output_mode: str, *, models_reader: bool) -> Order:
    """The order for one query where nothing else decides.

    Args:
        output_mode: How outputs enter: ``"labels"``, ``"text"`` or ``"none"``.
        models_reader: Whether J has a weight for R9.
    """
    if models_reader:
        return EvidenceLast()
    return AgreementLast() if output_mode == "text" else LikeliestLast()


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
