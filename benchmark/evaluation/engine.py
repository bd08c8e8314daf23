"""The version of the code that decides: what enters a result's identity beside its settings.

A constant that changes a number may stand anywhere in that code, and nobody remembers to raise a
version by hand. So the version is computed: a sha256 over the syntax of every deciding module.
Comments, docstrings and formatting are no part of it; every number, name and operator is. A module
that moves or is renamed makes another version, which costs nothing but unfinished work.

`DECIDES` and `EXCLUDED` together hold every module that an evaluation imports; a test compares them
with the imports. This module imports no torch.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from corobench.benchmark.errors import DependencyError

#: Modules that decide a number of a result, below `benchmark`; a package stands for all in it.
DECIDES = (
    "attacks",
    "certify",
    "data",
    "evaluation",
    "network",
    "records.reading.columns",
    "referee",
    "scoring.score",
    "submission",
    "tracks",
)

#: Modules that an evaluation imports and that decide none -> why. They win over `DECIDES`.
EXCLUDED: Mapping[str, str] = {
    "": "holds the version number, which is in the identity by itself",
    "certify.kept_bounds": "keeps bounds, as they were computed",
    "certify.training": "bounds to train with; an evaluation imports and never calls it",
    "data.clean_images": "copies of test images, for pages",
    "data.download": "brings files, whose checksums and fingerprint are compared after it",
    "errors": "messages",
    "evaluation.engine": "this list",
    "evaluation.evidence": "reads results that are there",
    "evaluation.settings": "what a user chose; the identity holds it as it was resolved",
    "files": "names its modules",
    "files.atomic": "writes files",
    "files.chunks": "keeps chunks, as they were computed",
    "files.new_folder": "makes folders for other commands",
    "files.console": "text for people",
    "files.progress": "text for people",
    "files.regular": "refuses pipes and devices",
    "files.safe_json": "reads results that are there",
    "files.steps": "names of steps",
    "files.toml": "refuses files; decides no number",
    "files.text": "refuses files; decides no number",
    "records": "names its modules",
    "records.base": "types of keys",
    "records.encoding": "writes what was decided",
    "records.identity": "names a run by what it is made of",
    "records.image_coding": "makes files smaller, and reads each again before it is kept",
    "records.manifest": "the shape of files",
    "records.reading": "names its modules",
    "records.reading.arrays_file": "reads results that are there",
    "records.reading.attack_values": "the codes of stored images",
    "records.reading.belonging": "refuses tables that are not their run's",
    "records.reading.code_packing": "the codes of stored images",
    "records.reading.coded_images": "reads results that are there",
    "records.reading.consistency": "refuses results that cannot be true",
    "records.reading.faults": "messages",
    "records.reading.parquet_pages": "refuses files that are too large",
    "records.reading.places": "names of files",
    "records.reading.published": "refuses tables of other images",
    "records.reading.result_file": "reads results that are there",
    "records.reading.radii": "refuses rows that contradict each other",
    "records.reading.rows": "refuses rows that contradict themselves",
    "records.reading.table_file": "reads results that are there",
    "records.reading.zip_layout": "refuses files of two faces",
    "records.reports": "the answers of other commands",
    "records.result": "the shape of files",
    "records.result_set": "compares files with their digests",
    "records.sizes": "the shape of files",
    "records.weighing": "refuses results of other weights",
    "scoring": "names its modules",
    "scoring.ranking": "what is said about a result; no count comes from it",
    "scoring.result_writing": "writes what was decided",
    "scoring.rounds": "refuses to write into frozen rounds",
    "scoring.scored": "compares results with their tables",
    "scoring.statistics": "intervals for people; no count comes from them",
    "submission.architecture_names": "for checks without torch",
    "submission.checkpoint": "reads other formats, for `corobench import`",
    **dict.fromkeys(
        (
            "submission.collecting",
            "submission.fitting",
            "submission.mask_sets",
            "submission.matching",
            "submission.naming",
            "submission.reparametrised",
            "submission.strangers",
        ),
        "names and masks of checkpoints, for `corobench import`",
    ),
    "submission.converting": "makes folders, for other commands",
    "submission.converting_bf16": "makes folders, for other commands",
    "submission.files": "atomic writing",
    "submission.graph.external": "reads files beside an ONNX file; what is in them is hashed",
    "submission.graph.exporting": "writes ONNX, for `corobench convert`",
    "submission.headers": "refuses folders; decides no number",
    "submission.importing": "makes folders, for `corobench import`",
    "submission.kinds": "what kind of file it is; decides no number",
    "submission.intake_faults": "refuses folders; decides no number",
    "submission.latency": "seconds, for people",
    "submission.likeness": "refuses folders; decides no number",
    "submission.manifest": "reads the manifest; what decides of it is in the identity",
    "submission.packing": "writes weights in another form",
    "submission.raising": "refuses networks; decides no number",
    "submission.validate": "refuses folders; decides no number",
    "submission.writing": "makes folders, for other commands",
}

#: Deciding modules whose numbers are not listed for people: `settings` has them, or they are limits
#: of files and shapes of networks.
NOT_LISTED = ("data", "submission", "tracks")
#: The exceptions.
LISTED = ("submission.contract", "submission.rounding")

_ROOT = Path(__file__).parents[1]
#: Digits of the version: 64 bits, against confusion and not against forgery.
_NUM_DIGITS = 16
_MAX_SHOWN = 200


@cache
def version() -> str:
    """The version of the deciding code as it is installed: 16 hexadecimal digits.

    It is the same for one source on every machine and, as far as the syntax of Python stays what it
    is, under every Python: fields of the syntax tree that are empty are left out, because new
    versions add such fields. Where a later Python parses the same text to another tree, the version
    differs, and a result counts as another one.
    """
    return version_of({name: path.read_text(encoding="utf-8") for name, path in modules().items()})


def version_of(sources: Mapping[str, str]) -> str:
    """The version of modules, name -> source.

    >>> one = version_of({"a": "X = 1  # one"})
    >>> one == version_of({"a": "X=1"}), one == version_of({"a": "X = 2"})
    (True, False)
    """
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        tree = "".join(_parts(ast.parse(source)))
        digest.update(f"{name}\0{tree}\0".encode())
    return digest.hexdigest()[:_NUM_DIGITS]


@cache
def modules() -> Mapping[str, Path]:
    """Every module that decides, name below `benchmark` -> its file.

    Raises:
        DependencyError: corobench is installed without its source.
    """
    files = {_name_of(path): path for path in sorted(_ROOT.rglob("*.py"))}
    if "evaluation.evaluate" not in files:
        raise DependencyError(
            f"{_ROOT}: the source files of corobench are missing, but they are part of what "
            "identifies a result; install corobench from a wheel or a checkout, with its .py files"
        )
    return {name: path for name, path in files.items() if decides(name)}


def decides(name: str) -> bool:
    """Whether a module below `benchmark` decides; what neither list holds does not.

    >>> decides("certify.budget"), decides("certify.training"), decides("progress")
    (True, False, False)
    """
    if name in EXCLUDED:
        return False
    return any(name == one or name.startswith(f"{one}.") for one in DECIDES)


def _name_of(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parts(node: object) -> Iterator[str]:
    """A syntax tree as text: names of nodes and fields, without positions and empty fields."""
    if isinstance(node, list):
        yield "["
        for one in node:
            if not _is_text(one):
                yield from _parts(one)
                yield ","
        yield "]"
    elif isinstance(node, ast.Constant):
        yield f"{type(node.value).__name__}:{node.value!r}"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or field in ("ctx", "type_comment"):
                continue
            yield f"{field}="
            yield from _parts(value)
            yield ";"
        yield ")"
    else:
        yield repr(node)


def _is_text(node: object) -> bool:
    """Whether a statement is a text alone: a docstring, or a comment written as one."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# ------------------------------------------------------------------------------ for people


