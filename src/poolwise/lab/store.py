"""Every run in one SQLite file, under the content hash of its configuration."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np

from poolwise.errors import InvalidValue
from poolwise.lab.experiment import Maps, Result, result_from

SCHEMA = """
create table if not exists runs (
    key text primary key,
    variant text not null,
    seed integer not null,
    made text not null default (datetime('now')),
    result text not null,
    maps blob not null
)
"""


class Store:
    """Runs that were made. Each is committed as it comes, so that an interruption loses only runs in flight."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def get(self, key: str) -> Result | None:
        """The run of that key, if it was made."""
        row = self.connection.execute("select result, maps from runs where key = ?", (key,)).fetchone()
        return None if row is None else result_from(json.loads(row[0]), unpacked(row[1]))

    def put(self, result: Result) -> None:
        """Keep a run."""
        row = (result.config.key, result.config.variant, result.config.seed, record(result), packed(result.maps))
        with self.connection:
            self.connection.execute(
                "insert or replace into runs (key, variant, seed, result, maps) values (?, ?, ?, ?, ?)", row
            )

    def __len__(self) -> int:
        return self.connection.execute("select count(*) from runs").fetchone()[0]


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The store in that file, made if there is none; InvalidValue if it cannot be one."""
    try:
        connection = sqlite3.connect(path, timeout=30)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute(SCHEMA)
            connection.execute("select key, result, maps from runs limit 0")
        except sqlite3.Error:
            connection.close()
            raise
    except sqlite3.Error as cause:
        raise InvalidValue(f"store must be a results file of the lab, got {str(path)!r} ({cause})", "lab") from None
    try:
        yield Store(connection)
    finally:
        connection.close()


def record(result: Result) -> str:
    """A result as JSON, without its pictures."""
    blank = Maps(np.empty(0, np.uint8), np.empty(0, np.float16), np.empty(0, np.float16))
    fields = asdict(replace(result, maps=blank))
    del fields["maps"]
    return json.dumps(fields)


def packed(maps: Maps) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=maps.images, before=maps.before, after=maps.after)
    return buffer.getvalue()


def unpacked(blob: bytes) -> Maps:
    with np.load(io.BytesIO(blob), allow_pickle=False) as arrays:
        return Maps(arrays["images"], arrays["before"], arrays["after"])


def count(path: Path) -> int:
    """How many runs a store holds."""
    with opened(path) as store:
        return len(cast("Store", store))
