"""A program's dictionary file, followed while it grows: what the small numbers in its slots stand for."""

from __future__ import annotations

import json
from pathlib import Path

from tailsight_probe import layout

from collector.keys import hash64


class RingDictionary:
    """The texts of one process: `texts[kind][code]`.

    A line without its newline is being written and is left for the next `refresh`; a line that is not
    `[kind, code, text]` is skipped and counted in `bad_lines`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, dict[int, str]] = {kind: {} for kind in layout.KINDS}
        self.texts["clock"][layout.MONOTONIC] = "monotonic"
        self.service = ""
        self.label_sets: dict[int, int] = {0: 0}  # labels code -> hash64("labels", canonical JSON)
        self.new_labels: list[tuple[int, str]] = []  # (label set, JSON) not handed out yet
        self.bad_lines = 0
        self._read = 0

    def refresh(self) -> bool:
        """Read what was appended. True when there was something."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return False  # not there yet, or taken away: slots that need it are refused, not guessed
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._learn(line)
        return bool(whole)

    def take_labels(self) -> list[tuple[int, str]]:
        """Label sets seen for the first time since the last call."""
        new, self.new_labels = self.new_labels, []
        return new

    def _learn(self, line: bytes) -> None:
        try:
            kind, code, text = json.loads(line)
            whole = kind in self.texts and isinstance(code, int) and isinstance(text, str)
        except (ValueError, TypeError):
            whole = False
        if not whole:
            self.bad_lines += 1
            return
        if kind == "service":
            self.service = text
        if kind == "labels" and code not in self.texts["labels"]:
            name = hash64("labels", text)
            self.label_sets[code] = name
            self.new_labels.append((name, text))
        self.texts[kind][code] = text
