"""Errors of the layers below as failures of a command: each kind has one exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from api.cli.outcome import Code, CommandError

_OURS = ("api", "dashboards", "analytics", "collector")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the layers below raise into CommandError; bugs pass through."""
    try:
        yield
    except CommandError:
        raise
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        raise known from error


def _known(error: Exception) -> CommandError | None:
    # Imported here: by the time something has been raised, its module is loaded and this costs nothing.
    from api.control import StandbyError
    from collector.settings import ConfigError
    from collector.store import StoreError

    if isinstance(error, ConfigError):
        return CommandError(Code.USAGE, str(error), kind="config")
    if isinstance(error, StandbyError):
        return CommandError(Code.DATA, str(error), kind="standby")
    if isinstance(error, StoreError):
        return CommandError(Code.UNREACHABLE if error.retryable else Code.DATA, str(error), kind="store")
    if isinstance(error, ConnectionError | TimeoutError):
        return CommandError(Code.UNREACHABLE, str(error) or type(error).__name__, kind="connection")
    if isinstance(error, PermissionError):
        return CommandError(Code.UNREACHABLE, str(error), kind="permission")
    if isinstance(error, OSError):
        return CommandError(Code.DATA, str(error), kind="file")
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] not in _OURS:
        return CommandError(
            Code.USAGE,
            f"this command needs {error.name}, which is not installed",
            kind="not_installed",
            hint="Install the server's packages: pip install 'tailsight[server]'",
        )
    return None