@cache
def constants() -> Mapping[str, object]:
    """Numbers of the deciding code by name, for people: ``certify.prover.ALPHA_STEPS``.

    Constants of modules and defaults of typed fields of classes. What is no plain number, or a list
    of such, stands as its source text, where that holds a number and is short.
    """
    found: dict[str, object] = {}
    for name, path in modules().items():
        if name.split(".")[0] in NOT_LISTED and name not in LISTED:
            continue
        found |= constants_in(path.read_text(encoding="utf-8"), name)
    return found


def constants_in(source: str, module: str) -> dict[str, object]:
    """Those of one module.

    >>> constants_in("SIZE = 2**4\\nname = 'x'\\nclass A:\\n    rate: float = 0.5", "m")
    {'m.SIZE': 16, 'm.A.rate': 0.5}
    """
    found: dict[str, object] = {}
    tree = ast.parse(source)
    for name, value in _assigned(tree.body):
        if name.isupper():
            _add(found, f"{module}.{name}", value)
    for one in tree.body:
        if isinstance(one, ast.ClassDef):
            fields = [line for line in one.body if isinstance(line, ast.AnnAssign)]
            for name, value in _assigned(fields):
                _add(found, f"{module}.{one.name}.{name}", value)
    return found


def _assigned(body: list[ast.stmt] | list[ast.AnnAssign]) -> Iterator[tuple[str, ast.expr]]:
    for one in body:
        if isinstance(one, ast.AnnAssign) and one.value and isinstance(one.target, ast.Name):
            yield one.target.id, one.value
        elif isinstance(one, ast.Assign):
            for target in one.targets:
                yield from _pairs(target, one.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of ``A = 1`` and of ``A, B = 1, 2``."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, its)


def _add(found: dict[str, object], name: str, node: ast.expr) -> None:
    number = _number(node)
    if number is not None:
        found[name] = number
        return
    text = ast.unparse(node)
    numbers = [one for one in ast.walk(node) if _number(one) is not None]
    if numbers and len(text) <= _MAX_SHOWN:
        found[name] = text


def _number(node: ast.AST) -> int | float | None:
    """What an expression of numbers alone is; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left), _number(node.right)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Pow):
            return left**right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    return None
