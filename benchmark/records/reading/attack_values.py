"""The values that attacks leave in an image, as a small code per value.

Most attacks move a value by whole steps and stop at a border of the box. So nearly every value of a
stored image is the clean value, a border, or lies some steps from a border or from the attack's
start. A random start is known, too: its numbers come from a seed. Here are those candidates, in
float32 and in one order, for the writer (`benchmark.records.image_coding`) and the reader
(`benchmark.records.reading.coded_images`) alike. Every operation is one addition, multiplication,
minimum or maximum in float32 or float64, so that all machines compute the same bits. Imports no
torch.

Shapes: R images of V values each, flat; codes are uint8.

| code | value, K being the largest number of steps and s those of the image |
|---|---|
| 0, 1 | s steps down, s steps up from the start |
| 2, 3, 4 | lower border, upper border, clean value |
| 5 to 2K+3 | s-1, s-2, ... -(s-1) steps up from the start; the first 2s-1 of them |
| 2K+4 to 3K+3 | 1 to K steps up from the lower border |
| 3K+4 to 4K+3 | 1 to K steps down from the upper border |
| 4K+4 | the centre of the box that a search for proofs splits |
| 255 | none of these: stored as it is |
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

#: The code of a value that is stored as it is.
EXCEPTION = 255
#: Largest number of steps that one byte has codes for.
MOST_STEPS = 62
#: Numbers of a stream that are made at once.
_BLOCK = 1 << 20
#: Numbers at the beginning of a stream that are kept, 16 MiB of them.
_KEPT = 1 << 22


@dataclass(frozen=True)
class Ball:
    """What the candidates of some images of one radius are made of.

    Attributes:
        clean: float32 (R, V) in [0, 1].
        start: float32 (R, V), where the attack began; the clean image where no start is known.
        lower: float32 (R, V), the smallest values in the ball and in [0, 1].
        upper: float32 (R, V), the largest.
        middle: float32 (R, V), see :func:`centre`.
        step: length of a step.
        num_steps: whole numbers (R,), at least 1.
    """

    clean: Floats
    start: Floats
    lower: Floats
    upper: Floats
    middle: Floats
    step: np.float32
    num_steps: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        clean: Floats,
        start: Floats,
        radius: Fraction,
        step_rate: float,
        num_steps: NDArray[np.int64],
    ) -> Ball:
        """The ball of a radius, with steps of a share of it."""
        lower, upper = borders(clean, radius)
        step = step_length(radius, step_rate)
        return cls(clean, start, lower, upper, centre(clean, radius), step, num_steps)


def borders(clean: Floats, radius: Fraction) -> tuple[Floats, Floats]:
    """The smallest and the largest float32 values in the ball and in [0, 1].

    The same as `benchmark.referee.threat.project` gives of very small and very large values.
    """
    length = float(radius)
    if Fraction(length) > radius:
        length = math.nextafter(length, 0.0)
    wide = clean.astype(np.float64)
    low, high = np.maximum(wide - length, 0.0), np.minimum(wide + length, 1.0)
    lower, upper = low.astype(np.float32), high.astype(np.float32)
    lower = np.where(lower < low, np.nextafter(lower, np.float32(np.inf)), lower)
    upper = np.where(upper > high, np.nextafter(upper, np.float32(-np.inf)), upper)
    return lower, upper


def centre(clean: Floats, radius: Fraction) -> Floats:
    """The centre of the smallest float32 box that contains the ball, within its borders.

    The box is that of `benchmark.referee.threat.box`; a search for proofs looks at its centre
    first.
    """
    length = float(radius)
    if Fraction(length) < radius:
        length = math.nextafter(length, math.inf)
    wide = clean.astype(np.float64)
    low, high = np.nextafter(wide - length, -np.inf), np.nextafter(wide + length, np.inf)
    lower, upper = low.astype(np.float32), high.astype(np.float32)
    lower = np.where(lower > low, np.nextafter(lower, np.float32(-np.inf)), lower)
    upper = np.where(upper < high, np.nextafter(upper, np.float32(np.inf)), upper)
    lower, upper = np.maximum(lower, np.float32(0)), np.minimum(upper, np.float32(1))
    middle = np.minimum(np.maximum((lower + upper) / np.float32(2), lower), upper)
    least, most = borders(clean, radius)
    kept: Floats = np.minimum(np.maximum(middle, least), most)
    return kept


def step_length(radius: Fraction, step_rate: float) -> np.float32:
    """The length of a step as PGD has it."""
    return np.float32(step_rate * float(radius))


def draw(seed: int, num: int) -> Floats:
    """The first `num` numbers that ``torch.rand`` gives after a seed: float32 in [0, 1).

    They are 24 bits each of the Mersenne Twister, whose stream numpy promises to keep.

    >>> draw(0, 2).round(4).tolist()
    [0.49630001187324524, 0.7681999802589417]
    """
    return np.concatenate([*_blocks(seed, num), np.zeros(0, np.float32)])


def draw_rows(seed: int, rows: NDArray[np.int64], num_values: int) -> Floats:
    """Some rows of a stream that is cut into rows: float32 (len(rows), V).

    Args:
        seed: of the stream, in [0, 2**32).
        rows: whole numbers, at least 0.
        num_values: V.
    """
    found = np.empty(len(rows) * num_values, np.float32).reshape(len(rows), num_values)
    if not len(rows):
        return found
    num = (int(rows.max()) + 1) * num_values
    if num <= _KEPT:
        found[...] = _stream(seed).first(num).reshape(-1, num_values)[rows]
        return found
    first = 0
    for block in _blocks(seed, num):
        last = first + len(block)
        for place in np.flatnonzero((rows * num_values < last) & ((rows + 1) * num_values > first)):
            begin = int(rows[place]) * num_values
            here = slice(max(begin, first), min(begin + num_values, last))
            found[place, here.start - begin : here.stop - begin] = block[
                here.start - first : here.stop - first
            ]
        first = last
    return found


def _blocks(seed: int, num: int) -> Iterator[Floats]:
    source = _source(seed)
    for first in range(0, num, _BLOCK):
        yield _next(source, min(_BLOCK, num - first))


def _source(seed: int) -> np.random.MT19937:
    source = np.random.MT19937()
    source.state = np.random.RandomState(seed).get_state(legacy=False)  # type: ignore[assignment]
    return source


def _next(source: np.random.MT19937, num: int) -> Floats:
    raw = source.random_raw(num)
    return (raw & np.uint64(0xFFFFFF)).astype(np.float32) * np.float32(2**-24)


class _Stream:
    """The beginning of a stream, as far as it was asked for: entries of a track share theirs."""

    def __init__(self, seed: int) -> None:
        self._source = _source(seed)
        self._known = np.zeros(0, np.float32)

    def first(self, num: int) -> Floats:
        """The first numbers, not to be written to."""
        if num > len(self._known):
            more = _next(self._source, num - len(self._known))
            self._known = np.concatenate([self._known, more])
        return self._known[:num]


@lru_cache(maxsize=4)
def _stream(seed: int) -> _Stream:
    return _Stream(seed)


def start_of(clean: Floats, drawn: Floats, radius: Fraction) -> Floats:
    """Where PGD begins: the clean image and uniform noise, within the borders.

    Args:
        clean: float32 (R, V).
        drawn: float32 (R, V) in [0, 1), see :func:`draw_rows`.
        radius: of the ball.
    """
    lower, upper = borders(clean, radius)
    noise = drawn * np.float32(2) - np.float32(1)
    moved = clean + noise * np.float32(float(radius))
    return np.minimum(np.maximum(moved, lower), upper)


def last_code(most_steps: int) -> int:
    """The largest code that is no exception."""
    return 4 * most_steps + 4


def encode_values(values: Floats, ball: Ball, most_steps: int) -> Codes:
    """The first code whose candidate has the bits of each value, (R, V)."""
    bits = values.view(np.uint32)
    codes = np.full(values.shape, EXCEPTION, np.uint8)
    for code, rows, candidate in _candidates(ball, most_steps):
        hit = (codes == EXCEPTION) & (candidate.view(np.uint32) == bits) & rows[:, None]
        codes[hit] = code
    return codes


def decode_values(codes: Codes, ball: Ball, most_steps: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The values of some codes.

    Returns:
        float32 (R, V), NaN at exceptions; bool (R, V), codes that mean nothing for their image.
    """
    values = np.full(codes.shape, np.nan, np.float32)
    is_unknown = codes != EXCEPTION
    used = set(np.unique(codes).tolist())
    for code, rows, candidate in _candidates(ball, most_steps, used):
        hit = (codes == code) & rows[:, None]
        values[hit] = candidate[hit]
        is_unknown &= ~hit
    return values, is_unknown


