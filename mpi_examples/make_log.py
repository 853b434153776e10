"""Writes a click log to try things on: the main job's synthetic request log, sorted by user, as text with a header.

python mpi_examples/make_log.py clicks.csv
"""

from __future__ import annotations

import sys

import numpy as np

from syncbn_sim import data


def main() -> None:
    """20,000 impressions of some 1,500 users."""
    file = sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: make_log.py FILE.csv")
    log = data.request_log(20_000, 10, seed=0).train
    names = ["user_id", "click", *(f"f{k}" for k in range(log.x.shape[1]))]
    rows = np.column_stack([log.entity, log.y, log.x])
    np.savetxt(file, rows, delimiter=",", header=",".join(names), comments="", fmt="%g")
    print(f"{file}: {len(rows):,} rows of {log.entity.max() + 1:,} users, sorted by user_id; the label is click")


if __name__ == "__main__":
    main()
