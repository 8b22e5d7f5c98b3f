"""The file an engine is kept in: whatever is changed in it, it is refused, and nothing of it is used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsbir_edge.encoder.engine_file import MAGIC, MAX_FACTS, EngineFileError, pack, parse_header, read_header, read_own, unpack

KEY, OTHER = "1f" * 32, "2e" * 32
CONTENT = bytes(range(256)) * 3
FACTS = {"name": "toy fp32", "seconds": 1.5, "für": "Ω"}
FILE = pack(KEY, CONTENT, FACTS)


def test_what_was_packed_is_unpacked() -> None:
    assert unpack(FILE, KEY) == CONTENT
    header = parse_header(FILE)
    assert (header.key, header.size, header.facts) == (KEY, len(CONTENT), FACTS)
    assert header.length + header.size == len(FILE)


def test_layout_is_the_documented_one() -> None:
    length = int.from_bytes(FILE[16:20], "little")
    assert FILE[:16] == MAGIC
    assert int.from_bytes(FILE[20:28], "little") == len(CONTENT)
    assert FILE[28:60].hex() == KEY
    assert FILE[124 + length :] == CONTENT


@settings(deadline=None)
@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_any_content_and_facts(content: bytes, facts: dict[str, int | str]) -> None:
    file = pack(KEY, content, facts)
    assert unpack(file, KEY) == content
    assert parse_header(file).facts == facts


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_every_byte_counts(bit: int) -> None:
    for place in range(len(FILE)):
        changed = bytearray(FILE)
        changed[place] ^= 1 << bit
        with pytest.raises(EngineFileError):
            unpack(bytes(changed), KEY)


def test_every_length_but_the_whole_is_refused() -> None:
    for length in range(len(FILE)):
        with pytest.raises(EngineFileError):
            unpack(FILE[:length], KEY)
    with pytest.raises(EngineFileError, match=f"holds {len(CONTENT) + 1} bytes where its header says {len(CONTENT)}"):
        unpack(FILE + b"x", KEY)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_foreign_bytes(data: bytes) -> None:
    with pytest.raises(EngineFileError):
        unpack(data, KEY)
    with pytest.raises(EngineFileError):
        unpack(MAGIC + data, KEY)


def test_another_key() -> None:
    with pytest.raises(EngineFileError, match="built for something else"):
        unpack(FILE, OTHER)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"7"])
def test_facts_that_are_none(text: bytes) -> None:
    """A header whose hashes fit, made by another program."""
    head = MAGIC + len(text).to_bytes(4, "little") + bytes(8) + bytes(32) + hashlib.sha256(b"").digest() + text
    with pytest.raises(EngineFileError, match="header is damaged"):
        parse_header(head + hashlib.sha256(head).digest())


def test_facts_have_a_limit() -> None:
    with pytest.raises(EngineFileError, match="cut short"):
        parse_header(pack(KEY, b"", {"long": "x" * MAX_FACTS}))


def test_only_the_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(pack(KEY, bytes(2**20), FACTS))
    assert read_header(path).size == 2**20
    path.write_bytes(FILE[:-1])
    assert read_header(path).facts == FACTS


def test_links_pipes_and_writable_files_are_not_read(tmp_path: Path) -> None:
    path, link, pipe = tmp_path / "engine", tmp_path / "link", tmp_path / "pipe"
    path.write_bytes(FILE)
    assert read_own(path, 16) == MAGIC
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        read_own(link)
    os.mkfifo(pipe)
    with pytest.raises(EngineFileError, match="this user alone"):
        read_own(pipe)
    path.chmod(0o620)
    with pytest.raises(EngineFileError, match="this user alone"):
        read_own(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_of_other_users_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(FILE)
    os.chown(path, 1234, -1)
    with pytest.raises(EngineFileError, match="this user alone"):
        read_own(path)
