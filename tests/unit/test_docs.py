"""The documents match the code: links, commands, names, settings and examples."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import tomllib
from pathlib import Path

import click
import pytest

from corobench.benchmark.attacks import gradients, guard
from corobench.benchmark.attacks.autoattack import WARNING_FLAGS
from corobench.benchmark.cli.main import GROUPS, FrontDoor, cli
from corobench.benchmark.evaluation import recognition
from corobench.benchmark.records.result import (
    OUTCOME_COLUMNS,
    Manifest,
    Method,
    Model,
    Outcome,
    Result,
    Run,
    Training,
)
from corobench.benchmark.tracks import TRACKS, Protocol, settings_of

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/**/*.md", "submissions/*/*.md", "baselines/**/*.md")
PACKAGES = ("benchmark", "baselines", "corobench", "leaderboard")
DOCUMENTS = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"^\s*(?:\S+/bin/)?corobench ([a-z]+(?:-[a-z]+)*)((?: +[^\n`#]*)?)", re.MULTILINE
)
PATH = re.compile(
    r"(?<![\w/.:-])((?:benchmark|baselines|ci|corobench|docs|examples|leaderboard|perf|tests)"
    r"/[\w./*-]*\w)"
)
FILE = re.compile(r"`([\w-]+\.(?:py|js|css))`")
DOTTED = re.compile(r"\bcorobench((?:\.\w+){2,}|\.\w+(?=\())")
OLD_NAME = re.compile(r"(?<![\w./])(?:benchmark|baselines|leaderboard)\.[a-z_]+\b(?!/)")
#: What the examples of the documents make, and files that are not there on purpose.
MADE = re.compile(r"my-model|leaderboard/results")
ABSENT = {"utils.py", "benchmark.py"}


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _without_fences(text: str) -> str:
    return FENCE.sub("", text)


def _anchors(text: str) -> set[str]:
    """The anchors of a document's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", _without_fences(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def _code(text: str) -> list[str]:
    """Fenced blocks, indented blocks and inline code."""
    prose = _without_fences(text)
    indented = re.findall(r"^ {4,}(.+)$", prose, re.MULTILINE)
    return [body for _, body in FENCE.findall(text)] + indented + re.findall(r"`([^`\n]+)`", prose)


def _examples(language: str) -> list[str]:
    return [body for name, body in FENCE.findall(_read("docs/file-formats.md")) if name == language]


