"""A result in the layout that model hubs read: `.eval_results/*.yaml`, and a model card.

The layout and where it is described: docs/decisions/0012-model-hubs.md. Every text is written as a
JSON string, which YAML reads as it is, so that nothing in a manifest can add a key. Imports no
torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from corobench.benchmark.errors import ConfigError
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.known import is_lower_end_known
from corobench.benchmark.scoring.ranking import bracket
from corobench.benchmark.scoring.statistics import wilson
from corobench.benchmark.tracks import get_track

#: Where a hub looks for results.
RESULTS_PATH = ".eval_results/corobench.yaml"
CARD_PATH = "README.md"

_DATASET = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_ADDRESS = re.compile(r"https?://[^\s<>\"']{1,500}")
#: Licences that hubs know by these names.
_LICENCES = ("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "gpl-3.0")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~-])")


@dataclass(frozen=True)
class Figure:
    """One number of a result.

    Attributes:
        task: its key among the tasks of the benchmark.
        words: its name for people.
        count: images, out of n.
        note: what it is exactly.
    """

    task: str
    words: str
    count: int
    note: str


def figures(result: Result) -> Iterator[Figure]:
    """The numbers that a hub is told: clean, and per radius the bracket and AutoAttack.

    The proven share is left out where it is not known: it is not 0.
    """
    track = result.track
    yield Figure(f"{track}-clean", "Clean accuracy", result.clean, "right without an attack")
    for epsilon, score in result.epsilons.items():
        low, high = bracket(score)
        stem, at = f"{track}-{epsilon.replace('/', '-')}", f"l-inf {epsilon}"
        if is_lower_end_known(score):
            note = f"{at}, lower end of the bracket: proven right"
            yield Figure(f"{stem}-proven", f"Proven robust accuracy, {at}", low, note)
        note = f"{at}, upper end of the bracket: not broken by any attack"
        yield Figure(f"{stem}-unbroken", f"Unbroken robust accuracy, {at}", high, note)
        note = f"{at}, right after the standard suite"
        yield Figure(f"{stem}-autoattack", f"AutoAttack accuracy, {at}", score.autoattack, note)


def eval_results(result: Result, dataset: str, source: str = "") -> bytes:
    """The file `.eval_results/corobench.yaml`: one item per figure, in percent.

    Args:
        result: of the entry.
        dataset: id of the benchmark's data on the hub, "owner/name".
        source: address where the result can be looked at; empty to name none.

    Raises:
        ConfigError: `dataset` or `source` is no such thing.
    """
    if not _DATASET.fullmatch(dataset):
        raise ConfigError(f"dataset: expected an id such as owner/name, but found {dataset!r}")
    if source and not _ADDRESS.fullmatch(source):
        raise ConfigError(f"source: expected an address with http(s), but found {source!r}")
    named = ["  source:", f"    url: {_text(source)}", '    name: "corobench"'] if source else []
    told = f"n = {result.n}, {result.data.kind} images, protocol {result.protocol}"
    lines = []
    for figure in figures(result):
        low, high = (f"{100 * end:.1f}" for end in wilson(figure.count, result.n))
        notes = f"{figure.note}; {told}; 95 % interval {low} to {high}"
        lines += [
            "- dataset:",
            f"    id: {_text(dataset)}",
            f"    task_id: {_text(figure.task)}",
            f"  value: {_percent(figure.count, result.n)}",
            *([f"  date: {_text(result.date)}"] if result.date else []),
            *named,
            '  evaluation_framework: "corobench"',
            f"  notes: {_text(notes)}",
        ]
    return ("\n".join(lines) + "\n").encode()


def model_card(result: Result) -> bytes:
    """The model card: what the entry is, what was measured, how to load it.

    Its head repeats the figures as `model-index`, which hubs show where the data is no benchmark.
    """
    submission, track, size = result.submission, get_track(result.track), result.compactness
    licence = submission.licence.lower()
    is_known = licence in _LICENCES
    head = [
        "---",
        f"license: {_text(licence if is_known else 'other')}",
        *([] if is_known else [f"license_name: {_text(submission.licence)}"]),
        'pipeline_tag: "image-classification"',
        'tags: ["corobench", "adversarial-robustness", "certified-robustness", "pruning"]',
        "model-index:",
        f"- name: {_text(result.entry)}",
        "  results:",
        '  - task: {"type": "image-classification"}',
        "    dataset:",
        f"      type: {_text(result.track)}",
        f"      name: {_text(track.title)}",
        "    metrics:",
    ]
    for figure in figures(result):
        value = _percent(figure.count, result.n)
        head.append(
            f'    - {{"type": "accuracy", "value": {value}, "name": {_text(figure.words)}}}'
        )
    rows = [
        f"| {figure.words} | {_percent(figure.count, result.n)} | {figure.count} |"
        for figure in figures(result)
    ]
    body = [
        "---",
        "",
        f"# {_markdown(submission.title)}",
        "",
        f"`{result.entry}` by {_markdown(', '.join(submission.authors))}. "
        f"{size.num_nonzero:,} non-zero parameters of {size.num_parameters:,}; "
        f"{size.bytes_packed:,} bytes as a bitmask and values.",
        "",
        *([_markdown(submission.description), ""] if submission.description else []),
        f"Measured by corobench, protocol {result.protocol}, on the first {result.n:,} images of "
        f"the published order of {track.title} ({result.data.kind} data). The true robust accuracy "
        "lies between proven and unbroken.",
        "",
        f"| Figure | % of n = {result.n:,} | Images |",
        "|---|---|---|",
        *rows,
        "",
        "```python",
        "import corobench",
        "model = corobench.load_model(FOLDER)",
        f"result = corobench.load_result(FOLDER + {json.dumps(f'/{result.entry}.json')})",
        "```",
        "",
        f"Method: {_markdown(submission.method.name)}. Trained on: "
        f"{_markdown(submission.training.data)}. sha256 of the effective weights: "
        f"`{result.weights_sha256}`.",
    ]
    return ("\n".join([*head, *body]) + "\n").encode()


def _percent(count: int, n: int) -> float:
    return round(100 * count / n, 2)


def _text(text: str) -> str:
    """A scalar on one line that YAML reads back as this text, without invisible characters."""
    return json.dumps("".join(one for one in text if one.isprintable()), ensure_ascii=False)


def _markdown(text: str) -> str:
    """A stranger's text on one line, shown as it is; nothing in it is markup or invisible."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;"))
