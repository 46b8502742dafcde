"""Ids of examples that bring none: made of the content, so the same in every process and release."""

import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring  # as json.dumps writes texts, without ensure_ascii

__all__ = ["make_content_id", "make_content_ids"]


def make_content_id(*parts: str | None) -> str:
    """A stable id of 12 hex digits from the content."""
    return make_content_ids(*((part,) for part in parts))[0]


def make_content_ids(*columns: Sequence[str | None]) -> list[str]:
    """The ids of many contents, a column a part."""
    written = [["null" if part is None else encode_basestring(part) for part in column] for column in columns]
    return [hashlib.sha256(f"[{', '.join(parts)}]".encode()).hexdigest()[:12] for parts in zip(*written, strict=True)]
