"""What a model hub reads: the layout of the figures, the card, and whose weights they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from leaderboard_factory import make_result, make_score

from corobench.benchmark.cli.main import cli
from corobench.benchmark.errors import ConfigError
from corobench.benchmark.records.reading.result_file import read_result
from corobench.benchmark.records.result import Result
from corobench.benchmark.scoring.hub import eval_results, figures, model_card

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
RESULT = ROOT / "leaderboard" / "results" / "1.0" / "digits" / "digits-ibp-lwm-10x.json"
HOSTILE = 'x"\n- dataset: {id: evil/evil}\n---\n# <b>*hi*</b>\x1b[2J'


def hostile() -> Result:
    """Today's manifests are refused with such texts; the files do not lean on that."""
    told = {"title": HOSTILE, "authors": (HOSTILE,), "licence": HOSTILE, "description": HOSTILE}
    plain = make_result("entry")
    return plain.model_copy(update={"submission": plain.submission.model_copy(update=told)})


def test_every_item_has_the_keys_of_the_layout() -> None:
    result = read_result(RESULT)
    items = yaml.safe_load(eval_results(result, "me/data", "https://example.org/board"))
    known = {one.task: one for one in figures(result)}
    assert len(items) == len(known) == 1 + 3 * len(result.epsilons)
    for item in items:
        assert item.keys() == {
            *("dataset", "value", "date", "source", "evaluation_framework", "notes"),
        }
        assert item["dataset"]["id"] == "me/data"
        count = known[item["dataset"]["task_id"]].count
        assert item["value"] == pytest.approx(100 * count / result.n, abs=0.005)
        assert item["source"] == {"url": "https://example.org/board", "name": "corobench"}
        assert "n = 500" in item["notes"]
    least = yaml.safe_load(eval_results(result, "me/data"))
    assert all("source" not in item for item in least)


def test_a_proven_share_that_is_not_known_is_left_out() -> None:
    score = make_score(certified=0) | {"certified_by": {"IBP": 0, "CROWN": None, "cascade": 0}}
    result = make_result("entry", epsilons={"1/16": score, "2/16": make_score()})
    tasks = [one.task for one in figures(result)]
    assert "digits-1-16-proven" not in tasks
    assert "digits-1-16-unbroken" in tasks and "digits-2-16-proven" in tasks


def test_nothing_in_a_manifest_adds_a_key_or_markup() -> None:
    result = hostile()
    assert all(
        item["dataset"]["id"] == "me/data"
        for item in yaml.safe_load(eval_results(result, "me/data"))
    )
    card = model_card(result).decode()
    assert "\x1b" not in card
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["license"] == "other" and "evil/evil" in front["license_name"]
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "digits"
    assert "<b>" not in body and "*hi*" not in body.replace("\\*", "")
    assert body.count("\n# ") == 1


@pytest.mark.parametrize("bad", ["", "noslash", "a/b/c", "a b/c", 'a/b"'])
def test_an_id_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="owner/name"):
        eval_results(make_result("entry"), bad)
    with pytest.raises(ConfigError, match="http"):
        eval_results(make_result("entry"), "me/data", "javascript:alert(1)")


def test_the_librarys_own_reader_takes_the_file() -> None:
    hub = pytest.importorskip("huggingface_hub")
    items = yaml.safe_load(eval_results(read_result(RESULT), "me/data", "https://example.org"))
    entries = hub.parse_eval_result_entries(items)
    assert [dataclasses.asdict(one)["dataset_id"] for one in entries] == ["me/data"] * len(items)


def test_the_folder_holds_plain_weights_and_is_a_submission(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    from corobench import load_model

    out = tmp_path / "upload"
    folder = ROOT / "submissions" / "digits-ibp-lwm-10x"
    asked = ["hub", str(RESULT), "--out", str(out), "--submission", str(folder), "--no-isolate"]
    done = CliRunner().invoke(cli, [*asked, "--dataset", "me/data"])
    assert done.exit_code == 0, done.output
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *("submission.toml", "model.safetensors", "README.md", ".eval_results/corobench.yaml"),
        "digits-ibp-lwm-10x.json",
    }
    state = safetensors.load_file(out / "model.safetensors")
    own = load_model(folder).state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if name in own)
    assert json.loads((out / "digits-ibp-lwm-10x.json").read_text())["entry"] == folder.name
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_model(out)(image), load_model(folder)(image))


def test_other_weights_than_the_results_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "upload"
    folder = ROOT / "submissions" / "digits-ibp-dense"
    asked = ["hub", str(RESULT), "--out", str(out), "--submission", str(folder), "--no-isolate"]
    done = CliRunner().invoke(cli, [*asked, "--dataset", "me/data"], standalone_mode=False)
    assert "expected the weights" in str(done.exception)
    assert not out.exists()
