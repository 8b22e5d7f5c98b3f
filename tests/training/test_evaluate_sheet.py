"""Contact sheets: which queries are drawn, and what the picture holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.errors import NoPairsError, OutputError
from fgsbir_edge.preprocess import InputSpec
from fgsbir_edge.sheet import CELL, GAP, GREEN
from training.contact_sheet import CAPTION, HEADING, ROW, SIDE, SheetOptions, best_and_worst, picture, write_sheet
from training.data.folder import Pair
from training.evaluate_model import open_model
from training.evaluate_retrieval import Ranking, Search
from training.evaluate_table import Table
from training.evaluation import encode_photos, encode_sketches, photo_input, sketch_input


def ranking(*rows: tuple[str, int, int, float]) -> Ranking:
    """Queries s0, s1, ... of (photo, rank, gallery, margin)."""
    photos, ranks, sizes, margins = zip(*rows, strict=True)
    pairs = tuple(Pair(f"s{number}", photo) for number, photo in enumerate(photos))
    similarity = np.array(margins, np.float32)
    wrong = tuple("" if size == 1 else "other" for size in sizes)
    return Ranking(pairs, np.array(ranks), np.array(sizes), similarity, wrong, np.where(np.array(sizes) == 1, np.nan, 0.0))


def test_best_by_rank_then_margin_and_worst_by_percentile_then_margin() -> None:
    found = ranking(
        ("p0", 1, 10, 0.1),
        ("p1", 1, 10, 0.3),
        ("p2", 5, 10, -0.1),  # percentile 56
        ("p3", 5, 101, -0.2),  # percentile 96
        ("p4", 5, 10, -0.3),  # percentile 56
        ("p5", 9, 101, -0.9),  # percentile 92
        ("p6", 1, 1, 0.9),  # nothing was searched
    )
    assert best_and_worst(found, 3) == ([1, 0, 2], [4, 5, 3])
    assert best_and_worst(found, 1) == ([1], [4])
    assert best_and_worst(found, 99) == ([1, 0, 2], [4, 5, 3])  # none is drawn twice


def test_a_photo_comes_a_second_time_only_after_all_others() -> None:
    found = ranking(("p0", 1, 9, 0.9), ("p0", 1, 9, 0.8), ("p1", 1, 9, 0.7), ("p2", 4, 9, 0.0), ("p2", 4, 9, 0.0))
    assert best_and_worst(found, 3)[0] == [0, 2, 3]
    assert best_and_worst(found, 1) == ([0], [3])  # equals: by name
    assert best_and_worst(found, 2) == ([0, 2], [3, 1])


@pytest.fixture
def search(bundle_path: Path, data_path: Path) -> Search:
    table = Table.read(data_path, "pairs.csv", "all")
    encode, head, spec = open_model(bundle_path, 1)
    sketches = encode_sketches(table.folder, [pair.sketch for pair in table.pairs], encode, spec)
    return Search(table, head.embed(sketches), head.embed(encode_photos(table.folder, table.photos, encode, spec)))


def framed(sheet: np.ndarray, row: int, column: int, extra: int = 0) -> bool:
    """Whether the picture in a column (0: the sketch) of a row has a green frame."""
    top = HEADING + row * ROW + 60
    left = SIDE + (GAP if column else 0) + column * (CELL + GAP) + extra
    return bool((sheet[top, left] == GREEN).all())


def test_the_sheet_shows_every_chosen_query_with_its_true_photo_framed(search: Search, bundle: Bundle, tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", "toy", search, bundle.input, SheetOptions(rows=3, top=2))
    write_sheet(tmp_path / "again.png", "toy", search, bundle.input, SheetOptions(rows=3, top=2))
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[0] == 2 * HEADING + 6 * ROW + GAP
    best, worst = best_and_worst(search.ranking, 3)
    ranks = search.ranking.ranks
    assert ranks[best].max() < ranks[worst].min()
    assert ranks[worst].min() > 2  # so that the last column is used
    for row, query in enumerate(best):
        assert framed(sheet, row, int(ranks[query]))
    lower = sheet[HEADING:]  # the second heading
    for row, query in enumerate(worst, start=3):
        assert ranks[query] > 2
        assert not framed(lower, row, 1)
        assert not framed(lower, row, 2)
        assert framed(lower, row, 3, extra=GAP)
    assert not framed(sheet, 0, 0)
    drawn = sheet[HEADING + CELL + 1 : HEADING + CELL + CAPTION - 2, SIDE:]
    assert (drawn < 128).any()  # captions


def test_names_in_any_script_and_of_any_length_are_drawn(data_path: Path, bundle_path: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_path, data)
    name = f"{'long-' * 30}椅子-ñ.png"
    shutil.move(data / "photos" / "odd" / "star03.png", data / "photos" / "odd" / name)
    table = (data / "pairs.csv").read_text(encoding="utf-8")
    (data / "pairs.csv").write_text(table.replace("star03.png", name).replace(",bob", ",Žofie 😀"), encoding="utf-8")
    read = Table.read(data, "pairs.csv", "category")
    encode, head, spec = open_model(bundle_path, 1)
    sketches = encode_sketches(read.folder, [pair.sketch for pair in read.pairs], encode, spec)
    found = Search(read, head.embed(sketches), head.embed(encode_photos(read.folder, read.photos, encode, spec)))
    write_sheet(tmp_path / "sheet.png", "names", found, spec, SheetOptions())
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == SIDE + (6 + 2) * (CELL + GAP) + 3 * GAP  # galleries hold six photos


def test_a_picture_is_what_the_encoder_saw(data_path: Path) -> None:
    spec = InputSpec(size=48)
    folder = Table.read(data_path, "pairs.csv", "all").folder
    for pixels in (photo_input(folder, "odd/star03.png", spec), sketch_input(folder, "ann/3.png", spec)):
        levels = np.asarray(picture(pixels, spec), np.float32).transpose(2, 0, 1) / 255.0
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
        np.testing.assert_allclose((levels - mean) / std, pixels[0], atol=1e-5)


def test_sheets_that_cannot_be(search: Search, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_sheet(tmp_path / "nowhere" / "sheet.png", "", search, bundle.input, SheetOptions(1, 1))
    single = Table("t", search.table.folder, search.table.pairs[:1], (search.table.pairs[0].photo,), False)
    alone = Search(single, search.sketches[:1], search.photos[:1])
    with pytest.raises(NoPairsError, match="every gallery is one photo"):
        write_sheet(tmp_path / "sheet.png", "", alone, bundle.input, SheetOptions())
