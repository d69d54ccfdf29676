"""When something changed: in percentiles, counts, the mix of the input and scores, and what was done at that time."""
