"""`python -m collector.agent`: the agent's process. `tailsight agent` becomes it once the configuration has been read.

It imports nothing of the command line: the agent lives beside the observed programs and stays small.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import msgspec

from collector import log
from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings, agent_body
from collector.settings import ConfigError, read_toml, section
from collector.spool.fs import LockedError

CANNOT_START = 3  # as every command's "cannot reach"


def main(argv: list[str]) -> int:
    """Run the agent until SIGTERM or SIGINT.

    Returns the exit status: 0 all sent, 1 some is left in the spool, 2 wrong configuration, 3 it cannot start.
    """
    parser = argparse.ArgumentParser(prog="tailsight agent")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--server")
    parser.add_argument("--token-file")
    parser.add_argument("--otlp")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    log.configure()
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        # A thread sets the event: the signal may have interrupted this thread inside the event's own lock.
        threading.Thread(target=stop.set, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        settings = settings_of(given.config, given.server, given.token_file, given.otlp)
        code = run_agent(settings, given.data, stop)
    except ConfigError as error:
        sys.stderr.write(f"tailsight: {error}\n")
        return 2
    except (LockedError, OSError) as error:
        sys.stderr.write(f"tailsight: {error}\n")
        return CANNOT_START
    if given.json:
        sys.stdout.write(json.dumps({"exit_code": code}) + "\n")
    return 1 if code else 0


def settings_of(
    config: Path | None, server: str | None, token_file: str | None, otlp: str | None = None
) -> AgentSettings:
    """The `[agent]` section of a file, `server` and `token_file` put over it.

    `otlp` (host:port) adds the collector of that name, which takes HTTP there and nothing else. Raises ConfigError.
    """
    document = read_toml(config) if config else {}
    body = agent_body(document, str(config or ""))
    given = {"server": server, "token_file": token_file}
    body |= {name: value for name, value in given.items() if value is not None}
    settings = section(body, AgentSettings, "agent", str(config or ""))
    if otlp is None:
        return settings
    collectors = tuple(dict.fromkeys((*settings.collectors, "otlp")))
    door = msgspec.structs.replace(settings.otlp, http=otlp, grpc="")
    listening = msgspec.structs.replace(settings, collectors=collectors, otlp=door)
    return section(msgspec.to_builtins(listening), AgentSettings, "agent", "--otlp")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
