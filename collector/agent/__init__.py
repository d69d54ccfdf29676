"""The agent: one per host. It runs the collectors that its permissions allow, spools what they take, and ships it."""
