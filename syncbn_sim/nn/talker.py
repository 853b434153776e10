"""A layer that talks: its communicator, and the name by which its calls are told from those of other layers."""

from __future__ import annotations

from ..comm.base import Communicator
from ..comm.calls import Speaker


class Talker:
    """Has a communicator, and with it a number: the how-manieth layer it is that this communicator was given to.

    Every rank must build its layers in one order. Ranks then see when they meet in the sums of two layers, which would fit each other
    wherever the layers are equally wide.

    Attributes:
        speaks: `with self.speaks:` goes around every call of this layer.
    """

    speaks: Speaker

    @property
    def comm(self) -> Communicator:
        """The ranks to share statistics with."""
        return self._comm

    @comm.setter
    def comm(self, comm: Communicator) -> None:
        comm.layers += 1
        self._comm, self.speaks = comm, Speaker(f"{type(self).__name__} {comm.layers}")

    @comm.deleter
    def comm(self) -> None:
        del self._comm, self.speaks
