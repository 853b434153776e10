"""What a part of the benchmark hands over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .goals import Measured

Tick = Callable[[str], None]  # called with what is done, once for each unit of a part


@dataclass
class Section:
    """A chapter of RESULTS.md.

    Attributes:
        title: of the chapter.
        lines: its Markdown.
        measured: numbers for the table of goals.
        figures: file name -> PNG.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Adds a table."""
        self.lines += ["", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        self.lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
        self.lines.append("")

    def figure(self, name: str, png: bytes, says: str) -> None:
        """Adds a figure, and its place in the text."""
        self.figures[name] = png
        self.lines += ["", f"![{says}]({name})", ""]
