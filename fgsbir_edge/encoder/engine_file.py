"""The file that an engine, or a timing cache, is kept in: a header that must fit before a byte of the content is used.

    offset          bytes  what
    0               16     magic, with the format's version
    16              4      f, little-endian: bytes of the facts
    20              8      n, little-endian: bytes of the content
    28              32     key: SHA-256 of what the content depends on
    60              32     SHA-256 of the content
    92              f      facts, JSON: for people
    92 + f          32     SHA-256 of all of the above
    124 + f         n      content

The hashes find damage. They do not keep an attacker out: the folder's permissions do.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"fgsbir-engine\x00\x00\x01"
MAX_FACTS = 2**16
_HASH = 32
_FIXED = len(MAGIC) + 4 + 8 + 2 * _HASH


class EngineFileError(ValueError):
    """A file is not what its header says, or not this user's own. Its text says how, without a path."""


@dataclass(frozen=True)
class Header:
    """A file's header.

    Args:
        key: what the content was made for, in hex.
        size: bytes of the content.
        sha256: of the content.
        facts: plain JSON values.
        length: bytes of the header itself.
    """

    key: str
    size: int
    sha256: bytes
    facts: dict[str, Any]
    length: int


def pack(key: str, content: bytes, facts: dict[str, Any]) -> bytes:
    """The file's bytes. ``key`` is a SHA-256 in hex."""
    text = json.dumps(facts, sort_keys=True).encode()
    lengths = len(text).to_bytes(4, "little") + len(content).to_bytes(8, "little")
    head = MAGIC + lengths + bytes.fromhex(key) + hashlib.sha256(content).digest() + text
    return head + hashlib.sha256(head).digest() + content


def unpack(data: bytes, key: str) -> bytes:
    """The content. Raises EngineFileError: damaged, cut short, too long, or made under another key."""
    header = parse_header(data)
    if header.key != key:
        raise EngineFileError("it was built for something else")
    content = data[header.length :]
    if len(content) != header.size:
        raise EngineFileError(f"it holds {len(content)} bytes where its header says {header.size}")
    if hashlib.sha256(content).digest() != header.sha256:
        raise EngineFileError("its content is damaged")
    return content


def parse_header(data: bytes) -> Header:
    """The header at the start of ``data``, which may end anywhere after it. Raises EngineFileError."""
    if not data.startswith(MAGIC):
        raise EngineFileError("it is no engine file of this version")
    length = int.from_bytes(data[16:20], "little")
    end = _FIXED + length
    if length > MAX_FACTS or len(data) < end + _HASH:
        raise EngineFileError("it is cut short")
    if hashlib.sha256(data[:end]).digest() != data[end : end + _HASH]:
        raise EngineFileError("its header is damaged")
    try:
        facts = dict(json.loads(data[_FIXED:end]))
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineFileError("its header is damaged") from error
    size, key = int.from_bytes(data[20:28], "little"), data[28:60].hex()
    return Header(key, size, data[60:92], facts, end + _HASH)


def read_own(path: Path, limit: int | None = None) -> bytes:
    """A file's first ``limit`` bytes (None: all). Raises OSError, and EngineFileError unless it is this user's regular file.

    Links are not followed, and a file that others may write to is not read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise EngineFileError("it is not a file that this user alone may write to")
        return stream.read() if limit is None else stream.read(limit)


def read_header(path: Path) -> Header:
    """A file's header alone. Raises OSError and EngineFileError."""
    return parse_header(read_own(path, _FIXED + MAX_FACTS + _HASH))
