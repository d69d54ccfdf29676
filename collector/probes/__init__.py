"""Synthetic checks: the agent opens connections at an intended rate and stamps their phases."""
