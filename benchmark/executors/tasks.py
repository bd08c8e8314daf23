"""What a process may be asked to do with a stranger's network.

Each task first does what is trusted and may write elsewhere (importing libraries, downloading
data), then gives up writing outside its folders, then opens what a stranger made.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corobench.benchmark.errors import DatasetError
from corobench.benchmark.executors import landlock
from corobench.benchmark.executors.accelerator import device_of, wake
from corobench.benchmark.executors.remote import RemoteReporter
from corobench.benchmark.files.atomic import prepare_folder
from corobench.benchmark.files.progress import Reporter
from corobench.benchmark.files.steps import Steps
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.tracks import TRACKS

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Room:
    """What a task works with.

    Attributes:
        steps: are told to the parent, which gives each its time.
        scratch: folder that is there for all processes of one call and is removed after it.
        send: a message to the parent.
    """

    steps: Steps
    scratch: Path
    send: Callable[..., None]

    def report(self, title: str) -> Reporter:
        """Progress that the parent shows."""
        return RemoteReporter(title, self.send)

    def close(self, step: str, *writes: Path) -> None:
        """Give up writing elsewhere, and begin the step that opens what a stranger made.

        Args:
            step: its name.
            writes: existing folders and files in which it may write.
        """
        tempfile.tempdir = str(self.scratch)
        places = [path.absolute() for path in writes]
        landlock.allow_writes_below([*places, self.scratch, Path(os.devnull)])
        self.steps.begin(step)


def _have_data(track: str, data_root: Path | None) -> None:
    """Download a dataset while that is still possible; what fails here fails again where used."""
    from corobench.benchmark.data import load_test, load_train

    if track in TRACKS:
        load_test(track, data_root)
        with contextlib.suppress(DatasetError):
            load_train(track, data_root)


def _have_sample(track: str, data_root: Path | None) -> None:
    """Import what reads the images of a self-check, which may write to places of its own."""
    from corobench.benchmark.submission.writing import sample_images

    if track in TRACKS:
        sample_images(TRACKS[track], data_root)


def _have_training(track: str, data_root: Path | None) -> None:
    """Download training images while that is still possible."""
    from corobench.benchmark.data import load_train

    if track in TRACKS:
        load_train(track, data_root)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _evaluate(arguments: Arguments, room: Room) -> dict[str, Any]:
    from corobench.benchmark.evaluation.evaluate import evaluate
    from corobench.benchmark.evaluation.settings import Settings
    from corobench.benchmark.executors import preloaded  # noqa: F401
    from corobench.benchmark.submission.manifest import load_manifest

    given, folder = dict(arguments["settings"]), Path(arguments["folder"])
    epsilons = given["epsilons"]
    given["epsilons"] = None if epsilons is None else tuple(epsilons)
    given["data_root"], given["out"] = _path(given["data_root"]), Path(given["out"])
    given["earlier"] = _path(given["earlier"])
    settings = Settings(**given)
    _have_data(settings.track or load_manifest(folder).track, settings.data_root)
    prepare_folder(settings.out.absolute())
    room.close("load", settings.out, *wake(settings.device))
    done = evaluate(folder, settings, room.report(folder.name), room.steps)
    return {"path": done.path, "reused": done.reused}


def _faults(arguments: Arguments, room: Room) -> list[str]:
    from corobench.benchmark.submission.validate import find_submission_faults

    room.close("validate")
    return find_submission_faults(Path(arguments["folder"]))


def _check(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.executors import preloaded  # noqa: F401
    from corobench.benchmark.gate.rule import Rule
    from corobench.benchmark.gate.run import check

    more = dict(arguments)
    candidate, baseline = Path(more.pop("candidate")), Path(more.pop("baseline"))
    rule = Rule(**more.pop("rule"))
    more["data_root"] = _path(more.get("data_root"))
    _have_data(read_result(baseline).track, more["data_root"])
    room.close("load", *wake(device_of(more)))
    more |= {"reporter": room.report, "steps": room.steps, "chunks": room.scratch}
    return check(candidate, baseline, rule, **more)


def _recheck(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.review.recheck import recheck

    result, data_root = Path(arguments["result"]), _path(arguments["data_root"])
    _have_data(read_result(result).track, data_root)
    room.close("recheck")
    proofs = bool(arguments["proofs"])
    return recheck(result, Path(arguments["submission"]), data_root, proofs=proofs)


def _contest(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.review.contest import contest

    more = dict(arguments)
    result, images, submission = (Path(more.pop(key)) for key in ("result", "images", "submission"))
    more["data_root"] = _path(more.get("data_root"))
    _have_data(read_result(result).track, more["data_root"])
    room.close("contest", *([result.parent] if more.get("write") else []))
    return contest(result, images, submission, **more)


def _examine(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.submission.intake_faults import examine

    room.close("compare")
    others = [Path(other) for other in arguments["others"]]
    return examine(Path(arguments["folder"]), others, arguments["changed"])


def _import(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.submission.importing import import_checkpoint, import_graph

    more = dict(arguments)
    source, out = Path(more.pop("source")), Path(more.pop("out"))
    more["data_root"] = _path(more.get("data_root"))
    _have_sample(more["track"], more["data_root"])
    room.close("import", out.parent)
    return (import_graph if source.suffix == ".onnx" else import_checkpoint)(source, out, **more)


def _convert(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.submission import converting, converting_int8
    from corobench.benchmark.submission.graph import exporting  # noqa: F401
    from corobench.benchmark.submission.manifest import load_manifest

    more = dict(arguments)
    folder, out = Path(more.pop("folder")), Path(more.pop("out"))
    data_root = more["data_root"] = _path(more.get("data_root"))
    to = more.pop("to")
    have = _have_training if to == "int8" else _have_sample
    have(load_manifest(folder).track, data_root)
    room.close(to, out.parent)
    names: dict[str, Callable[..., Any]] = {
        "compact": converting.compact,
        "int8": converting_int8.to_int8,
        "onnx": converting.to_onnx,
        "safetensors": converting.to_safetensors,
    }
    return names[to](folder, out, **more)


def _repack(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.submission.packing import repack

    place, to_packed = Path(arguments["place"]), bool(arguments["to_packed"])
    room.close("pack" if to_packed else "unpack", place)
    path, out = Path(arguments["path"]), _path(arguments["out"])
    return repack(path, to_packed=to_packed, out=out, place=place)


def _measure(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.submission.latency import weigh

    room.close("measure")
    return weigh(Path(arguments["folder"]), latency=arguments["latency"])


def _remeasure(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.review.remeasure import remeasure

    result, write = Path(arguments["result"]), bool(arguments["write"])
    room.close("measure", *([result.parent] if write else []))
    return remeasure(result, Path(arguments["folder"]), write=write)


def _replay(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.executors import preloaded  # noqa: F401
    from corobench.benchmark.review.replay import replay

    more = dict(arguments)
    old, folder = Path(more.pop("old")), Path(more.pop("folder"))
    more["data_root"] = _path(more.get("data_root"))
    _have_data(read_result(old).track, more["data_root"])
    room.close("load", *wake(device_of(more)))
    return replay(old, folder, report=room.report(folder.name), steps=room.steps, **more)


def _verify(arguments: Arguments, room: Room) -> Any:
    from corobench.benchmark.executors import preloaded  # noqa: F401
    from corobench.benchmark.review.verification.verify import verify
    from corobench.benchmark.submission.manifest import load_manifest

    more = dict(arguments)
    path, folder, out = (Path(more.pop(key)) for key in ("path", "folder", "out"))
    more["data_root"] = _path(more.get("data_root"))
    _have_data(load_manifest(folder).track, more["data_root"])
    room.close("load", out, *wake(device_of(more)))
    report = room.report(f"{folder.name}, verifying")
    return verify(path, folder, out=out, report=report, steps=room.steps, **more)


TASKS: dict[str, Callable[[Arguments, Room], Any]] = {
    "check": _check,
    "contest": _contest,
    "convert": _convert,
    "evaluate": _evaluate,
    "examine": _examine,
    "faults": _faults,
    "import": _import,
    "measure": _measure,
    "recheck": _recheck,
    "remeasure": _remeasure,
    "repack": _repack,
    "replay": _replay,
    "verify": _verify,
}
