"""Texts become records, records become tensors: pools, queries, embeddings, nearest neighbours."""
