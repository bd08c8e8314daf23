"""What a backend tells, as bytes: for one that has its workers on other machines."""

from __future__ import annotations

from dataclasses import fields

from corobench.benchmark.executors.backend import Answered, Begun, Event, Failed, Lost, Ready
from corobench.benchmark.executors.wire import GarbageError, pack, unpack
from corobench.benchmark.files.steps import Ended

_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Ready, Begun, Answered, Failed, Lost)
}


def pack_event(event: Event) -> bytes:
    """An event as a message that `unpack_event` reads."""
    header = {field.name: getattr(event, field.name) for field in fields(event)}
    body = header.pop("body", b"")
    return pack({"kind": type(event).__name__, **header}, body)


def unpack_event(content: bytes) -> Event:
    """The event that `pack_event` wrote.

    Raises:
        GarbageError: it is none.

    >>> unpack_event(pack_event(Answered("worker 1", 7, 0.5, b"abc")))
    Answered(worker='worker 1', token=7, seconds=0.5, body=b'abc')
    """
    header, body = unpack(content)
    try:
        kind = _KINDS[header.pop("kind")]
        if kind is Answered:
            header["body"] = body
        if header.get("by_limit") is not None:
            header["by_limit"] = Ended(*header["by_limit"])
        return kind(**header)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise GarbageError("sent what is no event") from error
