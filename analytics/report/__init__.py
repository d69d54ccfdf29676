"""The executive report: what a period's latency was, what it cost, how sure that is, and what to fund."""
