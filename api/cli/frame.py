"""What every command shares: `--data`, `--config` and `--json`, one way to answer, one way to fail.

A command is a function of a `Run` and its own options that returns an `Answer` or raises. `command` registers it and
adds the shared options, so that they may stand before or after the command's name. Standard output carries the answer
and nothing else; progress, logs and errors for people go to standard error; with `--json` an error is an object on
standard output too.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.outcome import Answer, Code, CommandError
from api.cli.translate import translated

if TYPE_CHECKING:
    from rich.console import Console

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Data directory (default: $TAILSIGHT_DATA, else ./data)"),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (default: DIR/tailsight.toml)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@dataclass(frozen=True, slots=True)
class Run:
    """What the shared options say."""

    data: Path
    config: Path | None
    json: bool

    @property
    def config_file(self) -> Path | None:
        """The configuration file in force, None when there is none (all defaults)."""
        if self.config is not None:
            return self.config
        default = self.data / "tailsight.toml"
        return default if default.exists() else None

    def document(self) -> dict[str, Any]:
        """The parsed configuration. Raises ConfigError."""
        from collector.settings import read_toml

        return read_toml(self.config_file) if self.config_file else {}

    @property
    def source(self) -> str:
        """The configuration file's name for error messages."""
        return str(self.config_file or "")

    def stderr(self) -> Console:
        """Where progress and remarks go; silent about nothing, but never in the way of the answer."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.json)


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...] = (), group: bool = False
) -> Callable[[Callable[..., Answer]], Any]:
    """Register a function as the command `name` of `app`; its docstring and `examples` are its help.

    With `group` it is what `app` itself does when none of its commands is named.
    """

    def register(function: Callable[..., Answer]) -> Any:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def wrapper(ctx: typer.Context, *, data: Path | None, config: Path | None, json: bool, **options: Any) -> None:
            shared: Shared = ctx.obj
            ctx.obj = shared = Shared(data or shared.data, config or shared.config, json or shared.json)
            if ctx.invoked_subcommand is not None:
                return
            where = shared.data or Path(os.environ.get("TAILSIGHT_DATA") or "data")
            run = Run(where, shared.config, shared.json)
            with translated():
                answer = function(run, **options)
            raise typer.Exit(deliver(answer, run.json))

        keyword = inspect.Parameter.KEYWORD_ONLY
        shared_options = [
            inspect.Parameter("data", keyword, default=None, annotation=DataOption),
            inspect.Parameter("config", keyword, default=None, annotation=ConfigOption),
            inspect.Parameter("json", keyword, default=False, annotation=JsonOption),
        ]
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(p.replace(kind=keyword) for p in own),
            *shared_options,
        ]
        # typer reads the signature; the wrapper has one of its own that it must not see.
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        del wrapper.__wrapped__
        epilog = "\n\n".join(("Examples:", *examples)) if examples else None
        text = inspect.getdoc(function)
        if group:
            return app.callback(invoke_without_command=True, help=text, epilog=epilog)(wrapper)
        return app.command(name, help=text, epilog=epilog)(wrapper)

    return register


@dataclass(slots=True)
class Shared:
    """The shared options as given before the command's name."""

    data: Path | None = None
    config: Path | None = None
    json: bool = False


def deliver(answer: Answer, as_json: bool) -> Code:
    """Print the answer, and say how the command ended."""
    if as_json:
        sys.stdout.write(to_json(answer.value) + "\n")
    elif answer.show is not None:
        from rich.console import Console

        # Piped into a file, a table is as wide as it wants to be.
        answer.show(Console(width=None if sys.stdout.isatty() else 200, highlight=False))
    sys.stdout.flush()
    return answer.code


def fail(error: CommandError, as_json: bool) -> Code:
    """Print a failure where its reader looks for it."""
    if as_json:
        body = {"kind": error.kind, "message": str(error), "exit_code": int(error.code)}
        if error.hint:
            body["hint"] = error.hint
        sys.stdout.write(to_json({"error": body}) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(f"tailsight: {error}\n" + (f"  {error.hint}\n" if error.hint else ""))
    return error.code


def to_json(value: Any) -> str:
    """JSON of plain values, structs, dataclasses, paths and numpy scalars; NaN becomes null."""
    import msgspec

    def plain(other: Any) -> Any:
        if isinstance(other, Path):
            return str(other)
        if hasattr(other, "item"):  # numpy scalars
            return other.item()
        raise TypeError(f"cannot write {type(other).__name__} as JSON")

    return msgspec.json.format(msgspec.json.encode(value, enc_hook=plain), indent=2).decode()
