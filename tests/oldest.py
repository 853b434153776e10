"""Prints the oldest versions that pyproject.toml promises, as requirements for pip: what `make test-oldest` installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

EXTRAS = (
    "mpi",
    "data",
    "plots",
    "cli",
    "lockstep",
    "fast",
)  # what the package runs on; tools that only test it may be new

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
bounds = {*project["dependencies"], *(bound for extra in EXTRAS for bound in project["optional-dependencies"][extra])}
print("\n".join(sorted(bound.replace(">=", "==") + ".*" for bound in bounds)))
