"""`python -m api.demo.inference`: ingests quotes, makes features, asks the model, delivers the signal.

Ingest has a thread of its own before a bounded queue; questions that find it full are shed, and the engine goes on
without their signals.
"""

from __future__ import annotations

import argparse
import logging
import queue
import socket
import threading
import time

from tailsight_probe import Outcome

from api.demo.labels import quote_labels
from api.demo.model import Features, Model
from api.demo.place import Place
from api.demo.signals import Question, Signal
from api.demo.stopping import Stop
from api.demo.streams import Address
from api.demo.wire import WireError

QUEUE_SIZE = 256
_POLL_S = 0.2

log = logging.getLogger(__name__)


class Inference:
    """Questions in over UDP, signals out to whoever asked."""

    def __init__(self, place: Place, listen: Address) -> None:
        self._place = place
        points = ("app_ingress", "dequeued", "featured", "modelled", "app_egress")
        self._ingress, self._dequeued, self._featured, self._modelled, self._egress = (
            place.point(name, "feed") for name in points
        )
        self._queue: queue.Queue[tuple[Question, Address] | None] = queue.Queue(QUEUE_SIZE)
        self._features, self._model = Features(), Model()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(listen)
        self._socket.settimeout(_POLL_S)

    def run(self, stop: Stop) -> None:
        """Ingest until `stop`."""
        worker = threading.Thread(target=self._work, name="model")
        worker.start()
        while not stop:
            try:
                self._ingest(*self._socket.recvfrom(65_536))
            except TimeoutError:
                continue
            except WireError as error:
                log.warning("question refused: %s", error)
        self._queue.put(None)
        worker.join(timeout=2)

    def _ingest(self, payload: bytes, asker: Address) -> None:
        question = Question.decode(payload)
        depth, labels = self._queue.qsize(), quote_labels(question.quote.instrument)
        full = self._queue.full()  # only this thread puts: it cannot fill up before the put below
        outcome = Outcome.SHED if full else None
        self._place.stamp(self._ingress, question.key, depth=depth, outcome=outcome, labels=labels)
        if not full:
            self._queue.put((question, asker))

    def _work(self) -> None:
        while (asked := self._queue.get()) is not None:
            self._place.stall()
            question, asker = asked
            stamp, key = self._place.stamp, question.key
            began = time.thread_time_ns()
            stamp(self._dequeued, key)
            features = self._features.update(question.quote)
            stamp(self._featured, key)
            self._place.touch("feed", key)
            score = self._model.score(features)
            self._place.lengthen("feed", key, began)
            stamp(self._modelled, key)
            payload = Signal(key, question.quote.instrument, score, self._place.version).encode()
            stamp(self._egress, key)
            self._socket.sendto(payload, asker)


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=int, required=True, help="UDP port for questions on 127.0.0.1")
    Place.arguments(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place = Place.of("inference", "inference", options)
    inference = Inference(place, ("127.0.0.1", options.listen))
    place.start()
    inference.run(Stop())


if __name__ == "__main__":
    main()
