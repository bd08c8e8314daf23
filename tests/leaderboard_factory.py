"""Results with consistent counts, built through the record that evaluation writes."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from corobench.benchmark.records.encoding import encode_outcomes
from corobench.benchmark.records.identity import identity_of
from corobench.benchmark.records.reading.places import beside, result_stem
from corobench.benchmark.records.result import (
    CERTIFIER_COLUMNS,
    CERTIFIERS,
    OUTCOME_COLUMNS,
    Result,
    Run,
)
from corobench.benchmark.tracks import (
    TRACKS,
    Protocol,
    published_order,
    settings_of,
    standard_subset,
)

#: Attack -> what decides where it breaks an image.
PARTS = {"pgd50": ["pgd50"], "autoattack": ["autoattack", "apgd-ce", "apgd-t", "fab-t", "square"]}
RESULTS = Path(__file__).parents[1] / "leaderboard" / "results" / "1.0"

UNKNOWN = "c0ffee" * 10 + "c0ff"
MIRROR = "badcab" * 10 + "badc"


def make_score(
    n: int = 500, clean: int = 480, certified: int = 300, attacked: int = 100, **more: Any
) -> dict[str, Any]:
    """Counts at one epsilon that add up to n; what remains is undecided."""
    timeout, error = more.pop("timeout", 0), more.pop("error", 0)
    undecided = clean - certified - attacked - timeout - error
    score = {
        "counts": {
            "misclassified": n - clean,
            "attacked": attacked,
            "certified": certified,
            "undecided": undecided,
            "timeout": timeout,
            "error": error,
        },
        "pgd50": clean - attacked // 2 - timeout - error,
        "autoattack": clean - attacked - timeout - error,
        "certified_by": {
            "IBP": certified // 2,
            "CROWN-IBP": certified,
            "CROWN": certified,
            "alpha-CROWN": certified,
            "BaB": certified,
            "cascade": certified,
        },
        "flags": [],
        "decided_by": {
            name: count
            for name, count in (
                ("CROWN-IBP", certified - certified // 2),
                ("IBP", certified // 2),
                ("apgd-ce", attacked - attacked // 2),
                ("clean", n - clean),
                ("pgd50", attacked // 2),
            )
            if count
        },
    }
    return score | more


def make_result(entry: str = "lwm-10x", track: str = "digits", **more: Any) -> Result:
    """A result; keywords replace keys of the file, `submission` keys of its manifest."""
    return Result.model_validate_json(json.dumps(make_raw(entry, track, **more)), strict=True)


def make_raw(entry: str = "lwm-10x", track: str = "digits", **more: Any) -> dict[str, Any]:
    """The same as the JSON object of a file, which a test may break."""
    n = more.setdefault("n", 500)
    clean = more.setdefault("clean", round(0.96 * n))
    scores = [
        make_score(n, clean, certified=clean // share, attacked=clean // 5) for share in (2, 4)
    ]
    raw: dict[str, Any] = {
        "schema": 1,
        "protocol": "1.0",
        "entry": entry,
        "track": track,
        "quick": n == TRACKS[track].quick_subset,
        "data": {"kind": "canonical", "fingerprint": canonical(track), "source": "a test"},
        "weights_sha256": "ab" * 32,
        "seed": 0,
        "device": "cpu",
        "versions": {"torch": "2.9.0", "pyautoattack": "0.2.0", "auto_LiRPA": "0.3"},
        "epsilons": dict(zip(TRACKS[track].epsilons, scores, strict=True)),
        "compactness": make_compactness(),
        "seconds": {"clean": 0.1, "attack": 12.5, "certify": 3.0},
        "settings": settings_of(Protocol(), TRACKS[track])
        | {"version": more.get("protocol", "1.0")},
        "submission": make_manifest(entry, track) | more.pop("submission", {}),
        "not_asked": {},
    }
    raw |= more
    return raw if "identity" in more else with_identity(raw)


def with_identity(raw: dict[str, Any]) -> dict[str, Any]:
    """A result file with the identity of what it says; a test may make what is no result."""
    with contextlib.suppress(ValidationError):
        found = identity_of(Result.model_validate_json(json.dumps(raw)))
        return raw | {"identity": found}
    return raw


def make_manifest(entry: str, track: str) -> dict[str, Any]:
    """A manifest of a model pruned to a tenth."""
    return {
        "schema": 1,
        "id": entry,
        "title": "Least weight magnitude, 10x",
        "authors": ["Ada Example", "Ben Example"],
        "links": ["https://example.org/paper"],
        "description": "Robust objective before and after pruning.",
        "licence": "MIT",
        "track": track,
        "sparsity": 0.9,
        "parent": None,
        "model": {"architecture": "cnn-small"},
        "method": {
            "name": "LWM 10x",
            "pipeline": "after",
            "pretrain_objective": "pgd-at",
            "finetune_objective": "pgd-at",
            "schedule": "one-shot",
            "structure": "unstructured",
            "scope": "layer-wise",
            "criterion": "least-weight-magnitude",
        },
        "training": {"data": "the track's training set", "seed": 0},
    }


def canonical(track: str) -> str:
    """The fingerprint of a track's canonical images, or some text where it is not known."""
    return TRACKS[track].fingerprint or UNKNOWN


