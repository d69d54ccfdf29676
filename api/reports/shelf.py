"""DIR/reports: one folder per report with its files and `about.json`, put there whole or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from analytics.report.value import Report
from dashboards.report.files import Format

ID = re.compile(r"[a-z][a-z0-9_-]{0,31}\.[0-9]{8}T[0-9]{4}Z\.[0-9]{1,4}h")
_MOST_BYTES = 64 << 20


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of reports says of one. `policy` is what its HTML may do in a browser."""

    id: str
    name: str
    title: str
    period: str
    from_ns: int
    to_ns: int
    made_ns: int
    made_by: str
    formats: tuple[Format, ...]
    bytes: dict[Format, int]
    headline: tuple[str, ...]
    policy: str = ""


class Shelf:
    """The reports of one data directory. Safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(
        self, name: str, report: Report, files: Mapping[Format, bytes], *, made_by: str, policy: str, keep: int
    ) -> About:
        """Keep a report under its id, in place of one that has it; of this name the newest `keep` stay."""
        about = About(
            id=id_of(name, report.from_ns, report.to_ns), name=name, title=report.title, period=report.asked,
            from_ns=report.from_ns, to_ns=report.to_ns, made_ns=report.made_ns, made_by=made_by,
            formats=tuple(files), bytes={kind: len(data) for kind, data in files.items()}, headline=report.headline,
            policy=policy,
        )  # fmt: skip
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=self.folder))
        try:
            for kind, data in files.items():
                (work / f"report.{kind}").write_bytes(data)
            (work / "about.json").write_bytes(msgspec.json.encode(about))
            place = self.folder / about.id
            if place.exists():
                # Aside first: whoever reads meanwhile sees the old report, none, or the new one, and never a mixture.
                place.rename(work / "before")
            work.rename(place)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(place / "before", ignore_errors=True)
        for old in [one for one in self.all() if one.name == name][keep:]:
            shutil.rmtree(self.folder / old.id, ignore_errors=True)
        return about

    def all(self) -> list[About]:
        """All reports, the newest period first. What cannot be read is no report."""
        found = []
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if ID.fullmatch(place.name):
                try:
                    found.append(msgspec.json.decode((place / "about.json").read_bytes(), type=About))
                except (OSError, msgspec.MsgspecError):
                    continue
        return sorted(found, key=lambda one: (-one.to_ns, -one.made_ns, one.id))

    def get(self, report_id: str) -> About:
        """One report. Raises KeyError when there is none with this id."""
        if not ID.fullmatch(report_id):
            raise KeyError(report_id)
        try:
            return msgspec.json.decode((self.folder / report_id / "about.json").read_bytes(), type=About)
        except (OSError, msgspec.MsgspecError):
            raise KeyError(report_id) from None

    def read(self, report_id: str, kind: Format) -> bytes:
        """A file of a report. Raises KeyError when there is none."""
        about = self.get(report_id)
        if kind not in about.formats:
            raise KeyError(f"{report_id} as {kind}")
        try:
            with (self.folder / report_id / f"report.{kind}").open("rb") as file:
                return file.read(_MOST_BYTES)
        except OSError:
            raise KeyError(report_id) from None


def id_of(name: str, from_ns: int, to_ns: int) -> str:
    """`weekly.20261116T0000Z.168h`: the name, the end of the period and its length in hours."""
    from analytics.report.words import moment

    stamp = moment(to_ns).replace("-", "").replace(" ", "T").replace(":", "") + "Z"
    return f"{name}.{stamp}.{(to_ns - from_ns) // 3_600_000_000_000}h"
