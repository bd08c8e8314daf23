"""The process that holds the network of one entry, as its parent sees it; what it says is checked.

Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corobench.benchmark.executors.backend import (
    MAX_ANSWER_BYTES,
    Answered,
    Begun,
    Event,
    Failed,
    Lost,
    Order,
    Ready,
    Setup,
)
from corobench.benchmark.executors.child import Child, End, Target, context_of
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.wire import GarbageError, pack, unpack

_MAX_TEXT = 300


class BenchProcess:
    """One process of a worker; it computes the jobs of one setup, and never of another one.

    Args:
        worker: name under which its events are told.
        device: on which it computes.
        limits: of the process: time of each job, memory.
        scratch: existing folder in which it alone writes.
        target: what it runs.
        tells_versions: whether it begins with a `Ready`; to find the versions takes a second.

    Attributes:
        child: the process itself.
        begun: token of the job that it computes.
        key: of its setup, once it has one.
    """

    def __init__(
        self,
        worker: str,
        device: str,
        limits: Limits,
        scratch: Path,
        target: Target,
        *,
        tells_versions: bool,
    ) -> None:
        self._worker, self._device, self._tells_versions = worker, device, tells_versions
        self._left: deque[int] = deque()
        self.begun: int | None = None
        self.key: str | None = None
        order = {
            "limits": asdict(limits),
            "scratch": str(scratch),
            "cwd": str(Path.cwd()),
            "device": device,
            "environment": {k: v for k, v in os.environ.items() if k.startswith("COROBENCH_")},
            "tells_versions": tells_versions,
        }
        text = json.dumps(order)
        self.child = Child(context_of(device), target, text, limits, MAX_ANSWER_BYTES)

    @property
    def is_done(self) -> bool:
        """Whether every job that it was given is answered."""
        return not self._left

    def give(self, setup: Setup, orders: Sequence[Order], dropped: Collection[int]) -> None:
        """Hand it jobs, behind those that it has.

        Args:
            setup: always the same.
            orders: the jobs.
            dropped: tokens of those that need not be computed.
        """
        if self.key is None:
            self.key = setup.key
            told = {"told": dict(setup.told), "folder": str(setup.folder)}
            told |= {"key": setup.key, "images": str(setup.images)}
            self.child.post(pack({"kind": "setup", **told}))
        if self.is_done and self.child.step != "start":
            self.child.rest()
        self._left += [order.token for order in orders]
        if dropped:
            self.drop(dropped)
        texts = [[order.token, order.text] for order in orders]
        self.child.post(pack({"kind": "jobs", "key": setup.key, "orders": texts}))

    def drop(self, tokens: Collection[int]) -> None:
        """It need not compute these jobs, unless it has begun them."""
        self.child.post(pack({"kind": "drop", "tokens": list(tokens)}))

    def is_quiet(self) -> bool:
        """Whether it waits for its next job within its limits, and says nothing."""
        self.child.rest()
        arrived = self.child.arrived()
        return not isinstance(arrived, End) and not arrived and self.child.over_limit() is None

    def events(self) -> list[Event]:
        """What has happened; a `Lost` is the last."""
        arrived = self.child.arrived()
        found: list[Event] = []
        if isinstance(arrived, End):
            return [self._lost(arrived)]
        for content in arrived:
            try:
                found += self._events(*unpack(content))
            except (
                GarbageError,
                KeyError,
                TypeError,
                ValueError,
                OverflowError,
                RecursionError,
            ) as error:
                reason = str(error) if isinstance(error, GarbageError) else "sent what is no event"
                return [*found, Lost(self._worker, reason)]
        if self.child.step != "start" and self.is_done:
            self.child.rest()
        end = self.child.over_limit()
        return found if end is None else [*found, self._lost(end)]

    def _events(self, header: Mapping[str, Any], body: bytes) -> list[Event]:
        kind = header["kind"]
        if kind == "ready" and self.child.step == "start":
            self.child.begin("ready")
            versions = {str(key): str(value) for key, value in dict(header["versions"]).items()}
            return [Ready(self._worker, versions, self._device)] if self._tells_versions else []
        token = int(header["token"])
        if kind == "begin" and self.begun is None:
            return [self._begin(token)]
        if token != self.begun:
            raise GarbageError(f"sent {str(kind)[:20]!r} of a job that it had not begun")
        if kind == "loaded":
            self.child.begin("job")
            return []
        following = header.get("begins")
        answer = self._answer(kind, token, header, body)
        return [answer] if following is None else [answer, self._begin(int(following))]

    def _begin(self, token: int) -> Begun:
        """A job begins: its next one, not one of another entry that the worker has, too."""
        if not self._left or token != self._left[0]:
            raise GarbageError("began a job that is not its next one")
        self.begun = token
        self.child.begin("job")
        return Begun(self._worker, token)

    def _answer(
        self, kind: str, token: int, header: Mapping[str, Any], body: bytes
    ) -> Answered | Failed:
        self.begun = None
        self._left.popleft()
        self.child.begin("next")
        if kind == "answer":
            return Answered(self._worker, token, float(header["seconds"]), body)
        if kind == "failed":
            return Failed(self._worker, token, str(header["reason"])[:_MAX_TEXT])
        raise GarbageError("sent what is no event")

    def _lost(self, end: End) -> Lost:
        by_limit = end.ended if end.by_limit and self.begun is not None else None
        return Lost(self._worker, end.ended.reason, by_limit)
