"""`make bench`: how fast it is, side by side with others, and what it should reach. Writes RESULTS.md and the figures beside it."""
