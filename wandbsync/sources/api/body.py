"""The body of an answer, piece by piece, within bounds: it may not trickle, and not be larger than it can be."""

from __future__ import annotations

import time
from collections.abc import Iterator

import requests

from ...errors import TimedOut, TooLarge
from .failures import SLOW, Failed

CHUNK = 1 << 15  # bytes at a time, which may be a thousand times as many when decompressed; what is cut short loses one
ANSWER = 64 << 20  # bytes of an answer: W&B takes at most 25 MB in one call of `log`, and 15 MB of config
SLOWEST = 1000  # bytes a second that make an answer worth waiting for: less than any modem
PATIENCE = 30.0  # seconds, at the most, in which that has to come
EXPANDS = 200  # times its size that what is compressed may have: texts get 5 to 20, gzip ends at 1,032
SMALL = 64 << 20  # bytes that nobody is asked about


def content(answer: requests.Response, host: str, patience: float) -> bytes:
    """All of it. Raises what `pieces` raises, and Failed with TooLarge."""
    found = bytearray()
    try:
        for piece in pieces(answer, host, patience):
            found += piece
            if len(found) > ANSWER:
                raise too_large(f"{host} answers more than {ANSWER >> 20} MB")
        return bytes(found)
    finally:
        found.clear()  # an error that is kept keeps what its frames hold


def pieces(answer: requests.Response, host: str, patience: float) -> Iterator[bytes]:
    """As it comes, decoded. Raises what urllib3 does; Failed where less than SLOWEST comes for `patience` seconds.

    A timeout of the socket would not notice: a body that comes byte by byte never lets it run out.
    """
    raw, patience = answer.raw, min(patience, PATIENCE)
    since, before, decoded = time.monotonic(), raw.tell(), 0
    while piece := raw.read1(CHUNK, decode_content=True):
        decoded += len(piece)
        if decoded > SMALL and decoded > EXPANDS * raw.tell():
            raise too_large(f"{host} gives {raw.tell():,} bytes that expand to more than {decoded >> 20} MB")
        yield piece
        now = time.monotonic()
        if now - since >= patience:
            if raw.tell() - before < SLOWEST * (now - since):
                text = f"{host} sent only {raw.tell() - before:,} bytes within {now - since:.0f} s"
                raise Failed(TimedOut(text), attempts=SLOW, slow=True)
            since, before = now, raw.tell()


def too_large(text: str) -> Failed:
    return Failed(TooLarge(text), attempts=1)
