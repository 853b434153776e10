"""Commands about a log of your own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..data.own_log import Log, Source, read_log
from ..diagnostics.inspect_log import Inspection, inspect
from ..report.files import check_writable, write_figure
from ..report.inspection import inspection_table
from ..report.progress import reading


@dataclass(frozen=True)
class LogOptions:
    """How a log of your own is read."""

    entity: str = ""
    """Column of the key by which rows belong together (user, session, site)."""
    label: str = ""
    """Column that a model would predict; it is left out of the features."""
    features: tuple[str, ...] = ()
    """Columns to measure, separated by commas or spaces; default: all but dates and identifiers."""
    missing: str = "refuse"
    """"refuse" or "impute" missing values, or "drop" rows that have one."""
    width: int = 32
    """Columns for a text feature."""
    delimiter: str = ""
    """Between fields; default: a comma, in a .tsv a tab."""
    decimal: str = "."
    """ "." or ","."""

    def read(self, file: str) -> Log:
        """Reads it, with a bar."""
        chosen = tuple(name for part in self.features for name in part.split(",") if name)
        options = {**vars(self), "features": chosen}
        with reading(file) as on_bytes:
            return read_log(Source(file, **options), on_bytes)

    def inspected(self, log: Log, rows: int, ranks: int) -> Inspection:
        """What `inspect` finds in it."""
        return inspect(log.x, log.names, log.entity, self.entity or "entity", rows, ranks, log.columns)


LogReading = Annotated[LogOptions, tyro.conf.arg(name="")]


def inspect_log(file: str, /, log: LogReading, rows: int = 32, ranks: int = 8, figure: str = "") -> None:
    """Measures how alike the rows of one entity are, and what that leaves of a batch. Trains nothing.

    Args:
        file: .csv or .tsv with a header, .parquet, .ndjson, or .npz with arrays x, y, entity.
        log: how it is read.
        rows: rows per rank and step.
        ranks: number of ranks.
        figure: where to draw the batch means (PNG); default: <file>-batches.png here.
    """
    target = Path(figure or f"{Path(file).stem}-batches.png")
    check_writable(target.parent, "figure")
    found_log = log.read(file)
    found = log.inspected(found_log, rows, ranks)
    from ..report.plots import batch_means

    png = batch_means(found)
    print("\n".join(found_log.notes), "", inspection_table(found), sep="\n")
    write_figure(target, png)
    print(f"Drawn: {target}")
