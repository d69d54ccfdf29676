"""The store and the paths of the data directory, opened for one command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.cli.frame import Run
from api.cli.outcome import Code, CommandError

if TYPE_CHECKING:
    from analytics.learned import LearnedPath
    from analytics.paths import Path as LatencyPath
    from analytics.window_settings import WindowSettings
    from collector.store import Store
    from collector.store.settings import StoreSettings


@contextmanager
def opened(run: Run, *, create: bool = False) -> Iterator[Store]:
    """The store: the running process's when there is one, else our own for the length of the command.

    Without `create`, a directory that holds no store is refused instead of being made into an empty one.
    """
    from collector.store.connect import connect

    if not create and not has_store(run):
        raise CommandError(
            Code.UNREACHABLE,
            f"there is no store in {run.data}",
            kind="no_store",
            hint="Start one with `tailsight up`, or name another directory with --data DIR.",
        )
    store = connect(_settings(run), run.data)
    try:
        if create:
            migrated(run, store)
        yield store
    finally:
        store.close()


def has_store(run: Run) -> bool:
    """Whether there is a store already: a directory of our own, or servers."""
    return bool(_settings(run).hosts) or (run.data / "store").is_dir()


def migrated(run: Run, store: Store) -> None:
    """Bring the store's schema to this version."""
    from collector.settings import section
    from collector.store.schema import Retention, migrate

    migrate(store, section(run.document().get("retention", {}), Retention, "retention", run.source))


def declared_paths(run: Run) -> Mapping[str, LatencyPath]:
    """The paths of the configuration in force."""
    from analytics.probe_paths import declared_paths as declared
    from collector.points import points_from

    document = run.document()
    return declared(document, points_from(document, run.source), run.source)


def learned_paths(run: Run) -> Mapping[str, LearnedPath]:
    """The paths that were learned from what arrived; none without a store."""
    from analytics.learned import load

    if not has_store(run):
        return {}
    with opened(run) as store:
        return load(store)


def path_or_name(run: Run, name: str) -> LatencyPath | str:
    """The declared or learned path, or the name itself for one that is only in the store (imported logs)."""
    declared = declared_paths(run)
    if name in declared:
        return declared[name]
    learned = learned_paths(run).get(name) if name.startswith(("otel:", "metric:")) else None
    return name if learned is None else learned.path


def path_named(run: Run, name: str) -> LatencyPath:
    """One declared path. Raises CommandError with the names there are."""
    path = path_or_name(run, name)
    if isinstance(path, str):
        raise unknown_path(run, name)
    return path


def unknown_path(run: Run, name: str) -> CommandError:
    """The error for a path that is neither declared nor stored."""
    known = ", ".join(sorted(declared_paths(run))) or "none"
    where = run.source or f"{run.data}/tailsight.toml (which does not exist)"
    return CommandError(
        Code.USAGE,
        f"no path is called {name!r}; declared are: {known}",
        kind="unknown_path",
        hint=f"Paths are declared under [paths.NAME] in {where}.",
    )


def window_settings(run: Run) -> WindowSettings:
    """`[windows]` of the configuration."""
    from analytics.window_settings import WindowSettings
    from collector.settings import section

    return section(run.document().get("windows", {}), WindowSettings, "windows", run.source)


def _settings(run: Run) -> StoreSettings:
    from collector.settings import section
    from collector.store.settings import StoreSettings

    return section(run.document().get("store", {}), StoreSettings, "store", run.source)
