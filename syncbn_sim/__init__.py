"""syncbn-sim."""
