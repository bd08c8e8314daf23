"""What a user sees while an evaluation runs."""

import io

import numpy as np
from rich.console import Console

from corobench.benchmark.evaluation.facts import EpsilonFacts, Facts
from corobench.benchmark.files.progress import Reporter, live_bars


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_without_a_terminal_a_long_stage_says_rate_rest_and_what_is_known() -> None:
    console = _console(terminal=False)
    with Reporter("entry", console, interval_s=-1.0) as report:
        report.stage("autoattack 1/10", 40)
        report.advance(10, "50.0–70.0 %")
        report.note("apgd-t after 250 images")
        report.finish("done")
    text = console.file.getvalue()
    assert "entry: autoattack 1/10: 10/40 images, " in text
    assert "/s, " in text
    assert " s left; 50.0–70.0 %" in text
    assert "autoattack 1/10: 10/40 images; apgd-t after 250 images" in text
    assert "autoattack 1/10: done (" in text


def test_on_a_terminal_a_bar_shows_count_rate_and_note() -> None:
    console = _console(terminal=True)
    bars = live_bars(console, "images", bar_width=10)
    with bars:
        task = bars.add_task("BaB 1/16", total=4, note="")
        bars.update(task, advance=4, note="60.0–66.0 %")
        bars.refresh()
    text = console.file.getvalue()
    assert "BaB 1/16" in text
    assert "4/4" in text
    assert "/s" in text
    assert "60.0–66.0 %" in text


def test_the_bracket_so_far_counts_what_is_not_recorded_yet() -> None:
    facts = Facts(np.zeros(10, dtype=np.int64), np.ones(10, dtype=bool), {})
    facts.correct[9] = False
    facts.epsilons["1/16"] = known = EpsilonFacts.empty(10)
    known.proven_by[:3] = "IBP"
    known.broken_by[8] = "pgd50"
    assert facts.bracket_note("1/16").startswith("30.0–80.0 % (95 %: ")
    more, broken = np.zeros((2, 10), dtype=bool)
    more[3:5], broken[7] = True, True
    assert facts.bracket_note("1/16", more, broken).startswith("50.0–70.0 %")
