"""Helpers that several test modules share; independent oracles in float64 among them."""
