"""`python -m syncbn_sim` is the command `syncbn-sim`."""

from .cli import main

if __name__ == "__main__":
    main()