def count_corners(values: Floats, ball: Ball, most_steps: int) -> NDArray[np.int64]:
    """How many values of each image lie s steps up or down from the start, (K, R) for s = 1..K."""
    bits = values.view(np.uint32)
    up, down = _walk(ball, most_steps)
    return np.stack(
        [
            ((one.view(np.uint32) == bits) | (other.view(np.uint32) == bits)).sum(axis=1)
            for one, other in zip(up[1:], down[1:], strict=True)
        ]
    )


def _walk(ball: Ball, most_steps: int) -> tuple[Floats, Floats]:
    """0 to K steps up and down from the start, each (K + 1, R, V)."""
    up, down = [ball.start], [ball.start]
    for _ in range(most_steps):
        up.append(_within(up[-1] + ball.step, ball))
        down.append(_within(down[-1] - ball.step, ball))
    return np.stack(up), np.stack(down)


def _candidates(
    ball: Ball, most_steps: int, used: Container[int] = range(EXCEPTION)
) -> Iterator[tuple[int, NDArray[np.bool_], Floats]]:
    """Code, the images that it may stand for, and its values (R, V); in the order of preference.

    Of the codes in `used` alone.
    """
    up, down = _walk(ball, most_steps)
    images, steps = np.arange(len(ball.clean)), ball.num_steps
    everywhere = np.ones(len(images), dtype=bool)
    near = (down[steps, images], up[steps, images], ball.lower, ball.upper, ball.clean)
    yield from ((code, everywhere, near[code]) for code in range(5) if code in used)
    for fewer in range(1, 2 * most_steps):
        if 4 + fewer in used:
            net = steps - fewer
            above = up[np.clip(net, 0, most_steps), images]
            below = down[np.clip(-net, 0, most_steps), images]
            yield 4 + fewer, net > -steps, np.where((net >= 0)[:, None], above, below)
    for first, border, step in (
        (2 * most_steps + 4, ball.lower, ball.step),
        (3 * most_steps + 4, ball.upper, -ball.step),
    ):
        values = border
        wanted = [code for code in range(first, first + most_steps) if code in used]
        for code in range(first, max(wanted, default=0) + 1):
            values = _within(values + step, ball)
            if code in used:
                yield code, everywhere, values
    if last_code(most_steps) in used:
        yield last_code(most_steps), everywhere, ball.middle


def _within(values: Floats, ball: Ball) -> Floats:
    return np.minimum(np.maximum(values, ball.lower), ball.upper)
