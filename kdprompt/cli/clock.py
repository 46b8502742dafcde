"""How long each step of a command took, on standard error."""

import time

from kdprompt.cli.terminal import Terminal

__all__ = ["Clock"]


class Clock:
    """Prints the time since the last step."""

    def __init__(self, log: Terminal) -> None:
        self.log = log
        self._last = time.perf_counter()

    def print_lap(self, step: str) -> None:
        """Says that a step is done and how long it took."""
        now = time.perf_counter()
        self.log.print(f"{step} in {now - self._last:.2f} s", style="dim")
        self._last = now
