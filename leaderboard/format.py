"""Numbers -> text for people. Percent exist here and in the templates only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from corobench.leaderboard.measures import Share

_TOO_LARGE = re.compile(
    r"too-large: (?P<units>\d{1,12}) hidden units, and protocol [\d.]+ asks (\S+ )?up to "
    r"(?P<limit>\d{1,12})"
)
_STEPS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def percent(share: Share) -> str:
    """A share in percent, one decimal; never rounded onto 0 or 100.

    >>> [percent(Share(k, 10_000)) for k in (0, 1, 8625, 9999, 10_000)]
    ['0.0', '<0.1', '86.2', '>99.9', '100.0']
    """
    text = rate_percent(share.rate)
    if text == "0.0" and share.count > 0:
        return "<0.1"
    if text == "100.0" and share.count < share.n:
        return ">99.9"
    return text


def rate_percent(rate: float) -> str:
    """A rate in percent, one decimal.

    >>> rate_percent(0.925)
    '92.5'
    """
    return f"{100 * rate:.1f}"


def interval(share: Share) -> str:
    """The Wilson 95 % interval of a share in percent.

    >>> interval(Share(8, 10))
    '49.0–94.3'
    """
    low, high = share.interval
    return f"{rate_percent(low)}–{rate_percent(high)}"


def short_count(count: int) -> str:
    """A count in three significant digits.

    >>> [short_count(k) for k in (0, 999, 27_184, 271_840, 999_950, 11_173_962)]
    ['0', '999', '27.2k', '272k', '1.00M', '11.2M']
    """
    for factor, unit in _STEPS:
        value = count / factor
        if value >= 0.9995:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f}{unit}"
    return str(count)


def short_bytes(count: int) -> str:
    """Bytes in three significant digits, decimal units.

    >>> short_bytes(45_132)
    '45.1 kB'
    """
    text = short_count(count)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def round_bytes(count: int) -> str:
    """A round number of bytes without idle digits.

    >>> [round_bytes(count) for count in (25_000, 1_000_000)]
    ['25 kB', '1 MB']
    """
    for factor, unit in ((10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count} B"


def grouped(count: int) -> str:
    """A count with its thousands set apart.

    >>> grouped(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def seconds(value: float) -> str:
    """A duration.

    >>> [seconds(s) for s in (3.21, 192.0, 7500.0)]
    ['3.2 s', '3 min 12 s', '2 h 5 min']
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plain_reason(reason: str) -> str:
    """Why a certifier was not asked, without the words that its row says already.

    >>> plain_reason("too-large: 39643 hidden units, and protocol 1.0 asks CROWN up to 20000")
    '39,643 hidden units (limit 20,000)'
    >>> plain_reason("no-checker: the checker does not know the layer")
    'no-checker: the checker does not know the layer'
    """
    found = _TOO_LARGE.fullmatch(reason)
    if found is None:
        return reason
    return f"{grouped(int(found['units']))} hidden units (limit {grouped(int(found['limit']))})"


def plain(text: str) -> str:
    """A stranger's text on one line, without what is invisible: control characters, and marks that
    turn the direction of what follows.

    >>> plain("a\\x1b[2J\\tb\\u202ec\\n")
    'a[2J bc'
    """
    if text.isprintable():
        return " ".join(text.split())
    spaced = (" " if letter.isspace() else letter for letter in text)
    return " ".join("".join(letter for letter in spaced if letter.isprintable()).split())


def visible(value: object) -> object:
    """What a template writes: text without invisible characters; its line ends stay.

    >>> visible("a\\x1b[2J\\n\\u202eb"), visible(3)
    ('a[2J\\nb', 3)
    """
    if type(value) is not str or value.isprintable():
        return value
    return "".join(letter for letter in value if letter.isprintable() or letter == "\n")


def coordinate(value: float) -> str:
    """A coordinate in an SVG, at most two decimals and no trailing zeros.

    >>> [coordinate(x) for x in (71.20, 3.14159, 40.0)]
    ['71.2', '3.14', '40']
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as sorted (key, value) pairs of text.

    >>> list(flat({"pgd": {"steps": 50}, "chunk_size": 100}))
    [('chunk_size', '100'), ('pgd.steps', '50')]
    """
    for key in sorted(settings):
        value = settings[key]
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            yield f"{prefix}{key}", value
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False, sort_keys=True)
