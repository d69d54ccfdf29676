"""Decoders by name: the shipped ones, and those that other distributions register.

A distribution registers one by an entry point of group `tailsight.decoders` that is a `Protocol`, or a function that
makes a `Decoder` when called with `keys` and `digests`. Nothing of scapy is imported until a decoder is made.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from collector.decode import Decoder, ScapyMissingError

log = structlog.get_logger("decode")

GROUP = "tailsight.decoders"
_SHIPPED = {name: f"collector.decode.{name}" for name in ("itch", "cme", "iex", "demo")}
_STREAMS = ("fix",)  # over TCP, needs no scapy
_GUESS = 256  # datagrams that are tried


class UnknownDecoderError(ValueError):
    """No decoder has this name, or one that is registered cannot be loaded; the message says which there are."""


def names() -> list[str]:
    """All decoders, the shipped ones first. Of two with one name the shipped one counts."""
    return [*_SHIPPED, *_STREAMS, *sorted(set(_registered()) - set(_SHIPPED) - set(_STREAMS))]


def make(name: str, *, keys: bool = True, digests: bool = True) -> Decoder:
    """The decoder called `name`.

    Raises UnknownDecoderError, and ScapyMissingError where scapy is needed and not installed.
    """
    if name in _STREAMS:
        from collector.decode.fix import FixDecoder

        return FixDecoder(keys=keys, digests=digests)
    try:
        if name in _SHIPPED:
            declared: Any = import_module(_SHIPPED[name]).PROTOCOL
        elif name in (found := _registered()):
            declared = _load(found[name])
        else:
            raise UnknownDecoderError(
                f"there is no decoder {name!r}; known are {', '.join(names())}; others register under {GROUP}"
            )
        return _decoder(name, declared, keys=keys, digests=digests)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "scapy":
            raise ScapyMissingError from error
        raise


def guess(data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> str | None:
    """The decoder of datagrams that explains most of these: none malformed, most messages of a declared type.

    Raises ScapyMissingError.
    """
    starts, lengths = starts[:_GUESS], lengths[:_GUESS]
    best, score = None, 0.0
    for name in names():
        if name in _STREAMS:
            continue
        try:
            decoder = make(name, keys=False, digests=False)
        except UnknownDecoderError as error:
            log.warning(
                "decoder left out", name=name, reason=str(error)
            )  # somebody's broken one must not stop the others
            continue
        got = decoder.decode(data, starts, lengths)
        messages = len(got.message_at)
        wrong = sum(got.faults.values())
        if not messages or wrong > len(starts) // 10:
            continue
        share = (messages - got.unknown - got.malformed) / messages * (1 - wrong / len(starts))
        if share > max(score, 0.5):
            best, score = name, share
    return best


def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "scapy":
            raise
        raise UnknownDecoderError(f"decoder {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    except Exception as error:
        raise UnknownDecoderError(f"decoder {point.name!r} ({point.value}) cannot be loaded: {error}") from error


def _decoder(name: str, declared: Any, *, keys: bool, digests: bool) -> Decoder:
    from collector.decode.blocks import BlockDecoder
    from collector.decode.layout import LayoutError
    from collector.decode.protocol import Protocol

    if not isinstance(declared, Protocol) and not callable(declared):
        raise UnknownDecoderError(f"decoder {name!r} is a {type(declared).__name__}; it must be a Protocol")
    try:
        if isinstance(declared, Protocol):
            return BlockDecoder(declared, keys=keys, digests=digests)
        made: Decoder = declared(keys=keys, digests=digests)
    except LayoutError as error:
        raise UnknownDecoderError(f"decoder {name!r}: {error}") from error
    return made
