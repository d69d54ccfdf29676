"""The test language of objectives: plain text that says what happens and what has to come of it.

    load checkout.yaml events order-latency from -3d to 0s 100/s events order-latency from 0s to 10m 100/s errors 15%
    eval until 20m expect order-latency page-1h fires at 5.76m within 10s

Times are durations from the moment 0 of a case, which is a whole hour. Statements are read here and run by
`analytics.slo.rehearsal`, with the product's own evaluator. docs/slo-tests.md has every statement.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from analytics.kpis import DIMENSIONS, KpiDefinition, kpis_from
from analytics.slo.compiled import compiled
from analytics.slo.gates import GateSettings, gates_from
from analytics.slo.indicators import Kpi
from analytics.slo.objectives import Objective
from analytics.slo.openslo import Object
from analytics.slo.openslo_read import read

MAX_LINES = 20_000
MAX_SPAN_S = 400 * 86_400
MAX_TICKS = 1_000_000
MAX_VALUES = 100_000
_UNIT = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TIME = re.compile(r"([+-]?)((?:\d+(?:\.\d+)?[smhd])+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SHARE = re.compile(r"(-?\d+(?:\.\d+)?)%")
STATES = ("inactive", "pending", "firing", "acknowledged", "resolved")
ANSWERS = ("over", "under", "held", "insufficient")


class ScenarioError(ValueError):
    """A statement cannot be read; the message has file and line."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Events of one objective at a constant rate, a share of them bad."""

    objective: str
    start: Fraction
    end: Fraction
    per_s: Fraction
    bad: Fraction


@dataclass(frozen=True, slots=True)
class Values:
    """Values of a business measure, one per `every` in [start, end): each comes `late` after its interval's end, or
    all of them come `at` a moment; what comes later replaces what was there."""

    kpi: str
    start: Fraction
    end: Fraction
    every: Fraction
    value: float
    weight: float
    late: Fraction = Fraction(0)
    at: Fraction | None = None
    of: tuple[str, str, str, str] = ("", "", "", "")  # cohort, channel, region, offer


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which a share of the events did not arrive (`missing`), or nothing was counted (`stall`), or the
    objective's calendar was closed (`closed`; objective '' means all)."""

    kind: str
    start: Fraction
    end: Fraction
    share: Fraction = Fraction(0)
    objective: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """Something done at a moment: restart, acknowledge, or the clock set by `by_s`."""

    kind: str
    at: Fraction
    objective: str = ""
    rule: str = ""
    who: str = ""
    by_s: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What has to be true. `at` None: of the whole case."""

    line: int
    text: str
    kind: str
    objective: str = ""
    rule: str = ""
    at: Fraction | None = None
    word: str = ""
    window_s: int = 0
    op: str = ""
    value: float = 0.0
    within: float = 0.0


@dataclass(slots=True)
class Case:
    """One case: traffic, gaps, actions, how long to run, what to expect."""

    name: str
    line: int
    traffic: list[Traffic] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    until: Fraction | None = None
    tick_s: int = 10


@dataclass(frozen=True, slots=True)
class Scenario:
    """A test file: its objectives, its business measures and gates, and its cases."""

    file: str
    objectives: tuple[Objective, ...]
    cases: tuple[Case, ...]
    kpis: Mapping[str, KpiDefinition] = field(default_factory=dict)
    gates: Mapping[str, GateSettings] = field(default_factory=dict)


def seconds(text: str) -> Fraction:
    """A time such as `-3d`, `5.76m` or `14m31.2s`, exact. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time; write 10s, 5.76m, 1h30m, -3d")
    total = sum((Fraction(n) * _UNIT[u] for n, u in _PART.findall(match[2])), Fraction(0))
    if total > MAX_SPAN_S:
        raise ValueError(f"{text} is longer than {MAX_SPAN_S // 86_400} d")
    return -total if match[1] == "-" else total


def parse(text: str, file: str, load: Callable[[str], str]) -> Scenario:
    """Read a test file; `load` gives the text of a file that it names. Raises ScenarioError."""
    reader = _Reader(file, load)
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise ScenarioError(f"{file}: more than {MAX_LINES} lines")
    for number, raw in enumerate(lines, 1):
        words = raw.split("#", 1)[0].split()
        if words:
            try:
                reader.statement(number, words)
            except ValueError as error:
                raise ScenarioError(f"{file}:{number}: {error}") from error
    return reader.done()


