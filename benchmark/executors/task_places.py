"""What a task may fetch before it gives up writing, and the folders in which it may write after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corobench.benchmark.executors.fetching import (
    fetch_images,
    fetch_sample,
    fetch_test,
    fetch_training,
)
from corobench.benchmark.files.atomic import prepare_folder
from corobench.benchmark.records.curve import curve_path
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.taken import taken_path

Arguments = Mapping[str, Any]


def track_of(folder: Path) -> str:
    """The track that a manifest names."""
    from corobench.benchmark.submission.manifest import load_manifest

    return load_manifest(folder).track


def images_of_result(key: str) -> Callable[[Arguments], None]:
    """Fetch the images of a result file, and those of training for what evaluates again."""
    return lambda given: fetch_images(read_result(given[key]).track, given.get("data_root"))


def images_to_judge_on(given: Arguments) -> None:
    """Fetch the test images of a result."""
    fetch_test(read_result(given["result_path"]).track, given.get("data_root"))


def root_of(result_path: Path) -> Path:
    """The folder of all results that one lies in."""
    return result_path.absolute().parent.parent.parent


def images_of_curve(given: Arguments) -> None:
    """Fetch the images of a result, and make the folder of its curve."""
    images_to_judge_on(given)
    prepare_folder(curve_path(given["result_path"].absolute()).parent)


def images_to_name(given: Arguments) -> None:
    """Fetch the images of a result, and make the folder of its classes."""
    images_to_judge_on(given)
    prepare_folder(taken_path(given["result_path"].absolute()).parent)


def folder_of_classes(given: Arguments) -> list[Path]:
    """The folder of the classes of a result."""
    return [taken_path(given["result_path"].absolute()).parent]


def images_to_evaluate(given: Arguments) -> None:
    """Fetch the images of an evaluation, and make the folder of its result."""
    settings = given["settings"]
    fetch_images(settings.track or track_of(given["folder"]), settings.data_root)
    prepare_folder(settings.out.absolute())


def images_to_convert(given: Arguments) -> None:
    """Fetch what a conversion compares its network on."""
    fetch = fetch_training if given["to"] == "int8" else fetch_sample
    fetch(track_of(given["folder"]), given.get("data_root"))


def folder_if_written(key: str) -> Callable[[Arguments], list[Path]]:
    """The folder of a file, where it is to be written."""
    return lambda given: [given[key].parent] if given.get("write") else []


def beside_out(given: Arguments) -> list[Path]:
    """The folder that the new one is made in."""
    return [given["out"].parent]
