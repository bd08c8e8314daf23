"""Where an entry is that was named: a folder, an ONNX file, or an entry of the checkout."""

from __future__ import annotations

from pathlib import Path

from corobench.benchmark.errors import ConfigError, nearest
from corobench.benchmark.submission.kinds import is_onnx, kind_of

#: The checkout that this file belongs to, if it is one.
_CHECKOUT = Path(__file__).resolve().parents[2]


def entry_at(entry: object) -> Path:
    """The folder or ONNX file of an entry.

    Args:
        entry: a path; or the name of an entry, looked up in ``submissions`` of the current folder
            and of the checkout that corobench is installed from.

    Raises:
        ConfigError: neither; names the nearest known entry.

    >>> entry_at("digits-ibp-dense").name
    'digits-ibp-dense'
    """
    if not isinstance(entry, str | Path):
        raise ConfigError(
            "model: expected a torch.nn.Module, a submission folder, an ONNX file or an entry's "
            f"name, but found {type(entry).__name__}"
        )
    path = Path(entry).expanduser()
    if path.is_dir() or (path.is_file() and is_onnx(path)):
        return path
    if path.exists():
        hint = ""
        if kind_of(path) in ("torch", "safetensors"):
            hint = "; `corobench import` makes a folder of a checkpoint"
        raise ConfigError(f"{path}: expected a submission folder or an ONNX file{hint}")
    folders = list(dict.fromkeys((Path("submissions").resolve(), _CHECKOUT / "submissions")))
    for folder in folders:
        if path.name == str(entry) and (folder / path.name / "submission.toml").is_file():
            return folder / path.name
    known = sorted(
        one.parent.name for folder in folders for one in folder.glob("*/submission.toml")
    )
    hint = nearest(path.name, known) if known and path.name == str(entry) else ""
    hint = hint if hint.startswith("did") else "expected a path that is there"
    raise ConfigError(
        f"{entry}: no submission folder, no ONNX file, and no entry in ./submissions or in the "
        f"checkout of corobench; {hint}"
    )
