"""DIR/demo/truth: the coefficients of each run, for the back office that applies them and the checker. Nobody else.

Files are 0600 in a folder that is 0700, one per run, which stays when the run has ended.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from api.demo.outcome_rule import OutcomeRule, draw_rule

FOLDER = "truth"


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker reads: the run (when it began, CLOCK_REALTIME ns), its seed, its rule."""

    run: int
    seed: int
    rule: OutcomeRule
    usual_per_s: float


def settled(folder: Path, run: int, seed: int | None, usual_per_s: float) -> Truth:
    """The run's truth: drawn at its first start, read again at each further one. Without `seed` nobody can know it."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.chmod(0o700)
    file = place / f"outcomes-{run}.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Truth)
    drawn = secrets.randbits(63) if seed is None else seed
    truth = Truth(run=run, seed=drawn, rule=draw_rule(drawn), usual_per_s=usual_per_s)
    draft = file.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(msgspec.json.encode(truth))
    draft.replace(file)
    return truth


def read_all(folder: Path) -> list[Truth]:
    """Every run's truth, oldest first: for the checker."""
    found = [msgspec.json.decode(file.read_bytes(), type=Truth) for file in (folder / FOLDER).glob("outcomes-*.json")]
    return sorted(found, key=lambda truth: truth.run)
