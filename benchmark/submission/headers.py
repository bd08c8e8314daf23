"""Faults that a submission shows by its manifest and the header of its weights, without torch.

It is what a pre-commit hook can look at in a second. The network itself is not built, so shapes
that do not fit the architecture, the declared sparsity and the model contract stay unseen.
"""

from __future__ import annotations

from pathlib import Path

from corobench.benchmark.errors import ConfigError, SubmissionError, nearest
from corobench.benchmark.records.result import Manifest
from corobench.benchmark.submission.architecture_names import NAMES
from corobench.benchmark.submission.files import FileFaultError, read_plain_file
from corobench.benchmark.submission.header import FLOAT_BYTES, MAX_WEIGHTS_BYTES, parse_header
from corobench.benchmark.submission.manifest import load_manifest
from corobench.benchmark.tracks import get_track

ONNX_SUFFIX = ".onnx"
TEMPLATE = "_template"
#: What is no licence.
UNKNOWN = ("unknown", "none", "")
#: Types that weights, and the masks and counters beside them, may have in a file.
_KNOWN_TYPES = {*FLOAT_BYTES, "U8", "I64"}


def find_header_faults(folder: Path) -> list[str]:
    """Faults of one folder: its manifest, its name, and the header of its weights file.

    Returns:
        One line per fault; empty if none is seen.
    """
    folder = Path(folder)
    try:
        manifest = load_manifest(folder)
    except SubmissionError as error:
        return list(error.faults)
    return [
        *_track_faults(manifest),
        *name_faults(folder, manifest),
        *_architecture_faults(manifest),
        *_weights_faults(folder, manifest.model.weights),
    ]


def intake_warnings(folder: Path) -> list[str]:
    """What is valid in a folder, but will be refused when the entry is handed in.

    Args:
        folder: of a valid submission. Its parent is looked for beside it.

    Returns:
        One line per key that `corobench intake` refuses.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    found = unknown_faults(manifest)
    if manifest.parent is not None and not (folder.resolve().parent / manifest.parent).is_dir():
        found.append(
            f"submission.toml: `parent`: {manifest.parent!r} is no entry beside this folder; the "
            "dense entry must be handed in first"
        )
    return found


def unknown_faults(manifest: Manifest) -> list[str]:
    """Keys that say "unknown", where an entry that is handed in must say what is true.

    Returns:
        One line per key.
    """
    faults = []
    if manifest.licence.strip().lower() in UNKNOWN:
        faults.append(
            "submission.toml: `licence`: expected the licence of the weights, such as MIT, but "
            f"found {manifest.licence!r}; without one, others may not use the weights"
        )
    told = {
        "method.pretrain_objective": manifest.method.pretrain_objective,
        "training.data": manifest.training.data,
    }
    return faults + [
        f"submission.toml: `{key}`: expected the real value, but found {value!r}"
        for key, value in told.items()
        if value.strip().lower() == "unknown"
    ]


def name_faults(folder: Path, manifest: Manifest) -> list[str]:
    """A folder is called what its manifest says."""
    name = folder.resolve().name
    if name in (manifest.id, TEMPLATE):
        return []
    return [
        f"submission.toml: `id`: expected the name of its folder, {name!r}, but found "
        f"{manifest.id!r}"
    ]


def _architecture_faults(manifest: Manifest) -> list[str]:
    name = manifest.model.architecture
    if name is None or name in NAMES:
        return []
    return [
        f"submission.toml: `model.architecture`: no architecture {name!r}: {nearest(name, NAMES)}"
    ]


def _track_faults(manifest: Manifest) -> list[str]:
    try:
        track = get_track(manifest.track)
    except ConfigError as error:
        return [f"submission.toml: `track`: {error}"]
    if manifest.model.num_classes == track.num_classes:
        return []
    return [
        f"submission.toml: `model.num_classes`: expected {track.num_classes} (track "
        f"{track.name}), but found {manifest.model.num_classes}"
    ]


def _weights_faults(folder: Path, name: str) -> list[str]:
    try:
        content = read_plain_file(folder, name, MAX_WEIGHTS_BYTES)
    except FileFaultError as error:
        return [str(error)]
    if name.endswith(ONNX_SUFFIX):
        return [] if content else [f"{name}: expected an ONNX file, but it is empty"]
    try:
        header, _ = parse_header(content)
    except FileFaultError as error:
        return [f"{name}: {error}"]
    return [
        f"{name}: tensor `{tensor}`: expected one of {', '.join(sorted(_KNOWN_TYPES))}, but found "
        f"{entry.dtype}"
        for tensor, entry in header.items()
        if entry.dtype not in _KNOWN_TYPES
    ]
