"""The quality of feeds: what each line of a channel lost, repeated, reordered, and what was left after arbitration."""
