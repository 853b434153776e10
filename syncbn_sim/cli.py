"""The command `syncbn-sim`."""

from __future__ import annotations

import sys
from pathlib import Path

from .data.own_log import Source, read_log
from .errors import SyncBNError
from .experiments.inspect_log import inspect
from .report.progress import reading
from .report.text import inspection_table


def main() -> None:
    """Reads the command line and runs what it names."""
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(
            {"inspect-log": inspect_log, "version": version}, description="Look inside batch normalisation over ranks."
        )
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
    except SyncBNError as error:
        sys.exit(f"syncbn-sim: {error}")


def inspect_log(
    file: str,
    /,
    entity: str,
    label: str = "",
    rows: int = 32,
    ranks: int = 8,
    features: tuple[str, ...] = (),
    missing: str = "refuse",
    width: int = 32,
    delimiter: str = ",",
    figure: str = "",
) -> None:
    """Measures how alike the rows of one entity are, and what that leaves of a local batch. Trains nothing.

    Args:
        file: .csv with a header, or .npz with arrays x, y, entity.
        entity: column of the key by which rows belong together (user, session, site).
        label: column that a model would predict; it is left out of the features.
        rows: rows a rank and step.
        ranks: number of ranks.
        features: columns to measure, separated by commas or spaces; default: all but dates and identifiers.
        missing: "refuse" or "impute" missing values.
        width: columns for a text feature.
        delimiter: between fields.
        figure: where to draw the batch means (PNG); default: <file>-batches.png here.
    """
    chosen = tuple(name for part in features for name in part.split(",") if name)
    with reading(file) as on_bytes:
        log = read_log(Source(file, label, entity, chosen, missing, width, delimiter), on_bytes)
    found = inspect(log.x, log.names, log.entity, entity or "entity", rows, ranks)
    from .report.plots import batch_means

    target = Path(figure or f"{Path(file).stem}-batches.png")
    png = batch_means(found)
    print("\n".join(log.notes), "", inspection_table(found), sep="\n")
    target.write_bytes(png)
    print(f"Drawn: {target}")


def version() -> None:
    """Prints the version."""
    from . import __version__

    print(__version__)
