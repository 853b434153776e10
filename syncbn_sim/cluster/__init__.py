"""What synchronisation costs on a cluster: links, closed forms, virtual time."""

from .closed_forms import allreduce_seconds
from .links import LINKS, Link, Topology, link_named
from .recorded import record
from .virtual_time import simulate

__all__ = ["LINKS", "Link", "Topology", "allreduce_seconds", "link_named", "record", "simulate"]
