"""How alike rows are, and what that leaves of a batch."""
