"""How ranks talk. Knows no statistics."""

from . import schedules
from .base import Communicator
from .launch import launch
from .ledger import LedgerCommunicator
from .serial import SerialCommunicator

__all__ = ["Communicator", "LedgerCommunicator", "SerialCommunicator", "launch", "schedules"]
