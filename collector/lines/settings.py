"""`[agent.lines]`: which files are followed, and within which bounds."""

from __future__ import annotations

from collector.settings import ConfigError, Section, duration_ns

_LONGEST = 131_072


class Files(Section, frozen=True, kw_only=True):
    """Some files by shell pattern; `service` and `kind` are those of lines that do not name one."""

    path: str
    service: str = ""
    kind: str = "event"

    def validate(self) -> None:
        """Raise ConfigError when the pattern is not absolute: an agent has no folder that one could mean."""
        if not self.path.startswith("/") or "\0" in self.path:
            raise ConfigError("path", f"{self.path!r} must be an absolute path; *, ? and [...] match names")
        for name in ("service", "kind"):
            if len(getattr(self, name)) > 200:
                raise ConfigError(name, "has more than 200 characters")


class LinesSettings(Section, frozen=True, kw_only=True):
    """The collector's section. Bytes; limits are of all files together unless they say otherwise."""

    files: tuple[Files, ...] = ()
    max_line_bytes: int = 65_536  # a longer line is dropped and counted
    max_files: int = 256  # open at once; of more the ones changed last are followed
    settle: str = "10s"  # how long a file that was rotated away must be still before it is let go of
    attributes: int = 128  # of one line
    max_past: str = "10d"  # lines older than this are rejected, as the server would
    max_future: str = "60s"

    def validate(self) -> None:
        """Raise ConfigError for patterns, durations and limits that make no sense, naming the field."""
        for index, files in enumerate(self.files):
            try:
                files.validate()
            except ConfigError as error:
                raise ConfigError(f"files[{index}].{error.field}", error.problem) from error
        if len({files.path for files in self.files}) != len(self.files):
            raise ConfigError("files", "names a path twice")
        if not 1_024 <= self.max_line_bytes <= _LONGEST:
            raise ConfigError("max_line_bytes", f"{self.max_line_bytes} must lie in 1024..{_LONGEST}")
        if not 1 <= self.max_files <= 4_096:
            raise ConfigError("max_files", f"{self.max_files} must lie in 1..4096")
        if self.attributes < 1:
            raise ConfigError("attributes", f"{self.attributes} must be at least 1")
        for name in ("settle", "max_past", "max_future"):
            duration_ns(getattr(self, name), name)
