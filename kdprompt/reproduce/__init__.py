"""Checks of the theory's predictions on synthetic data and on a real language model."""
