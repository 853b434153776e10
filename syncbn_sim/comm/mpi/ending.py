"""How a job of MPI processes ends when one of them cannot go on: with its words, and all at once."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import NoReturn

from ...errors import CollectiveMismatchError, DataError

GRACE = 2.0  # seconds in which the other ranks can speak before the job is ended


def say(text: str) -> None:
    """Writes whole lines to stderr in one call, so that lines of several ranks do not mix."""
    os.write(2, (text.rstrip() + "\n").encode())


def end_job() -> NoReturn:
    """Ends every process of the job, or, before MPI has started, this one."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.COMM_WORLD.Abort(1)
    # Abort may return before it has ended this process, and nobody above should speak again.
    os._exit(1)


def end_all_on_uncaught_errors(name: str) -> None:
    """From now on an uncaught error of this process ends the job: it would wait in MPI_Finalize for the others, and they for it."""
    sys.excepthook = lambda kind, error, trace: abort_with_traceback(name, error)


def abort_with_traceback(name: str, error: BaseException) -> NoReturn:
    """Prints this rank's traceback, each line with the rank's name, and ends every process of the job.

    Of a mismatch that several ranks have found, one tells; the others speak only if that one should not.
    """
    if isinstance(error, CollectiveMismatchError) and error.told_elsewhere:
        time.sleep(GRACE)
    # What is wrong with a user's file needs no stack; everything else does.
    told = str(error) if isinstance(error, DataError) else "".join(traceback.format_exception(error))
    say("\n".join(f"[{name}] {line}" for line in told.splitlines()))
    # The process manager passes our words on in its own time, and Abort could overtake them.
    time.sleep(0.1)
    end_job()
