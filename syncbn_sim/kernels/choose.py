"""Which steps layers take: compiled ones where numba is installed, else NumPy's."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any

from ..comm.mpi.start import world_size
from ..errors import check_choice
from ..functional import steps as numpy_steps

VARIABLE = "SYNCBN_SIM_KERNELS"


@cache
def steps() -> Any:
    """The module with the four steps: `kernels.compiled`; without a numba that compiles or if so set `functional.steps`.

    Importing numba takes a while, so it is done here, when the first layer asks.

    Raises:
        ArgumentError: the variable is set to something else than numpy or numba.
    """
    wanted = os.environ.get(VARIABLE, "numba")
    check_choice(VARIABLE, wanted, ("numba", "numpy"))
    if wanted == "numpy":
        return numpy_steps
    try:
        from . import compiled, compiler, warm
    except Exception as error:
        # whatever a numba says that does not go with this NumPy or this Python; only one that is not there needs no word
        if not (isinstance(error, ModuleNotFoundError) and error.name in ("numba", None)):
            message = f"numba cannot be imported ({error}): NumPy takes its place. Mend it, or set {VARIABLE}=numpy."
            warnings.warn(message, stacklevel=2)
        return numpy_steps
    if not compiler.COMPILES:  # NUMBA_DISABLE_JIT=1, to look into the loops: they would take minutes
        return numpy_steps
    if world_size() not in (None, 1):
        warm.warm_once()
    return compiled
