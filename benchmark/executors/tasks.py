"""What a process may be asked to do with a stranger's network: a table, one entry for each command.

Each task first does what is trusted and may write elsewhere (importing libraries, downloading
data), then gives up writing outside its folders, then opens what a stranger made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from corobench.benchmark.executors.accelerator import device_of, wake
from corobench.benchmark.executors.context import TaskContext
from corobench.benchmark.executors.fetching import fetch_images, fetch_sample
from corobench.benchmark.executors.task_arguments import rule_of, settings_of
from corobench.benchmark.executors.task_places import (
    beside_out,
    folder_if_written,
    folder_of_classes,
    images_of_curve,
    images_of_result,
    images_to_convert,
    images_to_evaluate,
    images_to_judge_on,
    images_to_name,
    root_of,
    track_of,
)
from corobench.benchmark.submission.kinds import is_onnx

if TYPE_CHECKING:
    from corobench.benchmark.gate.run import Checked
    from corobench.benchmark.records.reports import (
        Contested,
        Converted,
        Examined,
        ExportedQuestions,
        ImportReport,
        Measured,
        Recheck,
        Remeasured,
        Repacked,
        Verified,
    )
    from corobench.benchmark.review.drift import Drift

Arguments = Mapping[str, Any]
Answer = TypeVar("Answer")

#: Arguments that are paths, which JSON holds as text.
PATHS = frozenset(
    (
        "baseline",
        "candidate",
        "data_root",
        "folder",
        "images_path",
        "old_path",
        "out",
        "path",
        "place",
        "result_path",
        "source",
        "submission",
    )
)


def _nothing(given: Arguments) -> tuple[Any, ...]:
    return ()


def _nothing_more(given: Arguments, context: TaskContext) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """One thing that a process may be asked to do.

    Attributes:
        name: of the task.
        function: "module:name" below `corobench.benchmark`, or which one the arguments ask for.
        answer: type of what the process gives back: the type, or "module:name" as above.
        strangers: the argument that is the stranger's path, named in errors.
        step: that begins once writing is given up, or which one the arguments ask for.
        fetch: does, before that, what may write anywhere.
        writes: existing folders in which the task may write.
        more: arguments that only the process knows, such as the progress.
        reads: argument -> makes it of what JSON holds; paths are made by their names.
        chosen_by: arguments that say which function, and are none of its own.
        imports: modules that may write while they are imported.
        attacks_or_bounds: needs those libraries, and an accelerator where one is asked for.
        goes_on: without a step that ended its process.
        makes_folder: the new folder `out`, in a place of its own beside it.
        tells: what of the function's answer is told to the parent.
        if_refused: the answer where the submission is refused; None to raise.
    """

    name: str
    function: str | Callable[[Arguments], str]
    answer: Any
    strangers: str
    step: str | Callable[[Arguments], str]
    fetch: Callable[[Arguments], object] = _nothing
    writes: Callable[[Arguments], Iterable[Path]] = _nothing
    more: Callable[[Arguments, TaskContext], Mapping[str, Any]] = _nothing_more
    reads: Mapping[str, Callable[[Any], Any]] | None = None
    chosen_by: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    attacks_or_bounds: bool = False
    goes_on: bool = False
    makes_folder: bool = False
    tells: Callable[[Any], Any] | None = None
    if_refused: Callable[[tuple[str, ...]], Answer] | None = None

    def call(self, given: Arguments, more: Arguments | None = None) -> Any:
        """Do it here: call the function."""
        own = {key: value for key, value in given.items() if key not in self.chosen_by}
        return self._function(given)(**own, **(more or {}))

    def do(self, told: Arguments, context: TaskContext) -> Any:
        """Do it in a process of its own; what comes first is trusted, and the order matters.

        Args:
            told: arguments as JSON holds them.
            context: of the process.

        Raises:
            CorobenchError: what the function raises.
        """
        if self.attacks_or_bounds:
            import_module("corobench.benchmark.executors.preloaded")
        for module in self.imports:
            import_module(f"corobench.benchmark.{module}")
        given = self._read(told)
        self._function(given)
        self.fetch(given)
        devices = wake(device_of(told)) if self.attacks_or_bounds else ()
        step = self.step if isinstance(self.step, str) else self.step(given)
        context.give_up_writing([*self.writes(given), *devices], step)
        answer = self.call(given, self.more(given, context))
        return answer if self.tells is None else self.tells(answer)

    def answer_type(self) -> Any:
        """The type that an answer of the process is checked against."""
        return _load(self.answer) if isinstance(self.answer, str) else self.answer

    def _function(self, given: Arguments) -> Callable[..., Any]:
        found: Callable[..., Any] = _load(
            self.function if isinstance(self.function, str) else self.function(given)
        )
        return found

    def _read(self, told: Arguments) -> dict[str, Any]:
        given = dict(told)
        for key, value in told.items():
            if key in PATHS and value is not None:
                given[key] = Path(value)
        for key, read in (self.reads or {}).items():
            given[key] = read(told[key])
        return given


def _load(target: str) -> Any:
    """What stands at "module:name" below `corobench.benchmark`.

    >>> _load("tracks:standard_subset").__name__
    'standard_subset'
    """
    module, _, name = target.partition(":")
    return getattr(import_module(f"corobench.benchmark.{module}"), name)


# --------------------------------------------------------------------------- parts of entries


def _of_evaluation(given: Arguments, context: TaskContext) -> dict[str, Any]:
    """Progress, steps, and who computes where this process does not."""
    more = {"report": context.report(given["folder"].name), "steps": context.steps}
    return more if context.executor is None else {**more, "executor": context.executor}


def _of_curve(given: Arguments, context: TaskContext) -> dict[str, Any]:
    """Progress and steps of a security curve."""
    return {
        "report": context.report(f"{given['submission'].name}, curve"),
        "steps": context.steps,
    }


def _examined(faults: tuple[str, ...]) -> Examined:
    from corobench.benchmark.records.reports import Examined

    return Examined(faults)


_IMPORTING = "submission.importing:import_"
_CONVERTING = {
    "bf16": "submission.converting_bf16:to_bf16",
    "compact": "submission.converting:compact",
    "int8": "submission.converting_int8:to_int8",
    "onnx": "submission.converting:to_onnx",
    "safetensors": "submission.converting:to_safetensors",
}

# --------------------------------------------------------------------------------- the table

CERTIFIERS: Task[list[str]] = Task(
    "certifiers",
    "evaluation.certifiable:list_certifiers",
    list[str],
    strangers="folder",
    step="certifiers",
    attacks_or_bounds=True,
)
CHECK: Task[Checked] = Task(
    "check",
    "gate.run:compare_with_baseline",
    "gate.run:Checked",
    strangers="candidate",
    step="load",
    fetch=images_of_result("baseline"),
    more=lambda given, context: {
        "reporter": context.report,
        "steps": context.steps,
        "chunks": context.scratch,
    },
    reads={"rule": rule_of},
    attacks_or_bounds=True,
    goes_on=True,
)
CONTEST: Task[Contested] = Task(
    "contest",
    "review.contest:contest",
    "records.reports:Contested",
    strangers="submission",
    step="contest",
    fetch=images_to_judge_on,
    writes=folder_if_written("result_path"),
)
CONVERT: Task[Converted] = Task(
    "convert",
    lambda given: _CONVERTING[given["to"]],
    "records.reports:Converted",
    strangers="folder",
    step=lambda given: str(given["to"]),
    fetch=images_to_convert,
    writes=beside_out,
    chosen_by=("to",),
    imports=(
        "submission.converting",
        "submission.converting_bf16",
        "submission.converting_int8",
        "submission.graph.exporting",
    ),
    makes_folder=True,
)
CURVE: Task[str] = Task(
    "curve",
    "review.curve:measure_curve",
    str,
    strangers="submission",
    step="load",
    fetch=images_of_curve,
    writes=lambda given: [root_of(given["result_path"])],
    more=_of_curve,
    attacks_or_bounds=True,
    goes_on=True,
    tells=str,
)
EXPORT_VNNLIB: Task[ExportedQuestions] = Task(
    "export-vnnlib",
    "review.vnnlib_files:export_vnnlib",
    "records.reports:ExportedQuestions",
    strangers="submission",
    step="export",
    fetch=images_to_judge_on,
    writes=beside_out,
    imports=("submission.graph.exporting",),
    makes_folder=True,
)
EVALUATE: Task[dict[str, Any]] = Task(
    "evaluate",
    "evaluation.evaluate:evaluate",
    dict[str, Any],
    strangers="folder",
    step="load",
    fetch=images_to_evaluate,
    writes=lambda given: [given["settings"].out],
    more=_of_evaluation,
    reads={"settings": settings_of},
    attacks_or_bounds=True,
    goes_on=True,
    tells=lambda done: {"path": done.path, "reused": done.reused},
)
EXAMINE: Task[Examined] = Task(
    "examine",
    "submission.intake_faults:examine",
    "records.reports:Examined",
    strangers="folder",
    step="compare",
    reads={"others": lambda texts: [Path(text) for text in texts]},
    if_refused=_examined,
)
FAULTS: Task[list[str]] = Task(
    "faults",
    "submission.validate:find_submission_faults",
    list[str],
    strangers="folder",
    step="validate",
    if_refused=list,
)
IMPORT: Task[ImportReport] = Task(
    "import",
    lambda given: _IMPORTING + ("graph" if is_onnx(given["source"]) else "checkpoint"),
    "records.reports:ImportReport",
    strangers="source",
    step="import",
    fetch=lambda given: fetch_sample(given["track"], given.get("data_root")),
    writes=beside_out,
    makes_folder=True,
)
MEASURE: Task[Measured] = Task(
    "measure",
    "submission.latency:weigh",
    "records.reports:Measured",
    strangers="folder",
    step="measure",
)
RECHECK: Task[Recheck] = Task(
    "recheck",
    "review.recheck:recheck",
    "records.reports:Recheck",
    strangers="submission",
    step="recheck",
    fetch=images_to_judge_on,
    more=_of_curve,
)
REMEASURE: Task[Remeasured] = Task(
    "remeasure",
    "review.remeasure:remeasure",
    "records.reports:Remeasured",
    strangers="folder",
    step="measure",
    writes=folder_if_written("path"),
)
REPACK: Task[Repacked] = Task(
    "repack",
    "submission.packing:repack",
    "records.reports:Repacked",
    strangers="path",
    step=lambda given: "pack" if given["to_packed"] else "unpack",
    writes=lambda given: [given["place"]],
)
REPLAY: Task[Drift] = Task(
    "replay",
    "review.replay:replay",
    "review.drift:Drift",
    strangers="folder",
    step="load",
    fetch=images_of_result("old_path"),
    more=lambda given, context: {
        "report": context.report(given["folder"].name),
        "steps": context.steps,
    },
    attacks_or_bounds=True,
)
TAKEN: Task[str] = Task(
    "taken",
    "review.taken:name_classes",
    str,
    strangers="submission",
    step="recheck",
    fetch=images_to_name,
    writes=folder_of_classes,
    tells=str,
)
VERIFY: Task[Verified] = Task(
    "verify",
    "review.verification.verify:verify",
    "records.reports:Verified",
    strangers="folder",
    step="load",
    fetch=lambda given: fetch_images(track_of(given["folder"]), given.get("data_root")),
    writes=lambda given: [given["out"]],
    more=lambda given, context: {
        "report": context.report(f"{given['folder'].name}, verifying"),
        "steps": context.steps,
    },
    attacks_or_bounds=True,
)

TASKS: Mapping[str, Task[Any]] = {
    found.name: found for found in list(globals().values()) if isinstance(found, Task)
}
