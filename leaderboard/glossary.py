"""Abbreviations that people in the field write, spelled out: where first used, and in search."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Abbreviation -> what it is short for.
SHORT = {
    "LWM": "least weight magnitude",
    "IBP": "interval bound propagation",
    "PGD": "projected gradient descent",
    "ERA": "empirical robust accuracy",
    "CROWN": "linear bounds propagated backward",
    "BaB": "branch and bound",
    "HYDRA": "pruning by learned scores, with the robust loss",
    "SNIP": "single-shot pruning before training, by sensitivity",
    "MAC": "multiply-add",
    "int8": "whole numbers of 8 bits",
}


def used(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The abbreviations that occur as words in some text, with their long forms.

    >>> used(["CNN-small, IBP training, LWM 10x"])
    [('LWM', 'least weight magnitude'), ('IBP', 'interval bound propagation')]
    """
    whole = " ".join(texts)
    return [
        (short, long)
        for short, long in SHORT.items()
        if re.search(rf"(?<!\w){re.escape(short)}(?!\w)", whole)
    ]
