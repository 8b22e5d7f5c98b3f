"""What is said of a variant: distances, ties, adversarial inputs, calibration images, hashes, and when it is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.calibration import CalibrationSet
from export.parity import Encoded, accuracy, adversarial, adversarial_distance, distance, encoded, rank_bounds
from export.provenance import folder_sha256, folders, versions
from export.variants import Plan, VariantRefusedError, refuse
from fgsbir_edge.errors import NoPairsError
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.data.folder import PairsFolder
from training.evaluate_table import Table

SPEC = InputSpec(size=32)
C = 24


def project(pixels: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """An encoder: a fixed random projection, and with `noise` a slightly different one."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3 * 32 * 32, C)) + noise * rng.normal(size=(3 * 32 * 32, C))
    rows = pixels.reshape(len(pixels), -1) @ weight
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def coarse(pixels: np.ndarray) -> np.ndarray:
    return project(pixels, 0.1)


HEAD = Head(np.eye(C), np.zeros(C), np.ones(1))


@pytest.fixture(scope="module")
def table(shapes: Path) -> Table:
    return Table.read(shapes, "pairs.csv", "category")


def test_encoders_are_compared_on_all_images_and_queries(table: Table) -> None:
    rows = encoded(table, {"plain": project, "same": project, "coarse": coarse}, SPEC)
    assert rows["plain"].sketches.shape == (24, C)
    assert rows["plain"].photos.shape == (14, C)
    same = distance(rows["same"], rows["plain"], table, HEAD)
    assert same["cosine_min"] == 1.0
    assert (same["ranks_changed"], same["ranks_changed_beyond_ties"], same["queries"]) == (0, 0, 24)
    other = distance(rows["coarse"], rows["plain"], table, HEAD)
    both = [np.concatenate([rows[name].sketches, rows[name].photos]).astype(np.float64) for name in ("coarse", "plain")]
    cosines = np.sum(both[0] * both[1], axis=1)
    assert other["cosine_min"] == pytest.approx(cosines.min(), abs=1e-6)
    assert other["cosine_mean"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert other["largest_difference"] == pytest.approx(np.abs(both[0] - both[1]).max(), rel=1e-2)
    figures = accuracy(rows["plain"], table, HEAD, rows["plain"])
    ranks = rows["plain"].search(table, HEAD).ranking.ranks
    assert figures["acc@1"] == pytest.approx(100 * np.mean(ranks == 1), abs=1e-3)
    assert figures["acc@1_among_fp32_photos"] == figures["acc@1"]


def test_photos_are_averaged_over_shifts_as_in_a_gallery(table: Table) -> None:
    plain, shifted = (encoded(table, {"one": project}, spec)["one"] for spec in (SPEC, replace(SPEC, photo_shift=3)))
    np.testing.assert_array_equal(plain.sketches, shifted.sketches)
    assert np.abs(plain.photos - shifted.photos).max() > 1e-3


def test_a_rank_decided_by_a_tie_may_change(table: Table) -> None:
    rows = encoded(table, {"one": project}, SPEC)["one"]
    search = rows.search(table, HEAD)
    low, high = rank_bounds(search)
    ranks = search.ranking.ranks
    assert np.all((low <= ranks) & (ranks <= high))
    alike = Encoded(rows.sketches, np.repeat(rows.photos[:1], len(rows.photos), axis=0))
    low, high = rank_bounds(alike.search(table, HEAD))
    assert set(low.tolist()) == {1}
    assert set(high.tolist()) == {7}  # all seven photos of the category tie
    changed = distance(alike, rows, table, HEAD)
    assert changed["ranks_changed"] > 0
    assert changed["ranks_changed_beyond_ties"] == 0
    reversed_ = Encoded(rows.sketches, -rows.photos)
    assert distance(reversed_, rows, table, HEAD)["ranks_changed_beyond_ties"] > 0


def test_adversarial_inputs_are_normalised() -> None:
    spec = InputSpec(size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    inputs = adversarial(spec)
    assert set(inputs) == {"all white", "all black", "noise", "single pixel"}
    back = {name: image[0] * np.reshape(spec.std, (3, 1, 1)) + np.reshape(spec.mean, (3, 1, 1)) for name, image in inputs.items()}
    np.testing.assert_allclose(back["all white"], 1.0, atol=1e-6)
    np.testing.assert_allclose(back["all black"], 0.0, atol=1e-6)
    assert np.sum(back["single pixel"] < 0.5) == 3
    assert back["noise"].std() == pytest.approx(12**-0.5, abs=0.02)
    assert all(image.dtype == np.float32 for image in inputs.values())


def test_an_encoder_whose_rows_depend_on_their_neighbours_is_found() -> None:
    honest = adversarial_distance(project, project, SPEC)
    assert set(honest["cosine"].values()) == {1.0}
    assert honest["largest_difference_between_batches"] < 1e-6

    def leaking(pixels: np.ndarray) -> np.ndarray:
        rows = project(pixels)
        return rows + 0.01 * (len(rows) == 7) * rows.mean(axis=0)

    found = adversarial_distance(leaking, project, SPEC)
    assert found["largest_difference_between_batches"] > 1e-3

    def broken(pixels: np.ndarray) -> np.ndarray:
        return np.zeros((len(pixels), C), np.float32)

    assert set(adversarial_distance(broken, project, SPEC)["cosine"].values()) == {0.0}


def test_calibration_takes_both_kinds_by_name_alone(shapes: Path, tmp_path: Path) -> None:
    folder = PairsFolder.read(shapes)
    drawn = CalibrationSet.draw([folder], SPEC, 12)
    assert drawn.pixels.shape == (12, 3, 32, 32)
    assert (drawn.to_json()["sketches"], drawn.to_json()["photos"]) == (6, 6)
    assert [name.split("/")[1] for name in drawn.names[:4]] == ["sketch", "photo", "sketch", "photo"]
    assert drawn.to_json()["folders"] == [shapes.name]
    moved = PairsFolder.read(shutil.copytree(shapes, tmp_path / shapes.name))
    assert CalibrationSet.draw([moved], SPEC, 12).sha256 == drawn.sha256
    assert CalibrationSet.draw([folder], SPEC, 10).sha256 != drawn.sha256
    assert CalibrationSet.draw([folder], replace(SPEC, line_width=3.0), 12).sha256 != drawn.sha256
    whole = CalibrationSet.draw([folder], SPEC, 1000)
    assert (whole.to_json()["sketches"], whole.to_json()["photos"]) == (24, 14)
    for wrong in ([], [folder]):
        with pytest.raises(NoPairsError, match="calibration images"):
            CalibrationSet.draw(wrong, SPEC, 1)


def test_hashes_of_folders_depend_on_content_not_on_place(shapes: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(shapes, tmp_path / "elsewhere" / "shapes")
    assert folder_sha256(copy) == folder_sha256(shapes)
    assert folders([copy]) == {"shapes": folder_sha256(shapes)}
    (copy / "photos" / "disc" / "0.png").rename(copy / "photos" / "disc" / "9.png")
    assert folder_sha256(copy) != folder_sha256(shapes)
    assert {"python", "numpy", "onnxruntime"} <= set(versions())


def found(**acc: float) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {"accuracy": {"acc@1": value}} for name, value in acc.items()}


def test_a_variant_that_loses_too_much_is_refused_unless_asked_for() -> None:
    figures = found(fp32=60.0, fp16=59.9, int8=59.4)
    refuse(figures, ["fp16"], frozenset(), "shapes")
    with pytest.raises(VariantRefusedError, match=r"int8 loses 0\.60 points.*shapes.*60\.00.*59\.40.*--allow-loss int8"):
        refuse(figures, ["fp16", "int8"], frozenset({"fp16"}), "shapes")
    refuse(figures, ["fp16", "int8"], frozenset({"int8"}), "shapes")


def test_queries_are_drawn_by_name(shapes: Path) -> None:
    check = PairsFolder.read(shapes)
    part = Plan(queries=10).table(check)
    assert len(part.pairs) == 10
    assert part.photos == Plan().table(check).photos
    assert part.pairs == Plan(queries=10).table(check).pairs
    assert len(Plan().table(check).pairs) == 24
