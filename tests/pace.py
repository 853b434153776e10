"""How slow this machine is just now. Limits in seconds are those of one whose small NumPy call takes `CALL`."""

import time

import numpy as np

CALL = 0.4e-6


def slower(calls: int = 200_000) -> float:
    """How many times slower than that, from 1 to 3: some machines are half as fast from one minute to the next."""
    row, start = np.ones(16), time.process_time()
    for _ in range(calls):
        row + row
    return float(np.clip((time.process_time() - start) / calls / CALL, 1, 3))
