"""Selectors on disk and as JSON: what was computed once is not computed again."""

from kdprompt.storage.embedders import describe_embedder, make_embedder, restore_embedder
from kdprompt.storage.files import from_dict, read, to_dict, write
from kdprompt.storage.records import Recode, demonstration_from_record, demonstration_to_record
from kdprompt.storage.stored import Stored

__all__ = [
    "Recode",
    "Stored",
    "demonstration_from_record",
    "demonstration_to_record",
    "describe_embedder",
    "from_dict",
    "make_embedder",
    "read",
    "restore_embedder",
    "to_dict",
    "write",
]
