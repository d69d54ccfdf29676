"""Why the slowest messages of a path are slow: which stage, who they are, and what differs from before."""
