"""A project's own choice of rules: `[tool.poolwise.review]` of its pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poolwise import InvalidType, InvalidValue

TABLE = "tool.poolwise.review"


@dataclass(frozen=True)
class Settings:
    """select, ignore: rules or their beginnings. strict: whether findings end with status 1.

    per_step_ignores: for patterns of steps' names the rules, or beginnings, that say nothing of them.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = False
    per_step_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def settings(folder: Path) -> Settings:
    """Those of the pyproject.toml in a folder, or in the nearest one above it that has one; else the defaults.

    Raises InvalidValue or InvalidType that names the file and the entry.
    """
    path = next(
        (each / "pyproject.toml" for each in (folder, *folder.parents) if (each / "pyproject.toml").is_file()), None
    )
    if path is None:
        return Settings()
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as cause:
        raise InvalidValue(f"{path} must be TOML, got {cause}", "review") from None
    for name in TABLE.split("."):
        table = table.get(name, {}) if isinstance(table, dict) else {}
    return _understood(table, path)


def _understood(table: Any, path: Path) -> Settings:
    known = {"select": _ids, "ignore": _ids, "strict": _yes, "per-step-ignores": _patterns}
    if not isinstance(table, dict):
        raise InvalidType(f"{TABLE} of {path} must be a table, got {table!r}", "review")
    for name in table:
        if name not in known:
            raise InvalidValue(f"{TABLE} of {path} must have the entries {', '.join(known)}, got {name!r}", "review")
    said = {name: known[name](value, f"{name} of {TABLE} in {path}") for name, value in table.items()}
    return Settings(**{name.replace("-", "_"): value for name, value in said.items()})


def _ids(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidType(f'{where} must be a list of rules such as ["PW101"], got {value!r}', "review")
    return tuple(value)


def _yes(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidType(f"{where} must be true or false, got {value!r}", "review")
    return value


def _patterns(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise InvalidType(f"{where} must be a table of patterns and rules, got {value!r}", "review")
    return {pattern: _ids(ids, where) for pattern, ids in value.items()}
