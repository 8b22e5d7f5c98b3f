"""Head and Adapter: the low-rank form is the merged head, files come back as they were, other heads are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from fgsbir_edge.errors import (
    AdapterFormatError,
    AdapterMismatchError,
    BundleFormatError,
    NonFiniteError,
    OutputError,
    ShapeError,
)
from fgsbir_edge.files import pack_tensors
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.margin import MarginNet
from tests.toy import EMBEDDING, FEATURES, toy_head


def adapter_of(head: Head, m: int, side: str = "sketch", seed: int = 1) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(head.digest, rng.normal(size=(EMBEDDING, m)), rng.normal(size=(m, FEATURES)), side, {"pairs": str(m)})


def features(n: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


def margin_net(h: int = 6, seed: int = 3) -> MarginNet:
    rng = np.random.default_rng(seed)
    return MarginNet(rng.normal(size=(h, 3)), rng.normal(size=h), rng.normal(size=(h, 2 * h)), rng.normal(size=h),
                     rng.normal(size=(1, h)), rng.normal(size=1))  # fmt: skip


def test_embedding_is_the_normalised_affine_map(head: Head) -> None:
    rows = features(5)
    outputs = rows.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
    expected = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    np.testing.assert_allclose(head.embed(rows), expected, atol=1e-6)
    np.testing.assert_allclose(head.embed(rows[0]), expected[:1], atol=1e-6)


@pytest.mark.parametrize("m", [1, 5, 60], ids=["one row", "low rank", "more rows than the full change costs"])
@pytest.mark.parametrize("side", ["sketch", "both"])
def test_adapter_is_the_merged_head(head: Head, m: int, side: str) -> None:
    adapter, rows = adapter_of(head, m, side), features(7)
    weight = head.weight.astype(np.float64) + adapter.coefficients.astype(np.float64) @ adapter.support
    merged = replace(head, weight=weight, bias=head.bias + adapter.coefficients.sum(axis=1))
    np.testing.assert_allclose(adapter.embed(head, rows, "sketch"), merged.embed(rows), atol=2e-5)
    expected = merged.embed(rows) if side == "both" else head.embed(rows)
    np.testing.assert_allclose(adapter.embed(head, rows, "photo"), expected, atol=2e-5)


def test_identity_adapter_changes_nothing_and_survives_a_file(head: Head, tmp_path: Path) -> None:
    adapter, rows = Adapter.identity(head), features(4)
    np.testing.assert_array_equal(adapter.embed(head, rows), head.embed(rows))
    adapter.save(tmp_path / "none.safetensors")
    assert Adapter.load(tmp_path / "none.safetensors", head).rank == 0


def test_adapter_file_round_trip(head: Head, tmp_path: Path) -> None:
    adapter = adapter_of(head, 5, "both")
    adapter.save(tmp_path / "me.safetensors")
    loaded = Adapter.load(tmp_path / "me.safetensors", head)
    assert loaded.digest == adapter.digest
    assert (loaded.side, loaded.meta) == ("both", {"pairs": "5"})
    adapter.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "me.safetensors").read_bytes()


def test_adapter_of_another_head_is_refused(head: Head, tmp_path: Path) -> None:
    adapter_of(head, 5).save(tmp_path / "me.safetensors")
    other = toy_head(seed=9)
    with pytest.raises(AdapterMismatchError, match=r"made for head .* adapt again"):
        Adapter.load(tmp_path / "me.safetensors", other)
    with pytest.raises(AdapterMismatchError):
        adapter_of(head, 5).embed(other, features(2))


def test_step_sizes_do_not_bind_an_adapter(head: Head) -> None:
    adapter_of(head, 2).check(toy_head(step_sizes=[0.5]))


@pytest.mark.parametrize(
    "content",
    [b"", b"not safetensors", b"\xff" * 64, "truncated", "head", "nan", "no tensor", "float64"],
)
def test_damaged_adapter_file(head: Head, tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "me.safetensors"
    adapter = adapter_of(head, 5)
    adapter.save(path)
    whole = path.read_bytes()
    meta = {"format": "fgsbir-edge-adapter-1", "head": head.digest, "side": "sketch"}
    arrays = {"coefficients": adapter.coefficients, "support": adapter.support}
    replacements = {
        "truncated": whole[:-7],
        "head": head.to_bytes(),
        "nan": pack_tensors({**arrays, "support": adapter.support * np.float32("nan")}, meta),
        "no tensor": pack_tensors({"support": adapter.support}, meta),
        "float64": save({**arrays, "support": adapter.support.astype(np.float64)}, metadata=meta),
    }
    path.write_bytes(content if isinstance(content, bytes) else replacements[content])
    with pytest.raises(AdapterFormatError, match=r"me\.safetensors"):
        Adapter.load(path, head)


def test_the_library_reads_what_is_written_by_hand(head: Head) -> None:
    tensors = load(head.to_bytes())
    np.testing.assert_array_equal(tensors["weight"], head.weight)
    np.testing.assert_array_equal(tensors["step_sizes"], head.step_sizes)


def test_missing_adapter_file(head: Head, tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match="check the path"):
        Adapter.load(tmp_path / "none", head)


def test_failed_save_leaves_nothing(head: Head, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        adapter_of(head, 2).save(tmp_path / "folder")
    with pytest.raises(OutputError):
        adapter_of(head, 2).save(tmp_path / "absent" / "me.safetensors")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_head_file_round_trip(tmp_path: Path) -> None:
    head = toy_head(margin_net=margin_net(), margin=0.25, sharpness=0.0, side="both", negatives="gallery")
    head.save(tmp_path / "head.safetensors")
    loaded = Head.load(tmp_path / "head.safetensors")
    assert loaded.digest == head.digest
    assert (loaded.margin, loaded.sharpness, loaded.side, loaded.negatives) == (0.25, 0.0, "both", "gallery")
    assert loaded.margin_net is not None
    assert loaded.margin_net.tensors().keys() == {f"margin.{name}" for name in ("w1", "b1", "w2", "b2", "w3", "b3")}
    np.testing.assert_array_equal(loaded.step_sizes, head.step_sizes)


def test_head_without_a_margin_tensor_is_refused() -> None:
    head = toy_head(margin_net=margin_net())
    tensors = {"weight": head.weight, "bias": head.bias, "step_sizes": head.step_sizes, **margin_net().tensors()}
    del tensors["margin.w2"]
    meta = {"format": "fgsbir-edge-head-1", "margin": "0.3", "sharpness": "10", "side": "both", "negatives": "support"}
    with pytest.raises(BundleFormatError, match="w2"):
        Head.from_bytes(pack_tensors(tensors, meta))


@pytest.mark.parametrize(
    "changes", [{"bias": np.zeros(3)}, {"step_sizes": []}, {"step_sizes": [np.nan]}, {"side": "left"}, {"sharpness": -1.0}]
)
def test_head_refuses_nonsense(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        toy_head(**changes)


def test_features_are_checked(head: Head) -> None:
    with pytest.raises(ShapeError, match=r"expected \[N, 40\]"):
        head.embed(np.zeros((2, FEATURES + 1)))
    with pytest.raises(NonFiniteError, match="NaN"):
        head.embed(np.full((2, FEATURES), np.nan))


def test_arrays_cannot_change_under_their_digest(head: Head) -> None:
    with pytest.raises(ValueError, match="read-only"):
        head.weight[0, 0] = 1.0


def test_margin_net_equals_its_formula_whatever_the_order() -> None:
    net, rng = margin_net(), np.random.default_rng(0)
    positive, negative = rng.uniform(0, 2, 9).astype(np.float32), rng.uniform(0, 2, 9).astype(np.float32)
    hidden = []
    for p, n in zip(positive, negative, strict=True):
        hidden.append([max(0.0, float(row @ [p, n, n - p]) + float(b)) for row, b in zip(net.w1, net.b1, strict=True)])
    mean = np.mean(hidden, axis=0)
    std = np.sqrt(np.mean((np.asarray(hidden) - mean) ** 2, axis=0) + 1e-8)
    second = np.maximum(net.w2 @ np.concatenate([mean, std]) + net.b2, 0)
    expected = 1 / (1 + np.exp(-float((net.w3 @ second + net.b3)[0])))
    assert net.predict(positive, negative) == pytest.approx(expected, abs=1e-6)
    order = rng.permutation(9)
    assert net.predict(positive[order], negative[order]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_margin_net_does_not_overflow(bias: float) -> None:
    net = replace(margin_net(), b3=np.asarray([bias], np.float32))
    one = np.ones(1, np.float32)
    assert net.predict(one, one) == pytest.approx(float(bias > 0), abs=1e-6)
