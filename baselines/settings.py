"""The base of everything that a recipe may say: typed, frozen, and unknown keys are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from corobench.benchmark.errors import nearest


@dataclass(frozen=True)
class Later:
    """Marks a key that is younger than stored checkpoints: it is not written at its default.

    Written settings are what a checkpoint must agree on, so a recipe without the key keeps its own.
    """


LATER = Later()


class RecipeTable(BaseModel):
    """A frozen table of a recipe; a key it does not know is a fault, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_later(self, serialise(self))


class Registered(RecipeTable):
    """Settings that a recipe asks for by name; the name is written out with them.

    Attributes:
        name: key in recipes and in the registry.
    """

    name: ClassVar[str]

    @model_serializer(mode="wrap")
    def _written(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, **_without_later(self, serialise(self))}


def _without_later(table: RecipeTable, written: dict[str, Any]) -> dict[str, Any]:
    fields = type(table).model_fields
    unused = {
        name
        for name, field in fields.items()
        if LATER in field.metadata and getattr(table, name) == field.default
    }
    return {key: value for key, value in written.items() if key not in unused}


R = TypeVar("R", bound=Registered)


def construct(
    registry: Mapping[str, type[R]], kind: str, table: object, where: str
) -> tuple[R | None, list[str]]:
    """Build the registered settings that ``table["name"]`` asks for.

    Args:
        registry: name -> class; what "adding one" adds a line to.
        kind: what is being named, e.g. "objective", for the message.
        table: the parsed TOML table.
        where: name of that table in the file, e.g. "pretrain.objective".

    Returns:
        The settings, or None and one line per fault.
    """
    if not isinstance(table, dict):
        return None, [f"[{where}]: expected a table with a key 'name', found {table!r}"]
    name = table.get("name")
    if not isinstance(name, str):
        return None, [f"[{where}]: key 'name' is missing; expected one of {_listing(registry)}"]
    if name not in registry:
        return None, [f"[{where}] name: unknown {kind} {name!r}: {nearest(name, registry)}"]
    cls = registry[name]
    try:
        return cls.model_validate({key: table[key] for key in table if key != "name"}), []
    except ValidationError as error:
        return None, list(faults_of(error, cls, where))


def faults_of(error: ValidationError, cls: type[BaseModel], where: str = "") -> Iterator[str]:
    """One line per fault of a pydantic error, naming table, key and what was expected."""
    for item in error.errors():
        *tables, key = item["loc"] or ("",)
        table = ".".join(part for part in (where, *map(str, tables)) if part)
        place = f"[{table}] " if table else ""
        if item["type"] == "extra_forbidden":
            known = _fields_at(cls, tables)
            yield f"{place}unknown key {key!r}: {nearest(str(key), known)}"
        elif item["type"] == "missing":
            yield f"{place}key {key!r} is missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{place}{key}: {message}" + _found(item)


def _found(item: Any) -> str:
    value = item.get("input")
    return f" (found {value!r})" if isinstance(value, (str, int, float, bool, list)) else ""


def _fields_at(cls: type[BaseModel], tables: list[int | str]) -> list[str]:
    """Known keys of the table that `tables` leads to, following nested settings."""
    current: Any = cls
    for table in tables:
        annotation = current.model_fields[str(table)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        current = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(current.model_fields)


def _listing(names: Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
