"""The messages of one all-reduce, recorded as they are sent: rounds are virtual time on a link on which a message takes one second."""

from __future__ import annotations

from ..arrays import Array
from ..comm.lockstep import run
from ..comm.schedules import schedule_named
from .links import Link
from .virtual_time import Clock, ClockCommunicator, Sent, Traffic

A_SECOND_EACH = Link(1.0, 0.0, "counts rounds")


def record(name: str, ranks: int, array: Array) -> list[Sent]:
    """All messages of one all-reduce of `array` over lockstep ranks, by round, for a table or a picture.

    A rank takes one round a send, a receive, or a sendrecv, and waits for its messages.

    Raises:
        ArgumentError: an unknown schedule.
    """
    sent: list[Sent] = []
    traffic = Traffic(A_SECOND_EACH, schedule_named(name), sent)
    everybody = range(ranks)
    run(
        lambda comm: comm.allreduce(array),
        ranks,
        view=lambda comm: ClockCommunicator(comm, Clock(1.0, None), traffic, everybody),
    )
    return sorted(sent, key=lambda m: (m.round, m.source, m.dest))