class _Reader:
    def __init__(self, file: str, load: Callable[[str], str]) -> None:
        self.file, self.load = file, load
        self.objects: list[Object] = []
        self.names: set[tuple[str, str]] = set()
        self.cases: list[Case] = []
        self.kpis: dict[str, KpiDefinition] | None = None
        self.gates: dict[str, GateSettings] = {}

    @property
    def case(self) -> Case:
        if not self.cases:
            self.cases.append(Case("", 1))
        return self.cases[-1]

    def statement(self, number: int, words: list[str]) -> None:
        head, rest = words[0], words[1:]
        match head:
            case "load":
                self._load(_exactly(rest, 1, "load FILE")[0])
            case "case":
                self.cases.append(Case(" ".join(rest), number))
            case "tick":
                self.case.tick_s = int(_positive(seconds(_exactly(rest, 1, "tick TIME")[0])))
                if self.case.tick_s % 10 or not self.case.tick_s:
                    raise ValueError("a tick is a multiple of 10s")
            case "events":
                self._events(rest)
            case "values":
                self._values(rest)
            case "missing" | "stall" | "closed":
                self._gap(head, rest)
            case "restart":
                _words(rest[:1], ["at"], "restart at TIME")
                self.case.actions.append(Action("restart", seconds(_exactly(rest, 2, "restart at TIME")[1])))
            case "clock":
                by, at, when = _exactly(rest, 3, "clock +1h at TIME")
                _words([at], ["at"], "clock +1h at TIME")
                self.case.actions.append(Action("clock", seconds(when), by_s=seconds(by)))
            case "acknowledge":
                form = "acknowledge OBJECTIVE RULE at TIME by WHO"
                one, rule, at, when, by, who = _exactly(rest, 6, form)
                _words([at, by], ["at", "by"], form)
                self.case.actions.append(Action("acknowledge", seconds(when), self._known(one), rule, who))
            case "eval":
                _words(rest[:1], ["until"], "eval until TIME")
                self.case.until = _positive(seconds(_exactly(rest, 2, "eval until TIME")[1]))
                if self.case.until / self.case.tick_s > MAX_TICKS:
                    raise ValueError(f"more than {MAX_TICKS} ticks; give a longer `tick`")
            case "expect":
                self.case.expectations.append(self._expect(number, rest))
            case _:
                known = "load case tick events values missing stall closed restart clock acknowledge eval expect"
                raise ValueError(f"{head!r} is no statement; there are {known}")

    def done(self) -> Scenario:
        for one in self.cases:
            if one.until is None:
                raise ScenarioError(f"{self.file}:{one.line}: case {one.name!r} never says `eval until TIME`")
            if not one.expectations:
                raise ScenarioError(f"{self.file}:{one.line}: case {one.name!r} expects nothing")
        if not self.cases:
            raise ScenarioError(f"{self.file}:1: there is no case in it")
        return Scenario(self.file, self._compiled(), tuple(self.cases), self.kpis or {}, self.gates)

    def _load(self, name: str) -> None:
        try:
            text = self.load(name)
        except OSError as error:
            raise ValueError(f"{name} cannot be read: {error}") from error
        if name.endswith(".toml"):
            self._configure(text, name)
            return
        found = read(text, name)
        errors = [p for p in found.problems if p.severity == "error"]
        self.objects += found.objects
        errors += compiled(self.objects, kpis=self.kpis).errors
        if errors:
            raise ValueError(str(errors[0]))

    def _configure(self, text: str, name: str) -> None:
        """Take the business measures and gates of a configuration."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{name}: {error}") from error
        self.kpis = {**(self.kpis or {}), **kpis_from(document, name)}
        self.gates |= gates_from(document, name, kpis=self.kpis)
        if errors := compiled(self.objects, kpis=self.kpis).errors:
            raise ValueError(str(errors[0]))

    def _compiled(self) -> tuple[Objective, ...]:
        return compiled(self.objects, kpis=self.kpis).objectives

    def _known(self, name: str) -> str:
        known = [one.name for one in self._compiled()]
        if name not in known:
            raise ValueError(f"there is no objective {name!r}; loaded are {', '.join(known) or 'none'}")
        return name

    def _known_rule(self, name: str, rule: str) -> str:
        for one in self._compiled():
            known = [*(r.name for r in one.rules), "blind"]
            if one.name == name and rule not in known:
                raise ValueError(f"{name} has no rule {rule!r}; it has {', '.join(known)}")
        return rule

    def _events(self, words: list[str]) -> None:
        form = "events OBJECTIVE from TIME to TIME N/s [errors N%]"
        if len(words) not in (6, 8):
            raise ValueError(f"write {form}")
        _words([words[1], words[3], *words[6:7]], ["from", "to", *(["errors"] if len(words) == 8 else [])], form)
        rate = re.fullmatch(r"(\d+(?:\.\d+)?)/([smh])", words[5])
        if rate is None:
            raise ValueError(f"{words[5]!r} is not a rate; write 100/s, 30/m or 10/h")
        start, end = _range(words[2], words[4])
        bad = _share(words[7]) if len(words) == 8 else Fraction(0)
        per_s = Fraction(rate[1]) / _UNIT[rate[2]]
        measures = [o.indicator.name for o in self._compiled() if o.name == words[0] and isinstance(o.indicator, Kpi)]
        if measures:
            raise ValueError(f"{words[0]} counts a KPI; write values {measures[0]} from ...")
        self.case.traffic.append(Traffic(self._known(words[0]), start, end, per_s, bad))

    def _values(self, words: list[str]) -> None:
        form = (
            "values KPI from TIME to TIME every TIME (value N | numerator N denominator N) [late TIME | at TIME] "
            "[cohort | channel | region | offer TEXT]"
        )
        if len(words) < 9 or len(words) % 2 == 0:
            raise ValueError(f"write {form}")
        _words([words[1], words[3], words[5]], ["from", "to", "every"], form)
        known = ", ".join(sorted(self.kpis or {})) or "none; load a .toml file with [kpis.NAME]"
        if words[0] not in (self.kpis or {}):
            raise ValueError(f"there is no KPI {words[0]!r}; loaded are {known}")
        start, end = _range(words[2], words[4])
        every = _positive(seconds(words[6]))
        if (end - start) / every > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values; give a longer `every`")
        more = dict(zip(words[7::2], words[8::2], strict=True))
        known_words = {"value", "numerator", "denominator", "late", "at", *DIMENSIONS}
        whole = {"value"} & more.keys() or {"numerator", "denominator"} <= more.keys()
        if (
            not whole
            or len(more) != (len(words) - 7) // 2
            or not more.keys() <= known_words
            or {"late", "at"} <= more.keys()
        ):
            raise ValueError(f"write {form}")
        below = _number(more["denominator"]) if "denominator" in more else 1.0
        above = _number(more["value"] if "value" in more else more["numerator"])
        if below < 0 or ("value" in more and "numerator" in more):
            raise ValueError(f"write {form}")
        value = above if "value" in more else above / below if below else 0.0
        late = seconds(more["late"]) if "late" in more else Fraction(0)
        at = seconds(more["at"]) if "at" in more else None
        of = (more.get("cohort", ""), more.get("channel", ""), more.get("region", ""), more.get("offer", ""))
        self.case.values.append(Values(words[0], start, end, every, value, below, late, at, of))

    def _gap(self, kind: str, words: list[str]) -> None:
        objective = ""
        if kind == "closed":
            if len(words) == 5:
                objective, words = self._known(words[0]), words[1:]
            form = "closed [OBJECTIVE] from TIME to TIME"
        else:
            form = f"{kind} from TIME to TIME" + (" N%" if kind == "missing" else "")
        words = _exactly(words, 5 if kind == "missing" else 4, form)
        _words([words[0], words[2]], ["from", "to"], form)
        start, end = _range(words[1], words[3])
        share = _share(words[4]) if kind == "missing" else Fraction(0)
        self.case.gaps.append(Gap(kind, start, end, share, objective))

    def _expect(self, number: int, words: list[str]) -> Expectation:
        text = " ".join(words)
        at = None
        if words[:1] == ["at"] and len(words) > 2:
            at, words = seconds(words[1]), words[2:]
        if len(words) < 2:
            raise ValueError("write expect [at TIME] OBJECTIVE ...; docs/slo-tests.md has the forms")
        if words[0] == "gate":
            return self._expect_gate(number, text, at, words[1:])
        objective = self._known(words[0])
        match words[1:]:
            case ["budget", "remaining" | "burned" as what, share, *more] if at is not None:
                value, within = float(_share(share, most=10**6)), _within_share(more)
                return Expectation(number, text, "budget", objective, at=at, word=what, value=value, within=within)
            case ["exhausted", "in", when, *more] if at is not None:
                value = float(seconds(when))
                return Expectation(number, text, "exhausted", objective, at=at, value=value, within=_within(more, 10.0))
            case [rule, "fires" | "resolves" as what, "at", when, *more] if at is None:
                rule = self._known_rule(objective, rule)
                kind, moment = "transition", seconds(when)
                return Expectation(number, text, kind, objective, rule, moment, what, within=_within(more, 10.0))
            case [rule, "never", "fires"] if at is None:
                return Expectation(number, text, "never", objective, self._known_rule(objective, rule))
            case [rule, "episodes", count] if at is None and count.isdigit():
                rule = self._known_rule(objective, rule)
                return Expectation(number, text, "episodes", objective, rule, value=float(count))
            case [rule, "is", state] if at is not None and state in STATES:
                return Expectation(number, text, "state", objective, self._known_rule(objective, rule), at, state)
            case [rule, "says", answer] if at is not None and answer in ANSWERS:
                return Expectation(number, text, "answer", objective, self._known_rule(objective, rule), at, answer)
            case [rule, "burn", window, "<" | ">" | "=" as op, value, *more] if at is not None:
                rule = self._known_rule(objective, rule)
                within = float(more[1]) if len(more) == 2 and more[0] == "within" else 1e-6
                length = int(seconds(window))
                return Expectation(number, text, "burn", objective, rule, at, "", length, op, float(value), within)
        raise ValueError(f"cannot read `expect {text}`; docs/slo-tests.md has the forms")

    def _expect_gate(self, number: int, text: str, at: Fraction | None, words: list[str]) -> Expectation:
        name = words[0]
        if name not in self.gates:
            raise ValueError(f"there is no gate {name!r}; loaded are {', '.join(sorted(self.gates)) or 'none'}")
        match words[1:]:
            case ["is", "open" | "closed" | "unknown" as word] if at is not None:
                return Expectation(number, text, "gate", name, at=at, word=word)
            case ["passes" | "refuses" as word] if at is not None:
                return Expectation(number, text, "passes", name, at=at, word=word)
            case ["never", "triggers"] if at is None:
                return Expectation(number, text, "triggers", name, value=0.0)
            case ["triggers", count] if at is None and count.isdigit():
                return Expectation(number, text, "triggers", name, value=float(count))
            case ["triggers", "at", when, *more] if at is None:
                return Expectation(number, text, "trigger", name, at=seconds(when), within=_within(more, 10.0))
        raise ValueError(f"cannot read `expect {text}`; docs/slo-tests.md has the forms")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def _exactly(words: list[str], count: int, form: str) -> list[str]:
    if len(words) != count:
        raise ValueError(f"write {form}")
    return words


def _words(given: list[str], wanted: list[str], form: str) -> None:
    if given != wanted:
        raise ValueError(f"write {form}")


def _positive(value: Fraction) -> Fraction:
    if value <= 0:
        raise ValueError("the time must be after 0s")
    return value


def _range(start: str, end: str) -> tuple[Fraction, Fraction]:
    a, b = seconds(start), seconds(end)
    if a >= b:
        raise ValueError(f"from {start} to {end} is no time")
    return a, b


def _share(text: str, most: int = 100) -> Fraction:
    match = _SHARE.fullmatch(text)
    if match is None or (Fraction(match[1]) < 0 and most == 100) or Fraction(match[1]) > most:
        raise ValueError(f"{text!r} is not a share; write 15%")
    return Fraction(match[1]) / 100


def _within(words: list[str], default: float) -> float:
    if not words:
        return default
    _words(words[:1], ["within"], "within TIME")
    return float(seconds(_exactly(words, 2, "within TIME")[1]))


def _within_share(words: list[str]) -> float:
    if not words:
        return 1e-6
    _words(words[:1], ["within"], "within N%")
    return float(_share(_exactly(words, 2, "within N%")[1]))
