"""What the gate found, for people and for machines: terminal, JSON, JUnit XML, GitHub."""

from __future__ import annotations

import json
from dataclasses import asdict
from xml.etree import ElementTree

from rich import box
from rich.table import Table
from rich.text import Text

from corobench.benchmark.gate.rule import Judged, Verdict
from corobench.benchmark.gate.run import Checked
from corobench.benchmark.scoring.terminal import percent

SCHEMA = "corobench.check/1"
_MEANING = {
    Verdict.PASS: "",
    Verdict.OPEN: "; still open, because the comparison stopped early",
    Verdict.WARN: "; this may be chance",
    Verdict.FAIL: "; this is not chance",
}
_COLUMNS = ("metric", "baseline", "candidate", "drop", "lost:won", "p", "verdict")


def headline(checked: Checked) -> str:
    """One line for people."""
    images = f"{checked.n} of {checked.total} images"
    how = ", clear early" if checked.is_settled_early else ""
    failing = [one.paired.name for one in checked.judged if one.verdict == Verdict.FAIL]
    if checked.size.verdict == Verdict.FAIL:
        failing.append("packed bytes")
    what = f": {', '.join(failing)}" if failing else ""
    return f"{checked.verdict.upper()}{what} ({images}{how}, {checked.seconds:.0f} s)"


def _rows(checked: Checked) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in checked.judged:
        metric = one.paired
        rows.append(
            (
                metric.name,
                percent(metric.baseline, metric.n),
                percent(metric.candidate, metric.n),
                f"{metric.drop:+.1f}",
                f"{metric.only_baseline}:{metric.only_candidate}",
                f"{one.p_corrected:.3g}",
                str(one.verdict),
            )
        )
    size = checked.size
    sizes = (f"{size.baseline:,}", f"{size.candidate:,}", f"{size.growth:+.1f} %")
    rows.append(("packed bytes", *sizes, "", "", str(size.verdict)))
    return rows


def terminal_table(checked: Checked) -> Table:
    """One row per metric; fits 80 columns."""
    table = Table(
        title=headline(checked),
        caption=Text("\n".join(checked.notes), style="table.caption"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    for column in _COLUMNS:
        is_text = column in ("metric", "verdict")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    style = {"fail": "bold red", "warn": "yellow", "still open": "dim", "pass": ""}
    for row in _rows(checked):
        table.add_row(*row, style=style[row[-1]])
    return table


def markdown(checked: Checked) -> str:
    """The same for GitHub's job summary."""
    lines = [f"### corobench: {headline(checked)}", "", f"| {' | '.join(_COLUMNS)} |"]
    lines.append("|---|" + "---:|" * (len(_COLUMNS) - 2) + "---|")
    lines += [f"| {' | '.join(row)} |" for row in _rows(checked)]
    lines += ["", *(f"- {note}" for note in checked.notes)]
    return "\n".join(lines) + "\n"


def workflow_commands(checked: Checked) -> list[str]:
    """GitHub's workflow commands: an error per failing metric, a warning per doubtful one.

    A metric that early stopping left open is a notice.
    """
    kinds = {Verdict.FAIL: "error", Verdict.WARN: "warning", Verdict.OPEN: "notice"}
    found = [
        f"::{kinds[one.verdict]} title=corobench::{_sentence(one, checked)}"
        for one in checked.judged
        if one.verdict in kinds
    ]
    if checked.size.verdict == Verdict.FAIL:
        found.append(f"::error title=corobench::{_size_sentence(checked)}")
    return found


def _sentence(one: Judged, checked: Checked) -> str:
    metric = one.paired
    return (
        f"{metric.name}: {percent(metric.baseline, metric.n)} to "
        f"{percent(metric.candidate, metric.n)}, {metric.drop:+.1f} points lost on {metric.n} "
        f"images (at most {checked.rule.max_drop:g} allowed), {metric.only_baseline} images lost "
        f"and {metric.only_candidate} won, corrected p {one.p_corrected:.3g}{_MEANING[one.verdict]}"
    )


def _size_sentence(checked: Checked) -> str:
    size = checked.size
    return (
        f"packed bytes: {size.baseline:,} to {size.candidate:,}, {size.growth:+.1f} % "
        f"(at most {checked.rule.max_bytes_growth:g} % allowed)"
    )


def as_json(checked: Checked) -> str:
    """Everything, as a JSON document."""
    content = {
        "schema": SCHEMA,
        "verdict": checked.verdict,
        "candidate": checked.candidate,
        "baseline": checked.baseline,
        "n": checked.n,
        "total": checked.total,
        "is_settled_early": checked.is_settled_early,
        "seconds": round(checked.seconds, 3),
        "rule": asdict(checked.rule),
        "metrics": [
            {
                **asdict(one.paired),
                "drop": one.paired.drop,
                "p_value": one.p_value,
                "p_corrected": one.p_corrected,
                "verdict": one.verdict,
            }
            for one in checked.judged
        ],
        "bytes_packed": {
            "baseline": checked.size.baseline,
            "candidate": checked.size.candidate,
            "growth": checked.size.growth,
            "verdict": checked.size.verdict,
        },
        "notes": list(checked.notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_junit(checked: Checked) -> str:
    """A JUnit test suite with one case per metric.

    A warning is a passed case with output; what early stopping left open is a skipped case.
    """
    cases = [(one.paired.name, one.verdict, _sentence(one, checked)) for one in checked.judged]
    cases.append(("packed bytes", checked.size.verdict, _size_sentence(checked)))
    found = [verdict for _, verdict, _ in cases]
    suite = ElementTree.Element(
        "testsuite",
        name="corobench",
        tests=str(len(cases)),
        failures=str(found.count(Verdict.FAIL)),
        skipped=str(found.count(Verdict.OPEN)),
        time=f"{checked.seconds:.3f}",
    )
    for name, verdict, sentence in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="corobench", name=name)
        if verdict == Verdict.FAIL:
            ElementTree.SubElement(case, "failure", message=sentence)
        elif verdict == Verdict.OPEN:
            ElementTree.SubElement(case, "skipped", message=sentence)
        elif verdict == Verdict.WARN:
            ElementTree.SubElement(case, "system-out").text = sentence
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
