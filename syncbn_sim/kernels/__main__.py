"""Compiles the loops, once for all processes to come: `python -m syncbn_sim.kernels`, the last step of an installation."""

import time

from .choose import steps

if __name__ == "__main__":
    start, found = time.perf_counter(), steps()
    if found.__name__.endswith("compiled"):
        from .warm import warm_once

        if warm_once():
            print(f"compiled loops are ready ({time.perf_counter() - start:.1f} s)")
        else:
            print("no place on disk for compiled loops: each process compiles its own (or set NUMBA_CACHE_DIR)")
    else:
        print('no numba that compiles: layers take NumPy\'s steps (pip install "syncbn-sim[fast]" for compiled ones)')
