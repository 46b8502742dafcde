"""Selectors side by side on a real model: the public API only."""
