"""The inference step on the virtual clock: one thread ingests into a bounded queue, one works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailsight_probe import Outcome

from api.demo.inference import QUEUE_SIZE
from api.demo.instances import Instance
from api.demo.model import Features, Model
from api.demo.signals import Question, Signal

if TYPE_CHECKING:
    from api.demo.history.engine import Engine
    from api.demo.history.simulation import OrderPath

_STAMP_NS = 700


class Inference:
    """The main step, or an instance beside it."""

    def __init__(self, path: OrderPath, instance: Instance | None = None) -> None:
        self._path = path
        self._program = program = path.program("inference", "inference", instance)
        self._ingests, self._works = program.thread(), program.thread()
        self._ingress = program.spot("app_ingress", "feed", self._ingests)
        self._dequeued, self._featured, self._modelled, self._egress = (
            program.spot(point, "feed", self._works) for point in ("dequeued", "featured", "modelled", "app_egress")
        )
        self._features, self._model = Features(), Model()
        self._queued = 0

    def ask(self, sent_ns: int, question: Question, asker: Engine) -> None:
        """A question is on its way."""
        self._path.events.at(sent_ns + self._path.delay("question")(), self._ingests, self._ingest, question, asker)

    def _ingest(self, now: int, question: Question, asker: Engine) -> int:
        full = self._queued >= QUEUE_SIZE
        self._path.tape.stamp_with(
            self._program.shown(now), self._ingress, question.key, depth=self._queued,
            outcome=Outcome.SHED if full else Outcome.UNSET,
            labels=self._path.quote_labels(question.quote.instrument, self._program.version(now)),
        )  # fmt: skip
        if not full:
            self._queued += 1
            ready_ns = now + self._path.delay("inference.ingest")()
            self._path.events.at(ready_ns, self._works, self._work, question, asker)
        return now + _STAMP_NS

    def _work(self, now: int, question: Question, asker: Engine) -> int:
        path, program, key = self._path, self._program, question.key
        stamp, shown = path.tape.stamp, program.shown
        free_ns = program.stalled(now)
        if free_ns > now:
            return path.events.hold(free_ns, self._works, self._work, question, asker)
        self._queued -= 1
        stamp(shown(now), self._dequeued, key)
        features = self._features.update(question.quote)
        took_ns = path.delay("inference.feature")()
        now += took_ns
        stamp(shown(now), self._featured, key)
        now = program.touched("feed", key, now)
        score = self._model.score(features)
        modelled_ns = path.delay("inference.model")()
        now = program.lengthened("feed", key, took_ns + modelled_ns, now + modelled_ns)
        stamp(shown(now), self._modelled, key)
        now += path.delay("inference.delivery")()
        stamp(shown(now), self._egress, key)
        heard = asker.on_shadow if program.shadow else asker.on_signal
        signal = Signal(key, question.quote.instrument, score)
        path.events.at(now + path.delay("signal")(), asker.receives, heard, signal, program.version(now))
        return now
