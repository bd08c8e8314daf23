"""A backend on Ray, a submission, and what has happened to its workers."""

from __future__ import annotations

import hashlib
import json
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import toy_bench
from ray_clusters import wait_until

from corobench.benchmark.evaluation.jobs import Job
from corobench.benchmark.executors import arrays
from corobench.benchmark.executors.backend import (
    Answered,
    Begun,
    Event,
    Failed,
    Lost,
    Order,
    Ready,
    Setup,
)
from corobench.benchmark.executors.crew import Crew
from corobench.benchmark.executors.limits import Limits
from corobench.benchmark.executors.ray_backend import RayBackend

PATIENCE_S = 3.0


class Team:
    """A backend, a submission, and what has happened."""

    def __init__(self, crew: Crew, folder: Path, limits: Limits | None = None) -> None:
        self.folder, self.said = folder, list[str]()
        place = folder / "submission"
        place.mkdir()
        (place / "submission.toml").write_text("hello")
        (place / "weights").write_text("world")
        (place / "link").symlink_to("/etc/hostname")
        images = folder / "images.npy"
        np.save(images, np.arange(10.0))
        digest = hashlib.sha256(images.read_bytes()).hexdigest()
        self.setup = Setup({"seed": 0}, place, images, digest)
        (folder / "scratch").mkdir()
        self.backend = RayBackend(
            crew,
            limits or Limits(),
            folder / "scratch",
            self.said.append,
            toy_bench.serve,
            PATIENCE_S,
        )
        self.seen: list[Event] = []
        self.num_tokens = 0

    def start(self, count: int = 1) -> list[str]:
        """Names of so many new workers, which are ready."""
        known = {event.worker for event in self.seen if isinstance(event, Ready)}
        self.backend.start(count)
        self.until(lambda: len(self._ready() - known) >= count)
        return sorted(self._ready() - known)

    def _ready(self) -> set[str]:
        return {event.worker for event in self.seen if isinstance(event, Ready)}

    def until(self, holds: object, most_s: float = 120.0) -> None:
        def look() -> bool:
            wait(self.backend.waitables(), 0.05)
            self.seen += self.backend.events()
            assert callable(holds)
            return bool(holds())

        wait_until("an event", look, most_s)

    def give(self, worker: str, kind: str, **told: object) -> int:
        token = self.num_tokens
        self.num_tokens += 1
        job = Job(f"{kind}-{token}", kind, (1, 2), "", told)
        self.backend.give(worker, self.setup, [Order(token, json.dumps(job.as_json()))])
        return token

    def found(self, token: int) -> dict[str, np.ndarray] | str:
        """Arrays of a job, or why there are none."""
        (event,) = self.about(token, Answered, Failed)
        if isinstance(event, Answered):
            return arrays.unpack(event.body)
        assert isinstance(event, Failed)
        return event.reason

    def about(self, token: int, *kinds: type[Event]) -> list[Event]:
        return [one for one in self.seen if isinstance(one, kinds) and vars(one)["token"] == token]

    def ask(self, worker: str, kind: str, **told: object) -> dict[str, np.ndarray] | str:
        token = self.give(worker, kind, **told)
        self.until(lambda: self.about(token, Answered, Failed))
        assert len(self.about(token, Begun)) == 1
        return self.found(token)

    def lost(self, worker: str) -> Lost:
        """What is said of a worker that is lost."""

        def mine() -> list[Lost]:
            return [one for one in self.seen if isinstance(one, Lost) and one.worker == worker]

        self.until(mine)
        (event,) = mine()
        return event

    def pid(self, worker: str) -> int:
        found = self.ask(worker, "pid")
        assert isinstance(found, dict)
        return int(found["pid"])
