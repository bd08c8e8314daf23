"""Abbreviations that people in the field write, spelled out: where first used, and in search."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Abbreviation -> what it is short for.
SHORT = {
    "LWM": "least weight magnitude",
    "IBP": "interval bound propagation",
    "PGD": "projected gradient descent",
    "ERA": "empirical robust accuracy, under PGD",
    "VRA": "verified robust accuracy, what is proven",
    "AutoAttack": "a standard suite of four attacks",
    "CROWN-IBP": "linear bounds over those of IBP",
    "alpha-CROWN": "CROWN with trained slopes",
    "CROWN": "linear bounds propagated backward",
    "BaB": "branch and bound",
    "HYDRA": "pruning by learned scores, with the robust loss",
    "SNIP": "single-shot pruning before training, by sensitivity",
    "LAMP": "magnitudes compared within each layer first",
    "ERK": "budgets per layer by the sum of its sides",
    "HARP": "learned scores, and how much each layer keeps",
    "S2AP": "learned scores, trained at their worst nearby",
    "RSLAD": "training on a robust teacher's answers",
    "AD-CERT": "interval loss with a robust teacher's answers",
    "AWP": "adversarial weight perturbation",
    "SABR": "interval bounds of small boxes around adversarial images",
    "MTL-IBP": "an attack's loss and an interval loss, added",
    "MAC": "multiply-add",
    "int8": "whole numbers of 8 bits",
    "bf16": "numbers of 16 bits, 8 of them significant",
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
