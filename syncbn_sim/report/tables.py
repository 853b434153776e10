"""Plain text tables."""

from __future__ import annotations


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines with columns of equal width, a rule below the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    ruled = [rows[0], ["-" * w for w in widths], *rows[1:]]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in ruled]
