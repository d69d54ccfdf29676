"""Queues and the tail: what waiting costs at which depth, whether the figures can be true, and how much more fits."""
