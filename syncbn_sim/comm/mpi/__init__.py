"""Ranks as MPI processes: how they start, talk, wait asleep, are looked after, and end. The only importer of mpi4py."""
