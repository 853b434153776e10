"""Numbers as sentences and tables say them."""

from __future__ import annotations

from ..stats.estimates import Estimate


def estimated(
    found: Estimate | None, factor: float = 1.0, decimals: int = 0, plus: bool = False, unit: str = ""
) -> str:
    """An estimate with its interval, such as "95.9 [94.8, 97.1]": without the interval where there is none, and "-" for None.

    Args:
        found: what is known.
        factor: 100 for a percentage.
        decimals: of all numbers.
        plus: whether positive ones bear a sign.
        unit: behind the mean.
    """
    if found is None:
        return "-"
    numbers = [f"{factor * value:{'+' * plus}.{decimals}f}" for value in (found.mean, *(found.interval or ()))]
    return " ".join([numbers[0] + unit, *([f"[{', '.join(numbers[1:])}]"] if numbers[1:] else [])])


def counted(n: int, what: str) -> str:
    """Such as "1 seed" or "5 seeds"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
