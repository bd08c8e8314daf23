"""Reading a recipe file: every fault at once, naming file, table and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corobench.baselines.objectives import OBJECTIVES
from corobench.baselines.pruners import PRUNERS
from corobench.baselines.recipe import (
    INHERITED,
    RECIPES,
    Recipe,
    find_by_id,
    packaged,
    packaged_names,
)
from corobench.baselines.settings import Registered, construct, faults_of
from corobench.benchmark.errors import ConfigError, nearest
from corobench.benchmark.files.text import byte_order_mark

#: What the packaged recipes say of their makers; nobody else's recipe signs with our name.
OURS = {
    "authors": ("the corobench team",),
    "licence": "MIT",
    "links": ("https://arxiv.org/abs/1906.06110",),
}

#: (table, key) of the settings that a registry builds.
_REGISTERED: tuple[tuple[str, str, Mapping[str, type[Registered]]], ...] = (
    ("pretrain", "objective", OBJECTIVES),
    ("prune", "pruner", PRUNERS),
    ("finetune", "objective", OBJECTIVES),
)


def load_recipe(source: str | Path) -> Recipe:
    """The recipe in a file, or the packaged one of that id.

    Args:
        source: path of a TOML file, or a packaged "digits/adv-lwm-10x", or its id.

    Raises:
        ConfigError: no such recipe, or every fault it has.
    """
    path = Path(source)
    if path.suffix != ".toml" and not path.is_file():
        found = packaged(str(source))
        if found is None:
            hint = nearest(str(source), packaged_names())
            raise ConfigError(f"no recipe file or packaged recipe {str(source)!r}: {hint}")
        path = found
    return _load(path, children=())


def _load(path: Path, children: tuple[Path, ...]) -> Recipe:
    try:
        content = path.read_bytes()
        if (mark := byte_order_mark(content)) is not None:
            raise ConfigError(f"{path}: {mark}")
        data = tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such recipe file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    faults: list[str] = []
    if path.resolve().is_relative_to(RECIPES.resolve()):
        data = {**OURS, **data}
    if "parent" in data:
        data = _inherit(data, path, children, faults)
    recipe = _parse(data, faults)
    if recipe is not None and recipe.is_taught and recipe.parent is None:
        assert recipe.finetune is not None
        faults.append(
            f"[finetune.objective] name: {recipe.finetune.objective.name!r} learns from the dense "
            "parent; expected a key 'parent' with the id of a dense recipe"
        )
    if recipe is None or faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        noun = "fault" if len(faults) == 1 else "faults"
        raise ConfigError(f"{path}: {len(faults)} {noun}\n{lines}")
    return recipe


def _inherit(
    data: dict[str, Any], path: Path, children: tuple[Path, ...], faults: list[str]
) -> dict[str, Any]:
    """Put the parent recipe, a file beside this one or a packaged one, in the place of its id."""
    for key in INHERITED:
        if key in data:
            faults.append(f"{key}: is taken from the parent {data['parent']!r}; remove it here")
    name = data["parent"]
    found = (find_by_id(path.parent, name) or packaged(name)) if isinstance(name, str) else None
    if found is None:
        known = [other.stem for other in path.parent.glob("*.toml") if other != path]
        known += [other.replace("/", "-") for other in packaged_names()]
        hint = nearest(str(name), known)
        raise ConfigError(
            f"{path}: parent {name!r}: no recipe of that id beside it, and no packaged one; {hint}"
        )
    if found in (path, *children):
        raise ConfigError(f"{path}: parent {name!r}: a recipe cannot be its own ancestor")
    parent = _load(found, (*children, path))
    if parent.id != name:
        raise ConfigError(
            f"{path}: parent {name!r}: the id in {found} is {parent.id!r}; write that"
        )
    inherited = {key: getattr(parent, key) for key in INHERITED if key != "pretrain"}
    return {**data, **inherited, "parent": parent}


def _parse(data: dict[str, Any], faults: list[str]) -> Recipe | None:
    broken = []
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for table, key, registry in _REGISTERED:
        content = data.get(table)
        if not isinstance(content, dict) or key not in content:
            continue
        built, found = construct(registry, key, content[key], f"{table}.{key}")
        faults.extend(found)
        content[key] = built
        if built is None:
            broken.append(f"[{table}] {key}:")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        for fault in faults_of(error, Recipe):
            if not fault.startswith(tuple(broken) or ("\0",)):
                faults.append(fault)
    return None
