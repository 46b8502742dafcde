"""How each LangChain ``VectorStore`` gives back the vectors that it holds: by id, never embedded again."""

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["ReadVectors", "find_vector_reader"]

ReadVectors = Callable[[Any, list[str]], Sequence[Any]]  # a store and ids to their vectors, in order


def find_vector_reader(store: object) -> ReadVectors | None:
    """How the vectors of a store are read back; None where it is not known here."""
    for cls in type(store).__mro__:
        reader = READERS.get(f"{cls.__module__.split('.')[0]}.{cls.__name__}")
        if reader is not None:
            return reader
    return None


def _from_memory(store: Any, ids: list[str]) -> Sequence[Any]:
    return [store.store[ident]["vector"] for ident in ids]


def _from_faiss(store: Any, ids: list[str]) -> Sequence[Any]:
    place = {ident: i for i, ident in store.index_to_docstore_id.items()}
    return [store.index.reconstruct(place[ident]) for ident in ids]


def _from_qdrant(store: Any, ids: list[str]) -> Sequence[Any]:
    points = store.client.retrieve(store.collection_name, ids, with_vectors=True, with_payload=False)
    by_id = {str(point.id): point.vector for point in points}
    return [vector[store.vector_name] if isinstance(vector := by_id[ident], dict) else vector for ident in ids]


def _from_pgvector(store: Any, ids: list[str]) -> Sequence[Any]:
    row = store.EmbeddingStore
    with store._make_sync_session() as session:
        by_id = {str(i): vector for i, vector in session.query(row.id, row.embedding).filter(row.id.in_(ids))}
    return [by_id[ident] for ident in ids]


READERS: dict[str, ReadVectors] = {
    "langchain_core.InMemoryVectorStore": _from_memory,
    "langchain_community.FAISS": _from_faiss,
    "langchain_qdrant.QdrantVectorStore": _from_qdrant,
    "langchain_postgres.PGVector": _from_pgvector,
}
