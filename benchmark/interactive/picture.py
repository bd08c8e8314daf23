"""The result of an evaluation as a picture for notebooks: the brackets as bars, in HTML and SVG.

It is complete in itself: no script, no style sheet, no font, no network. Colours are those of the
leaderboard, in light and in dark; text has the colour of its surroundings. A reader that shows no
pictures reads the same numbers, from the SVG's title and from the table below it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from corobench.benchmark.interactive.text import percent, remarks
from corobench.benchmark.records.result import Outcome

if TYPE_CHECKING:
    from corobench.benchmark.interactive.result import Bracket, EvaluationResult

#: Parts of a bar from the proven end to the wrong one: key, name, outcomes.
_PARTS = (
    ("certified", "certified", (Outcome.CERTIFIED,)),
    ("undecided", "undecided", (Outcome.UNDECIDED,)),
    ("unfinished", "timeout or error", (Outcome.TIMEOUT, Outcome.ERROR)),
    ("attacked", "attacked", (Outcome.ATTACKED,)),
    ("misclassified", "misclassified", (Outcome.MISCLASSIFIED,)),
)
_LIGHT = {
    "certified": "#1f6fbf",
    "undecided": "#cfe2f5",
    "unfinished": "#6b5b95",
    "attacked": "#e07b1a",
    "misclassified": "#a9adb5",
}
_DARK = {
    "certified": "#4e9ff0",
    "undecided": "#22374d",
    "unfinished": "#a896d8",
    "attacked": "#ef9440",
    "misclassified": "#626973",
}
#: Sizes in user units of the SVG.
_LEFT, _BAR, _ROW, _HEIGHT, _RIGHT = 70, 400, 46, 18, 10


def as_html(result: EvaluationResult) -> str:
    """The whole picture, as HTML that can be put into any page."""
    size, n = result.compactness, result.n
    low, high = (f"{100 * end:.1f}" for end in result.clean_interval)
    title = f"{result.record.submission.title} on {result.track}"
    lines = [
        '<div class="corobench-result" style="max-width:40em">',
        f"<style>{_style()}</style>",
        f"<p><strong>{escape(title)}</strong>, n = {n}. Clean {percent(result.clean, n)} "
        f"(95 %: {low}–{high}). Parameters left {size.num_nonzero:,} of "
        f"{size.num_parameters:,}; packed {size.bytes_packed:,} of {size.bytes_dense:,} bytes.</p>",
        _svg(result, title),
        _legend(),
        _table(result),
        *(f"<p>{escape(remark)}</p>" for remark in remarks(result)),
        "</div>",
    ]
    return "\n".join(lines)


def _style() -> str:
    """Colours in light and dark; notebooks that have a theme of their own say so on the body."""
    dark = _fills("", _DARK)
    notebook = _fills('[data-jp-theme-light="false"] ', _DARK)
    light = _fills('[data-jp-theme-light="true"] ', _LIGHT)
    return (
        f"{_fills('', _LIGHT)}"
        f"@media (prefers-color-scheme: dark){{{dark}}}{notebook}{light}"
        ".corobench-result rect{stroke:currentColor;stroke-opacity:.35;stroke-width:.5}"
        ".corobench-result text{fill:currentColor;font:13px sans-serif}"
        ".corobench-result th,.corobench-result td{text-align:right;padding:.1em .6em}"
        ".corobench-result p{margin:.3em 0}"
    )


def _fills(where: str, colours: dict[str, str]) -> str:
    return "".join(
        f"{where}.corobench-result .cb-{key}{{fill:{colour};background:{colour}}}"
        for key, colour in colours.items()
    )


def _svg(result: EvaluationResult, title: str) -> str:
    brackets = list(result.brackets.values())
    width, height = _LEFT + _BAR + _RIGHT, _ROW * len(brackets)
    spoken = "; ".join(_sentence(one) for one in brackets)
    rows = "".join(_bar(one, _ROW * place) for place, one in enumerate(brackets))
    label = escape(f"{title}: {spoken}", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="max-width:100%" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{label}</title>{rows}</svg>'
    )


def _sentence(one: Bracket) -> str:
    low, high = (f"{100 * end:.1f}" for end in one.interval)
    return (
        f"at {one.epsilon} certified {percent(one.certified, one.n)}, unbroken "
        f"{percent(one.unbroken, one.n)}, 95 % interval {low} to {high} %"
    )


def _bar(one: Bracket, top: int) -> str:
    """One bar with its parts, and below it the interval as a line."""
    parts, start = [], 0
    for key, name, outcomes in _PARTS:
        count = sum(one.counts[outcome] for outcome in outcomes)
        if count:
            x, length = _x(start / one.n), _BAR * count / one.n
            tip = escape(f"{name}: {count} of {one.n}")
            parts.append(
                f'<rect class="cb-{key}" x="{x:.1f}" y="{top + 8}" width="{length:.1f}" '
                f'height="{_HEIGHT}"><title>{tip}</title></rect>'
            )
        start += count
    low, high = one.interval
    y = top + 8 + _HEIGHT + 5
    line = (
        f'<path d="M{_x(low):.1f} {y}H{_x(high):.1f}M{_x(low):.1f} {y - 3}v6M{_x(high):.1f} '
        f'{y - 3}v6" stroke="currentColor" fill="none"/>'
    )
    text = f'<text x="0" y="{top + 8 + _HEIGHT - 5}">{escape(one.epsilon)}</text>'
    return f"{text}{''.join(parts)}{line}"


def _x(rate: float) -> float:
    return _LEFT + _BAR * rate


def _legend() -> str:
    items = " ".join(
        f'<span style="white-space:nowrap"><span class="cb-{key}" aria-hidden="true" '
        'style="display:inline-block;width:.8em;height:.8em;border:1px solid currentColor">'
        f"</span> {name}</span>"
        for key, name, _ in _PARTS
    )
    return f"<p>{items}; the line is the 95 % interval</p>"


def _table(result: EvaluationResult) -> str:
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("epsilon", "certified", "unbroken", "95 %")
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(one.epsilon)}</th><td>{percent(one.certified, one.n)}</td>'
        f"<td>{percent(one.unbroken, one.n)}</td>"
        f"<td>{100 * one.interval[0]:.1f}–{100 * one.interval[1]:.1f}</td></tr>"
        for one in result.brackets.values()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
