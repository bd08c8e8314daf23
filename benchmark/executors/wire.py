"""Messages between a process and the one that started it, which never waits for the other.

A message is a header in JSON and bytes that only the receiver opens, if anybody does. The process
may be in a stranger's hands: it may send half a message, or take none, and the parent goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

_SIZE = struct.Struct("!Q")
#: Bytes that a socket takes without blocking where it takes any at all.
_AT_ONCE = 16 * 1024
_READ_BYTES = 256 * 1024
#: Bytes that are read of one process before others have their turn.
_TURN_BYTES = 4 * 1024**2


class GarbageError(Exception):
    """The other side sent what no corobench sends."""


def pack(header: Mapping[str, Any], *bodies: bytes) -> bytes:
    """A message: its header, and bytes behind it."""
    text = json.dumps(header).encode()
    return b"".join((_SIZE.pack(len(text)), text, *bodies))


def unpack(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and bytes of a message.

    Raises:
        GarbageError: no message.

    >>> unpack(pack({"kind": "answer"}, b"abc"))
    ({'kind': 'answer'}, b'abc')
    """
    try:
        (size,) = _SIZE.unpack_from(content)
        header = json.loads(content[_SIZE.size : _SIZE.size + size])
    except (struct.error, ValueError, RecursionError) as error:
        raise GarbageError("sent what is no message") from error
    if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
        raise GarbageError("sent what is no message")
    return header, content[_SIZE.size + size :]


class Wire:
    """One end of a connection between two processes.

    Args:
        connection: an end of a duplex pipe, which is taken over.
        max_bytes: of one message that comes in.

    Attributes:
        has_more: whether `arrived` left something unread.
    """

    def __init__(self, connection: Connection, max_bytes: int) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        connection.close()
        self._max_bytes = max_bytes
        self._read = bytearray()
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._posting: threading.Thread | None = None
        self._closed = False
        self.has_more = False

    def fileno(self) -> int:
        return self._socket.fileno()

    # ------------------------------------------------------------------ in the started process

    def send(self, content: bytes) -> None:
        """Send a message; waits until the other side has room.

        Raises:
            OSError: there is no other side.
        """
        with self._lock:
            self._socket.sendall(_SIZE.pack(len(content)) + content)

    def receive(self) -> bytes:
        """The next message; waits for it.

        Raises:
            EOFError: there is no other side.
        """
        (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._socket.recv(min(size, _TURN_BYTES))
            except OSError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    # ------------------------------------------------------------------------ in the parent

    def post(self, content: bytes) -> None:
        """Send a message without waiting: what the other side has no room for is sent later."""
        message = _SIZE.pack(len(content)) + content
        with self._lock:
            if self._closed:
                return
            if not self._waiting and len(message) <= _AT_ONCE and self._has_room():
                try:
                    self._socket.sendall(message)
                except OSError:  # reading tells that there is no other side
                    self._closed = True
                return
            self._waiting.append(message)
            if self._posting is None:
                self._posting = threading.Thread(target=self._post_waiting, daemon=True)
                self._posting.start()

    def _has_room(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def _post_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._closed:
                    self._posting = None
                    return
                message = self._waiting[0]
            try:
                self._socket.sendall(message)
            except OSError:
                with self._lock:
                    self._closed = True
            with self._lock:
                self._waiting.popleft()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the other side has not taken yet."""
        with self._lock:
            return sum(map(len, self._waiting))

    def arrived(self) -> Sequence[bytes]:
        """Whole messages that are there; never waits.

        Raises:
            EOFError: there is no other side, and no whole message is left.
            GarbageError: a message is too large.
        """
        ended, self.has_more = False, True
        for _ in range(_TURN_BYTES // _READ_BYTES):
            try:
                part = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self.has_more = False
                break
            except OSError:
                part = b""
            if not part:
                ended = True
                break
            self._read += part
        messages = self._whole()
        if ended and not messages:
            raise EOFError
        return messages

    def _whole(self) -> list[bytes]:
        messages: list[bytes] = []
        start = 0
        while len(self._read) - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._read, start)
            if size > self._max_bytes:
                if messages:
                    break
                raise GarbageError(f"sent a message of more than {self._max_bytes} bytes")
            end = start + _SIZE.size + size
            if len(self._read) < end:
                break
            messages.append(bytes(self._read[start + _SIZE.size : end]))
            start = end
        del self._read[:start]
        return messages

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._closed = True
            if self._posting is None:
                self._socket.close()
                return
        # A thread still sends: the socket is shut, which ends it, and closed with this object.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
