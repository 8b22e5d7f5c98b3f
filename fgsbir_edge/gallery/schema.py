"""The gallery's tables in all versions of its file, and how a file is connected to."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

APPLICATION_ID = 0x46475342  # "FGSB"
WITH_PEOPLE, WITH_METADATA = 2, 3  # the versions that brought them
VERSION = 3

_BASE = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE blocks (id INTEGER PRIMARY KEY AUTOINCREMENT, count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    category TEXT,
    source TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    block INTEGER NOT NULL REFERENCES blocks (id),
    slot INTEGER NOT NULL,
    thumbnail BLOB NOT NULL,
    added_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX items_by_block ON items (block);
PRAGMA application_id = {APPLICATION_ID};
"""
_PEOPLE = """
CREATE TABLE people (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL DEFAULT 0,
    oldest INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE TABLE pairs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    photo TEXT NOT NULL,
    sketch BLOB NOT NULL,
    added INTEGER NOT NULL,
    removed INTEGER,
    added_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX pairs_by_person ON pairs (person);
CREATE INDEX pairs_by_photo ON pairs (photo);
CREATE TABLE adapters (
    person INTEGER PRIMARY KEY REFERENCES people (id) ON DELETE CASCADE,
    head TEXT NOT NULL,
    data BLOB NOT NULL
);
"""
_METADATA = """
CREATE TABLE metadata (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    photo TEXT NOT NULL UNIQUE,
    data TEXT NOT NULL,
    crc INTEGER NOT NULL
);
"""
SCHEMA = f"BEGIN IMMEDIATE;{_BASE}{_PEOPLE}{_METADATA}PRAGMA user_version = {VERSION};"  # of a new file; the caller commits


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of an older version what it lacks: all or nothing, and once, whoever else opens it. Raises sqlite3.Error."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        have = _version(connection)  # another process may just have done it
        for version, tables in ((WITH_PEOPLE, _PEOPLE), (WITH_METADATA, _METADATA)):
            if have < version:
                for statement in tables.split(";")[:-1]:  # executescript would commit first
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def connect(path: str, readonly: bool) -> sqlite3.Connection:
    """A connection that has read the header. Raises sqlite3.Error."""
    uri = Path(path).absolute().as_uri()
    if not readonly:
        return _probed(sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None))
    try:
        return _probed(sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None))
    except sqlite3.OperationalError:
        # A write-ahead log needs a writable folder, even to read; a file whose log is empty can be read without one.
        if os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0:
            raise
        return _probed(sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None))


def _probed(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    except UnicodeDecodeError as error:
        connection.close()
        raise sqlite3.DatabaseError("its schema is damaged") from error
    return connection


def configure(connection: sqlite3.Connection) -> None:
    """What every writing connection needs."""
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")  # a batch that was reported as indexed survives a power cut
