"""Places and ticks of charts that templates draw as SVG: numbers in, numbers of the drawing out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "Tick", "format_number", "witness_class"]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place in the drawing, and its label."""

    place: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to places.

    Attributes:
        low: The smallest value.
        high: The largest, above ``low``.
        start: Place of ``low``.
        end: Place of ``high``; may be below ``start``, as on an axis that goes up.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, margin: float = 0.05) -> "Scale":
        """The scale over finite values with a margin, a share of their range, on both sides."""
        low, high = min(values), max(values)
        spare = margin * (high - low) if high > low else 0.5
        return cls(low - spare, high + spare, start, end)

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[Tick]:
        """At most ``most`` round values inside the scale.

        Example:
            >>> [tick.label for tick in Scale(0, 1.1, 0, 100).ticks()]
            ['0', '0.5', '1']
        """
        rough = (self.high - self.low) / most
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [Tick(self(i * step), f"{i * step:.10g}") for i in range(first, last + 1)]


def witness_class(value: float, largest: float) -> str:
    """The class of a colour in seven steps: ``n3`` (the prompt carries most) over ``z0`` to ``p3`` (it lacks most).

    The steps are even in the square root: most of a pool lies far from the query, where the witness is small.
    """
    step = round(math.copysign(3 * min(1.0, abs(value) / largest) ** 0.5, value)) if largest > 0 else 0
    return "z0" if step == 0 else f"{'p' if step > 0 else 'n'}{abs(step)}"


def format_number(value: float, digits: int = 3) -> str:
    """A number with a true minus sign and no sign on zero.

    Example:
        >>> format_number(-0.12345), format_number(-0.0001)
        ('−0.123', '0.000')
    """
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