@functools.cache
def published_images(track: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and labels of the first n published images, as the results here have them."""
    known = {"digits": "digits-adv-dense", "fashion-mnist": "fashion-mnist-adv-dense@10000"}
    if track not in known:
        return np.asarray(published_order(track, TRACKS[track].num_test)[:n]), np.arange(n) % 10
    path = RESULTS / track / f"{known[track]}.outcomes.parquet"
    table = pd.read_parquet(path, columns=["image", "label"])[:n]
    return table["image"].to_numpy(), table["label"].to_numpy()


def make_compactness(num_parameters: int = 40_000, keep_ratio: float = 0.1) -> dict[str, Any]:
    """A compactness record of two layers, whose totals are those of its layers."""
    kept = round(num_parameters * keep_ratio)
    layers = [
        {
            "name": name,
            "kind": kind,
            "num_weights": num_parameters // share,
            "num_nonzero": kept // share,
            "macs_dense": 10 * num_parameters // share,
            "macs_nonzero": 10 * kept // share,
        }
        for name, kind, share in (("features.0", "conv", 5), ("classifier.1", "linear", 2))
    ]
    zeros = sum(layer["num_weights"] - layer["num_nonzero"] for layer in layers)
    return {
        "num_parameters": num_parameters,
        "num_nonzero": kept,
        "macs_dense": 400_000,
        "macs_nonzero": round(400_000 * keep_ratio),
        "bytes_dense": 4 * num_parameters,
        "bytes_packed": min(4 * num_parameters, 4 * kept + num_parameters // 8),
        "sparsity": zeros / sum(layer["num_weights"] for layer in layers),
        "layers": layers,
    }


def write_result(root: Path, result: Result | dict[str, Any]) -> Path:
    """Write a result at its place under a folder."""
    raw = result if isinstance(result, dict) else result.model_dump(mode="json", by_alias=True)
    standard = standard_subset(TRACKS[raw["track"]])
    stem = result_stem(raw["entry"], raw["n"], standard)
    path = root / raw["protocol"] / raw["track"] / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def write_pair(path: Path, raw: dict[str, Any], table_of: Path | None = None) -> None:
    """A result file, and the outcome table beside it with a run that says the same.

    Args:
        path: of the result file.
        raw: what it says.
        table_of: another result file whose rows to take; `path` by default.
    """
    path.write_text(json.dumps(raw), encoding="utf-8")
    keys = Run.model_fields.keys() & raw.keys() - {"epsilons"}
    flags = {epsilon: score["flags"] for epsilon, score in raw["epsilons"].items()}
    run = Run.model_validate(
        {key: raw[key] for key in keys} | {"epsilons": list(raw["epsilons"]), "flags": flags}
    )
    table = pd.read_parquet(beside(table_of or path, "outcomes.parquet"))
    content = encode_outcomes(table, run)
    beside(path, "outcomes.parquet").write_bytes(content)


def write_evidence(path: Path, shift: int = 0) -> None:
    """An outcome table, adversarial images and clean images that fit a result file.

    Args:
        path: of the result file; its counts must be those that an evaluation could have.
        shift: rotates the outcomes over the images, so that entries differ in which they hold.
    """
    raw = json.loads(path.read_text())
    n, shape = raw["n"], TRACKS[raw["track"]].shape
    images, labels = published_images(raw["track"], n)
    keys = Run.model_fields.keys() & raw.keys() - {"epsilons"}
    flags = {epsilon: score["flags"] for epsilon, score in raw["epsilons"].items()}
    run = Run.model_validate(
        {key: raw[key] for key in keys} | {"epsilons": list(raw["epsilons"]), "flags": flags}
    )
    parts: list[pd.DataFrame] = []
    num_rows = 0
    for epsilon, score in raw["epsilons"].items():
        rows = _rows(score, n, num_rows)
        num_rows += score["counts"]["attacked"]
        rows = rows.iloc[np.roll(np.arange(n), shift)].reset_index(drop=True)
        wrong = rows["outcome"] == "misclassified"
        rows = rows.assign(
            image=images,
            position=np.arange(n),
            label=labels,
            predicted=np.where(wrong, (labels + 1) % 10, labels),
            epsilon=epsilon,
        )
        parts.append(rows)
    table = pd.concat(parts, ignore_index=True)
    table = table.astype({name: dtype for name, (dtype, _) in OUTCOME_COLUMNS.items()})
    beside(path, "outcomes.parquet").write_bytes(encode_outcomes(table, run))
    pictures = np.full((num_rows, *shape), 0.75, dtype=np.float32)
    np.savez_compressed(beside(path, "adversarial.npz"), images=pictures)
    fingerprint = raw["data"]["fingerprint"]
    np.savez_compressed(
        path.with_name(f"clean-images.{fingerprint[:8]}.npz"),
        images=np.full((min(n, 200), *shape), 0.5, dtype=np.float32),
        indices=np.asarray(images[:200], dtype=np.int32),
        fingerprint=np.asarray(fingerprint),
    )


def _rows(score: dict[str, Any], n: int, first_image: int) -> pd.DataFrame:
    """Rows of one epsilon that count as a score says, outcome after outcome."""
    outcomes = [name for name, count in score["counts"].items() for _ in range(count)]
    outcome = np.asarray(outcomes, dtype=object)
    decided = [name for name, count in score["decided_by"].items() for _ in range(count)]
    attacked, certified = outcome == "attacked", outcome == "certified"
    stands = certified | (outcome == "undecided")
    by = np.full(n, "", dtype=object)
    by[outcome == "misclassified"] = "clean"
    by[attacked] = [name for name in decided if name not in (*CERTIFIERS, "clean")]
    # The cheapest proofs first, so that what is proven at a larger radius is also at a smaller one.
    by[certified] = [name for name in CERTIFIERS for _ in range(decided.count(name))]
    rows = {
        "outcome": outcome,
        "decided_by": by,
        "carried_from": "",
        "margin": np.where(certified, 0.5, np.nan),
        "adversarial": np.where(attacked, first_image + np.cumsum(attacked) - 1, -1),
        "seconds": 0.0,
    }
    for attack in ("pgd50", "autoattack"):
        still = stands.copy()
        spared = np.flatnonzero(attacked & ~np.isin(by, PARTS[attack]))
        still[spared[: score[attack] - int(stands.sum())]] = True
        rows[attack] = still
    proofs = np.flatnonzero(certified)
    for name, column in CERTIFIER_COLUMNS.items():
        count = score["certified_by"].get(name)
        answers = pd.array(np.zeros(n, dtype=bool), dtype="boolean")
        if count is None:
            answers[:] = pd.NA
        else:
            own = [row for row in proofs if by[row] == name]
            others = [row for row in proofs if by[row] != name]
            answers[(own + others)[:count]] = True
        rows[column] = answers
    return pd.DataFrame(rows)
