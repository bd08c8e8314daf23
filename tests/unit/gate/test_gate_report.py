"""What the gate's verdicts read like, in each of its reports."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from rich.console import Console

from corobench.benchmark.gate import report
from corobench.benchmark.gate.rule import Paired, Rule, Verdict, judge_size, worst
from corobench.benchmark.gate.run import Checked
from corobench.benchmark.gate.sequential import looks, settled


@pytest.fixture
def stopped_early() -> Checked:
    """Red after 50 of 500 images, with one metric that lost two images and one that is equal."""
    metrics = [
        Paired("clean", "", 50, 50, 48, 2, 0),
        Paired("pgd50", "1/16", 50, 45, 45, 0, 0),
        Paired("autoattack", "1/16", 50, 45, 25, 20, 0),
    ]
    rule = Rule()
    judged = settled(metrics, 50, looks(500), rule)
    assert judged is not None
    return Checked(
        worst([one.verdict for one in judged]),
        tuple(judged),
        judge_size(1000, 1000, rule),
        n=50,
        total=500,
        is_settled_early=True,
        notes=(),
        rule=rule,
        candidate="model",
        baseline="robustness.json",
        seconds=1.0,
    )


def test_a_metric_that_early_stopping_left_is_called_still_open(stopped_early: Checked) -> None:
    found = {one.paired.name: one.verdict for one in stopped_early.judged}
    assert found == {
        "clean": Verdict.OPEN,
        "pgd50 1/16": Verdict.PASS,
        "autoattack 1/16": Verdict.FAIL,
    }
    assert stopped_early.verdict == Verdict.FAIL
    lines = report.markdown(stopped_early).splitlines()
    assert lines[0].startswith(
        "### corobench: FAIL: autoattack 1/16 (50 of 500 images, clear early"
    )
    (line,) = (line for line in lines if line.startswith("| clean |"))
    assert line.endswith("| still open |")
    assert "warn" not in report.markdown(stopped_early)


def test_the_table_fits_a_terminal(stopped_early: Checked) -> None:
    console = Console(width=80)
    with console.capture() as text:
        console.print(report.terminal_table(stopped_early))
    rows = [line.strip() for line in text.get().splitlines()]
    assert any(row.startswith("clean") and row.endswith("still open") for row in rows)
    assert max(map(len, rows)) <= 80 and not any("…" in row for row in rows)


def test_github_gets_an_error_for_red_and_a_notice_for_what_is_open(stopped_early: Checked) -> None:
    notice, error = report.workflow_commands(stopped_early)
    assert notice.startswith("::notice title=corobench::clean: 100.0 % to 96.0 %")
    assert notice.endswith("; still open, because the comparison stopped early")
    assert error.startswith("::error title=corobench::autoattack 1/16")
    assert error.endswith("; this is not chance")


def test_json_and_junit_say_it_too(stopped_early: Checked) -> None:
    content = json.loads(report.as_json(stopped_early))
    assert [one["verdict"] for one in content["metrics"]] == ["still open", "pass", "fail"]
    suite = ElementTree.fromstring(report.as_junit(stopped_early))
    counted = {key: suite.get(key) for key in ("tests", "failures", "skipped")}
    assert counted == {"tests": "4", "failures": "1", "skipped": "1"}
    (skipped,) = suite.iter("skipped")
    assert "still open" in skipped.attrib["message"]
