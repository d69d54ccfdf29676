"""Follows files of JSON lines: what programs write about their messages becomes events."""
