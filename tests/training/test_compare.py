"""Two models on the same queries, against numbers worked out by hand."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgsbir_edge.errors import PairsFormatError
from training.compare import Ranks, compare, text
from training.evaluate_output import COLUMNS

# sketch, photo, user, rank before, rank after; ten photos searched
ROWS = (
    ("s0", "p0", "ann", 1, 2),
    ("s1", "p0", "bob", 1, 1),
    ("s2", "p1", "ann", 4, 1),
    ("s3", "p1", "bob", 8, 1),
    ("s4", "p2", "ann", 10, 6),
)


def write(path: Path, column: int, rows: tuple[tuple[str, str, str, int, int], ...] = ROWS, gallery: int = 10) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([row[0], row[1], "shoe", row[2], row[column], gallery, "", "0.5", "", ""])
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "before.csv", 3), write(tmp_path / "after.csv", 4, ROWS[::-1])


def test_differences_are_of_the_same_queries(files: tuple[Path, Path]) -> None:
    result = compare(Ranks.read(files[0]), Ranks.read(files[1]))
    first = result["acc@1"]
    assert (first["before"], first["after"], first["difference"], first["gained"], first["lost"]) == (40, 60, 20, 2, 1)
    assert (result["acc@5"]["gained"], result["acc@5"]["lost"], result["acc@5"]["difference"]) == (1, 0, 20)
    np.testing.assert_allclose(result["mean_percentile"]["difference"], (100 / 9) * (-1 + 0 + 3 + 7 + 4) / 5, atol=0.005)
    wanted = (-1 / 2 + 0 + 3 / 4 + 7 / 8 + 1 / 6 - 1 / 10) / 5
    np.testing.assert_allclose(result["mean_reciprocal_rank"]["difference"], wanted, atol=5e-5)
    assert "acc@1" in text(result)
    assert "+20.00" in text(result)


def test_intervals_resample_what_is_asked_for(files: tuple[Path, Path]) -> None:
    before, after = Ranks.read(files[0]), Ranks.read(files[1])
    by_photo, by_user = compare(before, after), compare(before, after, "user")
    assert by_photo["bootstrap"]["units"] == 3
    assert by_user["bootstrap"]["units"] == 2
    # p0 loses one of two, p1 gains both, p2 stays: drawn alone they are the extremes
    assert by_photo["acc@1"]["interval"] == [-50, 100]
    # ann loses one and gains one of three, bob gains one of two
    assert by_user["acc@1"]["interval"] == [0, 50]
    assert compare(before, after, "query")["bootstrap"]["units"] == 5
    assert compare(before, after, "category")["acc@1"]["interval"] is None  # one category alone


def test_a_gallery_of_one_photo_has_no_percentile(tmp_path: Path) -> None:
    rows = tuple((*row[:3], 1, 1) for row in ROWS)
    alone = Ranks.read(write(tmp_path / "alone.csv", 3, rows, gallery=1))
    result = compare(alone, alone)
    assert "mean_percentile" not in result
    assert result["acc@1"]["difference"] == 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text("sketch,photo\na,b\n"), "no column 'category'"),
        (lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"), "no queries"),
        (lambda path: path.write_text(path.read_text() + "s9,p0,shoe,ann,eleven,10,,,,\n"), "cannot be read"),
        (lambda path: path.write_text(path.read_text() + "s9,p0,shoe,ann,11,10,,,,\n"), "rank 11 of 10"),
        (lambda path: path.write_text(path.read_text() + "s9,p0,sh"), "cut short"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\xff\xfe"), "cannot be read"),
        (lambda path: path.write_text(path.read_text() + "s0,p0,shoe,ann,1,10,,,,\n"), "comes twice"),
    ],
)
def test_a_spoilt_file_is_named(files: tuple[Path, Path], spoil: Callable[[Path], object], words: str) -> None:
    spoil(files[1])
    with pytest.raises(PairsFormatError, match=words) as caught:
        Ranks.read(files[1])
    assert str(files[1]) in str(caught.value)


def test_other_queries_or_galleries_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    before = Ranks.read(files[0])
    with pytest.raises(PairsFormatError, match="sketch 's4' of photo 'p2'"):
        compare(before, Ranks.read(write(tmp_path / "fewer.csv", 4, ROWS[:4])))
    with pytest.raises(PairsFormatError, match="among 10 and among 12"):
        compare(before, Ranks.read(write(tmp_path / "wider.csv", 4, gallery=12)))


def test_the_command_prints_one_object_and_writes_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "compared.json"
    words = [sys.executable, "-m", "training.compare", *map(str, files), "--over", "user", "--output", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert "5 queries" in done.stderr
