"""Commands about a log of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..data.own_log import Log, LogOptions, Source, read_log
from ..diagnostics.inspect_log import Inspection, inspect
from ..diagnostics.inspection import inspection_table
from ..diagnostics.scatter import batch_means
from ..report.files import check_writable, write_figure
from ..report.progress import Progress
from .arguments import whole

LogReading = Annotated[LogOptions, tyro.conf.arg(name="")]


def read(file: str, how: LogOptions) -> Log:
    """Reads a log, with a bar."""
    with Progress(bars=True).reading(file) as on_bytes:
        return read_log(Source(file, **vars(how)), on_bytes)


def inspected(log: Log, how: LogOptions, rows: int, ranks: int) -> Inspection:
    """What `inspect` finds in it."""
    return inspect(log.x, log.names, log.entity, how.entity or "entity", rows, ranks, log.columns)


def inspect_log(file: str, /, log: LogReading, rows: int = 32, ranks: int = 8, figure: str = "") -> None:
    """Measures how alike the rows of one entity are, and what that leaves of a batch. Trains nothing.

    Args:
        file: .csv or .tsv with a header, .parquet, .ndjson, or .npz with arrays x, y, entity.
        log: how it is read.
        rows: rows per rank and step.
        ranks: number of ranks.
        figure: where to draw the batch means (PNG); default: <file>-batches.png here.
    """
    whole(rows, "rows")
    whole(ranks, "ranks")
    target = Path(figure or f"{Path(file).stem}-batches.png")
    check_writable(target.parent, "figure")
    found_log = read(file, log)
    found = inspected(found_log, log, rows, ranks)
    png = batch_means(found)
    print("\n".join(found_log.notes), "", inspection_table(found), sep="\n")
    write_figure(target, png)
    print(f"Drawn: {target}")
