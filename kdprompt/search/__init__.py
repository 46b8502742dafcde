"""Minimises J: greedy search, swaps, and reading orders, under constraints."""