def _cells(text: str, key: str) -> list[str]:
    """The cells after `key` in the table row that begins with it."""
    row = re.search(rf"^\| `{re.escape(key)}` \|(.+)\|$", text, re.MULTILINE)
    assert row is not None, f"no row `{key}`"
    return [cell.strip() for cell in row.group(1).split("|")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    broken = []
    for target in LINK.findall(_without_fences(text)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        is_there = place.exists()
        if is_there and anchor:
            is_there = anchor in _anchors(place.read_text(encoding="utf-8"))
        if not is_there:
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_their_options_exist(path: Path) -> None:
    assert isinstance(cli, FrontDoor)
    context = click.Context(cli)
    for code in _code(path.read_text(encoding="utf-8")):
        for name, rest in COMMAND.findall(code):
            command = cli.get_command(context, name)
            assert command is not None, f"corobench {name}"
            known = {"--help"}
            for item in command.params:
                known |= {*item.opts, *item.secondary_opts}
            assert set(re.findall(r"--[a-z][a-z0-9-]*", rest)) <= known, f"corobench {name}{rest}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_of_the_repository_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = {name for name in PATH.findall(text) if not MADE.search(name)}
    assert [name for name in sorted(names) if not any(ROOT.glob(name))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_without_their_folder_exist(path: Path) -> None:
    here = {
        file.name
        for package in (*PACKAGES, "ci", "perf", "tests")
        for file in (ROOT / package).rglob("*.*")
    }
    names = set(FILE.findall(path.read_text(encoding="utf-8")))
    assert sorted(names - here - ABSENT) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_dotted_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(OLD_NAME.findall(text)) <= ABSENT, "the import name is corobench"
    for dots in DOTTED.findall(text):
        name = f"corobench{dots}"
        assert _exists(name), name


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module has."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_the_readme_names_every_command_and_the_two_that_start() -> None:
    text = _read("README.md")
    for name in cli.list_commands(click.Context(cli)):
        assert f"`corobench {name}`" in text, name
    assert "\npython -m pip install tox && python -m tox run -e quickstart\n" in text
    assert "\npython -m pip install tox && python -m tox\n" in text
    assert len(text.splitlines()) <= 150


def test_the_commands_stand_in_the_groups_of_the_command_line() -> None:
    text = _read("docs/commands.md")
    for title, names in GROUPS.items():
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        found = re.findall(r"^\| (`corobench.+?) \| ", section, re.MULTILINE)
        assert re.findall(r"corobench ([a-z]+(?:-[a-z]+)*)", " ".join(found)) == list(names)


def test_exit_codes_are_those_of_the_code() -> None:
    from corobench.benchmark.cli import main as module

    table = _read("docs/commands.md").split("\n## Exit codes\n")[1].split("\n## ")[0]
    documented = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert documented == [*re.findall(r"^  (\d)  ", module.EXIT_CODES, re.MULTILINE), "130"]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_rules_define_every_outcome(outcome: Outcome) -> None:
    assert _cells(_read("RULES.md"), outcome)


def test_rules_define_every_clause_of_the_contract() -> None:
    source = _read("benchmark/submission/contract.py")
    clauses = set(re.findall(r"``([a-z-]+)``", source.split('"""')[1]))
    assert clauses >= set(re.findall(r"_clause\(\s*\"([a-z-]+)\"", source))
    assert len(clauses) >= 12
    for clause in clauses:
        assert _cells(_read("RULES.md"), clause)


def test_rules_define_every_refusal() -> None:
    names: set[str] = set()
    for path in (ROOT / "benchmark/certify").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"NotCertifiable\(\s*\"([a-z-]+)\"", source))
        if path.name == "graph_rules.py":
            names |= set(re.findall(r"\"([a-z]+(?:-[a-z]+)+)\"", source))
    assert len(names) >= 12
    for name in names:
        assert f"`{name}`" in _read("RULES.md"), name


def test_every_flag_is_in_the_rules_and_has_its_section() -> None:
    attacks = "".join(path.read_text("utf-8") for path in (ROOT / "benchmark/attacks").glob("*.py"))
    named = set(re.findall(r"flags\.add\(\"([a-z-]+)\"\)", attacks))
    assert named
    flags = set(WARNING_FLAGS.values()) | named
    flags |= {"autoattack-warning", "attack-error"}
    flags |= {recognition.RECOGNISES, recognition.BETTER, recognition.CHANGES}
    flags |= {recognition.CLIPPED, gradients.VANISHING, gradients.SHATTERED}
    flags |= set(guard.FLAGS)
    health = _anchors(_read("docs/health.md"))
    for flag in flags:
        assert f"`{flag}`" in _read("RULES.md"), flag
        assert flag in health, flag


def test_rules_state_every_setting_of_the_protocol_with_its_value() -> None:
    protocol = Protocol()
    for field in dataclasses.fields(protocol):
        value = getattr(protocol, field.name)
        text = ", ".join(value) if isinstance(value, tuple) else str(value)
        text = {"False": "no", "True": "yes"}.get(text, text)
        assert _cells(_read("RULES.md"), field.name)[0] == text


def test_rules_state_every_track() -> None:
    rules = _read("RULES.md")
    for track in TRACKS.values():
        assert f"| `{track.name}` | {', '.join(track.epsilons)} |" in rules
        row = re.search(rf"^\| `{track.name}` \| [^|]*\| (\d+x.*)\|$", rules, re.MULTILINE)
        assert row is not None, track.name
        shape, classes, quick, ranked = (cell.strip() for cell in row.group(1).split("|"))
        assert shape == "x".join(map(str, track.shape))
        assert int(classes) == track.num_classes
        assert [int(quick), *map(int, ranked.split(", "))] == list(track.subsets)
        sizes = rules.split("`chunk_size` is a setting of the track:")[1].split("\n")[0]
        part = next(part for part in re.split(r", (?=\d)", sizes) if f"`{track.name}`" in part)
        assert re.search(rf"\b{track.chunk_size} for\b", part), track.name


def test_limits_of_files_are_those_of_the_code() -> None:
    from corobench.benchmark.submission import contract, header, load, manifest

    rules = _read("RULES.md")
    from corobench.benchmark.records import result as records
    from corobench.benchmark.records.reading import result_file, table_file

    for limit in (
        f"{records.MAX_RESULT_BYTES} bytes",
        f"texts of at most {result_file.MAX_TEXT} characters",
        f"{table_file.MAX_TABLE_ROWS} rows",
        f"{table_file.MAX_TABLE_BYTES} bytes",
        f"{table_file.MAX_TABLE_FILE_BYTES} bytes",
        f"{table_file.MAX_TEXTS} texts of {table_file.MAX_TEXT} bytes",
        f"{manifest.MAX_MANIFEST_BYTES} bytes",
        f"{header.MAX_WEIGHTS_BYTES} bytes",
        f"{header.MAX_HEADER_BYTES} bytes",
        f"{header.MAX_TENSORS} tensors",
        f"{header.MAX_DIMENSIONS} dimensions",
        f"by more than {load.SPARSITY_TOLERANCE} is refused",
    ):
        assert limit in rules, limit
    assert (contract.RELATIVE_TOLERANCE, contract.PROBABILITY_TOLERANCE) == (1e-4, 1e-5)


def test_file_formats_names_every_column_and_key() -> None:
    text = _read("docs/file-formats.md")
    for column in OUTCOME_COLUMNS:
        assert _cells(text, column)
    for record in (Result, Manifest, Model, Method, Training):
        for name, field in record.model_fields.items():
            key = field.alias or name
            if (record, key) not in (
                (Manifest, "model"),
                (Manifest, "method"),
                (Manifest, "training"),
            ):
                assert _cells(text, key)
    for table in ("model", "method", "training"):
        assert f"Table `[{table}]`" in text
    run = text.split("`corobench.run`")[1].split("\n")[0]
    for key in Run.model_fields:
        assert f"`{key}`" in run, key


def test_the_example_of_a_result_is_valid() -> None:
    from corobench.benchmark.records.reading.consistency import contradictions

    (example,) = _examples("json")
    payload = json.loads(example)
    result = Result.model_validate_json(example)
    assert contradictions(result) == []
    keys = {field.alias or name for name, field in Result.model_fields.items()}
    # Only a recertified one has the first, only one made with too little memory the second.
    assert set(payload) == keys - {"earlier", "halved_batches"}
    assert result.settings == settings_of(Protocol(), TRACKS[result.track])


def test_the_examples_in_toml_are_valid(tmp_path: Path) -> None:
    from corobench.baselines.recipe_file import load_recipe
    from corobench.benchmark.submission.manifest import check_manifest

    manifest, *recipes = _examples("toml")
    assert check_manifest(tomllib.loads(manifest)).parent == "ibp-dense"
    for recipe in recipes:
        (tmp_path / f"{tomllib.loads(recipe)['id']}.toml").write_text(recipe)
    for path in sorted(tmp_path.iterdir()):
        assert load_recipe(path).id == path.stem
    assert len(recipes) == 2


def test_file_formats_names_every_objective_pruner_and_key_of_a_recipe() -> None:
    from corobench.baselines.objectives import OBJECTIVES
    from corobench.baselines.pruners import PRUNERS
    from corobench.baselines.recipe import PruneStage, Recipe
    from corobench.baselines.train_stage import (
        Awp,
        LrSchedule,
        Optimiser,
        Ramp,
        Regrowth,
        TrainStage,
    )

    text = _read("docs/file-formats.md").split("## Recipes")[1].split("## The training folder")[0]
    records = (Recipe, TrainStage, Awp, Regrowth, Optimiser, LrSchedule, Ramp, PruneStage)
    for record in (*records, *OBJECTIVES.values(), *PRUNERS.values()):
        for key in record.model_fields:
            assert f"`{key}`" in text, key
    for name in (*OBJECTIVES, *PRUNERS):
        assert _cells(text, name)


def test_every_page_has_its_pictures_and_they_are_small() -> None:
    shown = re.findall(
        r'<img src="(images/[^"]+)" width="\d+" alt="[^"]+">', _read("docs/pages.md")
    )
    kept = sorted((ROOT / "docs" / "images").iterdir())
    assert sorted(shown) == [f"images/{path.name}" for path in kept if path.suffix == ".webp"]
    for name in ("index", "board", "entry", "compare", "method", "submit", "changelog", "weights"):
        assert {f"images/page-{name}-{width}.webp" for width in (1280, 390)} <= set(shown)
    assert sum(path.stat().st_size for path in kept) <= 1_500_000


def test_the_accessibility_report_has_every_page_and_no_serious_violation() -> None:
    lines = [line.split(" | ") for line in _read("docs/accessibility.md").splitlines()]
    rows = [[cell.strip("| ") for cell in line] for line in lines if len(line) == 7]
    found = {tuple(row[:3]): int(row[4]) for row in rows if row[1] in ("1280", "390")}
    pages = ("index", "board", "entry", "compare", "method", "submit", "changelog")
    for key in [(p, w, s) for p in pages for w in ("1280", "390") for s in ("light", "dark")]:
        assert found[key] == 0
    assert set(found.values()) == {0}
