"""A layer that talks: its communicator, and the name by which its calls are told from those of other layers."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from ..comm.base import Communicator, check_communicator
from ..comm.calls import Speaker
from ..comm.serial import SerialCommunicator
from ..errors import ArgumentError
from .module import Module


class Talker:
    """Stands before a layer class and adds a communicator, and with it a number: the how-manieth layer the communicator was given to.

    Every rank must build its layers in one order. Ranks then see when they meet in the sums of two layers, which would fit each other
    wherever the layers are equally wide.

    Args: those of the layer, and comm, the ranks to share statistics with (default: this rank alone).

    Attributes:
        speaks: `with self.speaks:` goes around every call of this layer.
    """

    speaks: Speaker
    __signature__: ClassVar[inspect.Signature | None]

    def __init__(self, *args: Any, comm: Communicator | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.comm = SerialCommunicator() if comm is None else comm

    def __init_subclass__(cls) -> None:
        """Lets help() show the layer's arguments, which are written down once, where the layer is; refuses to stand behind it."""
        super().__init_subclass__()
        order = cls.__mro__
        if Module in order and order.index(Module) < order.index(Talker):
            got = "the layer before SharedSums, whose sums over the ranks would never be asked"
            do = f"Write class {cls.__name__}(nn.SharedSums, ...)."
            raise ArgumentError(f"class {cls.__name__}", got=got, expected="SharedSums first", do=do)
        cls.__signature__ = None
        if cls.__init__ is Talker.__init__:
            _, *arguments = inspect.signature(super().__init__).parameters.values()
            comm = inspect.signature(Talker.__init__).parameters["comm"]
            cls.__signature__ = inspect.Signature(sorted([*arguments, comm], key=lambda each: each.kind))

    @property
    def comm(self) -> Communicator:
        """The ranks to share statistics with."""
        return self._comm

    @comm.setter
    def comm(self, comm: Communicator) -> None:
        check_communicator(comm)
        comm.layers += 1
        self._comm, self.speaks = comm, Speaker(f"{type(self).__name__} {comm.layers}")

    @comm.deleter
    def comm(self) -> None:
        del self._comm, self.speaks
