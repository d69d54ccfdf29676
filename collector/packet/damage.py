"""What stops the reading of a capture."""

from __future__ import annotations


class DamageError(Exception):
    """A capture stops making sense at a byte. What was read before it is good and has been handed over.

    Attributes:
        offset: byte in the file; in the decompressed stream if the file is gzip.
        reason: what is wrong there.
    """

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"at byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason
