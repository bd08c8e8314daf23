"""Which entries say that they are one training with different seeds. Imports no torch."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping

from corobench.benchmark.records.manifest import Manifest

#: What two seeds of one training may say differently.
_FREE = {"id", "parent", "links", "description", "licence", "authors"}

#: An entry's manifest, and the format of its weights file.
Told = tuple[Manifest, str | None]


def training_of(told: Told, named: Mapping[str, Told]) -> str:
    """What an entry has in common with its other seeds: all that it says but the seed.

    A parent may be another one, as long as the parents differ in their seed alone, too.

    Args:
        told: of the entry.
        named: id -> other entries, its parent among them where it is known.
    """
    return _training(told, named, frozenset())


def _training(told: Told, named: Mapping[str, Told], seen: frozenset[str]) -> str:
    manifest, file_format = told
    record = manifest.model_dump(mode="json", exclude={*_FREE, "training"})
    record["authors"] = sorted({_plain(author) for author in manifest.authors})
    record["title"] = _plain(manifest.title)
    record["method"]["name"] = _plain(manifest.method.name)
    record["training"] = manifest.training.model_dump(mode="json", exclude={"seed"})
    record["format"] = file_format
    parent = manifest.parent
    if parent is not None:
        above = named.get(parent) if parent not in seen else None
        record["parent"] = _training(above, named, seen | {parent}) if above else parent
    return json.dumps(record, sort_keys=True)


def _plain(text: str) -> str:
    """A text without what people do not see: case, kinds of spaces, wide and narrow letters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
