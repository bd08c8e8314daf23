"""Open images of a result as questions to any verifier: ONNX and VNN-LIB, and its verdicts.

A question describes a counterexample: an image of the verified box on which another logit is at
least the label's. So "unsat" says that the image holds, and "sat" that it does not.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import SupportsFloat

import numpy as np
import torch
from numpy.typing import NDArray

from corobench.benchmark.errors import ConfigError, ResultError, nearest
from corobench.benchmark.evaluation.evidence import Evidence, load_evidence
from corobench.benchmark.files.new_folder import fresh_folder, refuse_existing
from corobench.benchmark.files.text import byte_order_mark
from corobench.benchmark.records.reports import ExportedQuestions, ProofsSeen
from corobench.benchmark.records.result import Outcome
from corobench.benchmark.referee import threat
from corobench.benchmark.scoring.scored import read_scored
from corobench.benchmark.submission.files import read_plain_file, write_atomically
from corobench.benchmark.submission.graph.exporting import export_checked
from corobench.benchmark.submission.header import MAX_WEIGHTS_BYTES
from corobench.benchmark.tracks import chosen_radii, parse_epsilon

OPEN = (Outcome.UNDECIDED, Outcome.TIMEOUT)
"""Outcomes of images that are neither proven nor broken."""

MODEL, INSTANCES = "model.onnx", "instances.csv"
VERSIONS = ("1.0", "2.0")
HOLDS, BROKEN = "unsat", "sat"
VERDICTS = (HOLDS, BROKEN, "unknown", "timeout", "error")

MAX_VERDICT_BYTES = 16 * 2**20
_NAME = re.compile(r"image-(?P<image>\d{1,9})-(?P<above>\d{1,9})_(?P<below>\d{1,9})\.vnnlib")
_SAMPLE = 16


def export_vnnlib(
    result_path: Path,
    submission: Path,
    out: Path,
    data_root: Path | None = None,
    *,
    epsilon: str | None = None,
    version: str = "1.0",
    seconds: int = 300,
) -> ExportedQuestions:
    """Write a network as ONNX, and each of its open images as a VNN-LIB file.

    Args:
        result_path: the result file; its outcome table and adversarial images lie beside it.
        submission: folder of the entry.
        out: the new folder.
        data_root: folder of the dataset, or None for the usual search.
        epsilon: one radius of the result; all by default.
        version: of VNN-LIB.
        seconds: that a verifier may take for a file, as `instances.csv` says.

    Raises:
        CorobenchError: a file is missing or broken, or belongs to other weights or images; the
            network cannot be written; nothing is open; or `out` exists.
    """
    refuse_existing(out)
    if version not in VERSIONS:
        raise ConfigError(f"VNN-LIB version {version!r}: {nearest(version, VERSIONS)}")
    evidence = load_evidence(result_path, submission, data_root)
    radii = chosen_radii(evidence.run.epsilons, epsilon)
    rows = [
        (int(row.image), int(row.label), str(row.epsilon))
        for row in evidence.table.itertuples()
        if row.epsilon in radii and row.outcome in OPEN
    ]
    if not rows:
        raise ResultError(f"{result_path}: no image is open at {', '.join(radii)}")
    names = []
    with fresh_folder(out) as folder:
        write_atomically(folder / MODEL, _network(evidence))
        for image, label, radius in rows:
            name = _name(image, radius)
            write_atomically(folder / name, _question(evidence, image, label, radius, version))
            names.append(name)
        lines = "".join(f"{MODEL},{name},{seconds}\n" for name in names)
        write_atomically(folder / INSTANCES, lines.encode())
    counts = Counter(radius for _, _, radius in rows)
    return ExportedQuestions(out, {radius: counts[radius] for radius in radii}, version)


def _network(evidence: Evidence) -> bytes:
    """The submitted ONNX file, or the network written as one and compared with it."""
    entry = evidence.submission
    if entry.format == "onnx":
        return read_plain_file(entry.folder, entry.manifest.model.weights, MAX_WEIGHTS_BYTES)
    images = torch.from_numpy(evidence.dataset.take(range(min(_SAMPLE, len(evidence.dataset)))))
    return export_checked(entry.model.eval(), entry.track.shape, images)[0]


def _name(image: int, epsilon: str) -> str:
    """The file of an image at a radius.

    >>> _name(17, "2/255")
    'image-17-2_255.vnnlib'
    """
    return f"image-{image}-{epsilon.replace('/', '_')}.vnnlib"


def _question(evidence: Evidence, image: int, label: int, epsilon: str, version: str) -> bytes:
    x = torch.from_numpy(evidence.dataset.take([image]))
    low, high = (one[0].numpy() for one in threat.box(x, parse_epsilon(epsilon)))
    title = f"{evidence.run.entry}, test image {image}, label {label}, epsilon {epsilon}"
    write = question_1 if version == "1.0" else question_2
    return write(low, high, label, evidence.submission.track.num_classes, title).encode()


def question_1(
    low: NDArray[np.float32], high: NDArray[np.float32], label: int, classes: int, title: str
) -> str:
    """A counterexample in VNN-LIB 1.0: X_i are the pixels in order, Y_i the logits.

    Args:
        low: float32 (C, H, W), lower corner.
        high: float32 like `low`.
        label: class of the image.
        classes: number of logits.
        title: for people, in one line.
    """
    sides = list(enumerate(zip(low.reshape(-1), high.reshape(-1), strict=True)))
    lines = [f"; {title}"]
    lines += [f"(declare-const X_{place} Real)" for place, _ in sides]
    lines += [f"(declare-const Y_{place} Real)" for place in range(classes)]
    for place, (least, most) in sides:
        lines.append(f"(assert (>= X_{place} {decimal(least)}))")
        lines.append(f"(assert (<= X_{place} {decimal(most)}))")
    others = [place for place in range(classes) if place != label]
    cases = " ".join(f"(and (>= Y_{other} Y_{label}))" for other in others)
    return "\n".join([*lines, f"(assert (or {cases}))"]) + "\n"


def question_2(
    low: NDArray[np.float32], high: NDArray[np.float32], label: int, classes: int, title: str
) -> str:
    """The same in VNN-LIB 2.0, where X is one image of a batch of 1; arguments of `question_1`."""
    shape = ", ".join(str(size) for size in (1, *low.shape))
    lines = [
        "(vnnlib-version <2.0>)",
        f"; {title}",
        "(declare-network N",
        f"  (declare-input X float32 [{shape}])",
        f"  (declare-output Y float32 [1, {classes}])",
        ")",
    ]
    for place in np.ndindex(*low.shape):
        at = ", ".join(str(number) for number in (0, *place))
        lines.append(f"(assert (>= X[{at}] {decimal(low.item(place))}))")
        lines.append(f"(assert (<= X[{at}] {decimal(high.item(place))}))")
    others = [place for place in range(classes) if place != label]
    cases = " ".join(f"(>= Y[0, {other}] Y[0, {label}])" for other in others)
    return "\n".join([*lines, f"(assert (or {cases}))"]) + "\n"


def decimal(value: SupportsFloat) -> str:
    """All decimals of a number, so that the box is the very same; no exponent.

    >>> decimal(0.0), decimal(0.5), decimal(2.0**-10)
    ('0.0', '0.5', '0.0009765625')
    """
    text = format(Decimal(float(value)), "f")
    return text if "." in text else f"{text}.0"


# ------------------------------------------------------------------------------ verdicts


def read_verdicts(path: Path) -> dict[str, str]:
    """File of a question -> verdict, as a verifier gave it.

    Args:
        path: CSV without a heading: name of the file, verdict, and what else there is.

    Raises:
        ResultError: too large, or a line without a known verdict.
    """
    if not path.is_file() or path.stat().st_size > MAX_VERDICT_BYTES:
        raise ResultError(f"{path}: expected a file of at most {MAX_VERDICT_BYTES} bytes")
    content = path.read_bytes()
    if (mark := byte_order_mark(content)) is not None:
        raise ResultError(f"{path}: {mark}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ResultError(f"{path}: expected text in UTF-8") from error
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path, text), start=1):
        if not line:
            continue
        verdict = line[1].strip().lower() if len(line) > 1 else ""
        name = Path(line[0].strip()).name
        if verdict not in VERDICTS or _NAME.fullmatch(name) is None:
            raise ResultError(
                f"{path}, line {number}: expected a file such as image-17-2_255.vnnlib and one of "
                f"{', '.join(VERDICTS)}, but found {','.join(line)[:100]!r}"
            )
        if found.setdefault(name, verdict) != verdict:
            raise ResultError(f"{path}, line {number}: {name} has two verdicts")
    return found


def _lines(path: Path, text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text))
    except csv.Error as error:
        raise ResultError(f"{path}: expected lines of file and verdict ({error})") from error


def see_proofs(result_path: Path, path: Path) -> ProofsSeen:
    """What verdicts of somebody else's verifier would say, if they were believed. They are not.

    Nothing is written and no number changes. Only an image can be checked here: a counterexample
    belongs into a contest.

    Args:
        result_path: the result file; its outcome table lies beside it.
        path: of the verdicts, see `read_verdicts`.

    Raises:
        ResultError: a file is missing or broken, or no verdict is about an image of the result.
    """
    result, table, _ = read_scored(result_path)
    verdicts = read_verdicts(path)
    outcomes = {
        _name(int(row.image), str(row.epsilon)): (str(row.epsilon), str(row.outcome))
        for row in table.itertuples()
    }
    known = {name: one for name, one in verdicts.items() if name in outcomes}
    if not known:
        raise ResultError(f"{path}: no verdict is about an image and radius of {result_path}")
    seen = {epsilon: Counter[str]() for epsilon in result.epsilons}
    for name, verdict in known.items():
        epsilon, outcome = outcomes[name]
        is_open = outcome in OPEN
        seen[epsilon][verdict if is_open or verdict not in (HOLDS, BROKEN) else "decided"] += 1
    against = tuple(_against(known, outcomes))
    return ProofsSeen(
        result,
        {epsilon: dict(counts) for epsilon, counts in seen.items()},
        len(verdicts) - len(known),
        against,
    )


def _against(known: Mapping[str, str], outcomes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Verdicts that contradict what was measured or proven here, one line each."""
    for name, verdict in sorted(known.items()):
        outcome = outcomes[name][1]
        if verdict == HOLDS and outcome in (Outcome.ATTACKED, Outcome.MISCLASSIFIED):
            yield f"{name}: {verdict}, but it is {outcome} here"
        if verdict == BROKEN and outcome == Outcome.CERTIFIED:
            yield f"{name}: {verdict}, but it is {outcome} here"
