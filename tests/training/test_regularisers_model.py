"""Which terms there are, bad input, determinism, state, metadata, configuration files."""

from __future__ import annotations

import ast
import logging
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fgsbir_edge.errors import NonFiniteError
from training.config import ConfigError, from_table, to_table
from training.episodic import gradient_reversal, regularisers, words
from training.episodic.regularisers import JointFeatures, RegulariserConfig, Regularisers
from training.episodic.words import WordVectors, WordVectorsError

pytestmark = pytest.mark.torch

NAMES = ("bee", "cat", "owl")
PLAIN = RegulariserConfig(hidden=4, words_width=6)


def some(rows: int = 6, width: int = 5, seed: int = 0) -> JointFeatures:
    sides = torch.randn(2, rows, width, generator=torch.Generator().manual_seed(seed))
    sketches, photos = torch.nn.functional.normalize(sides, dim=-1)
    return JointFeatures(sketches.requires_grad_(), photos.requires_grad_(), torch.arange(rows), torch.arange(rows) % 3)


def names_of(terms: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in terms if "/" not in name}


@pytest.mark.parametrize(
    ("heads", "setting", "categories", "expected"),
    [
        ("paper", "category", 3, {"domain", "category", "semantic"}),
        ("paper", "category", 1, {"domain", "intra"}),
        ("paper", "person", 1, {"domain", "intra"}),
        ("paper", "person", 3, {"domain", "intra"}),
        ("category", "person", 3, {"domain", "category", "semantic"}),
        ("intra", "category", 3, {"domain", "intra"}),
        ("both", "person", 3, {"domain", "category", "semantic", "intra"}),
    ],
)
def test_which_terms_there_are(heads: str, setting: str, categories: int, expected: set[str]) -> None:
    config = replace(PLAIN, heads=heads)  # type: ignore[arg-type]
    features = some()
    features = replace(features, category=features.category % categories)
    made = Regularisers(5, NAMES[:categories], setting, config)  # type: ignore[arg-type]
    total, terms = made(features)
    assert names_of(terms) == expected
    total.backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    for name in expected:  # every one can be switched off, and its head goes with it
        less = Regularisers(5, NAMES[:categories], setting, replace(config, **{name: 0.0}))  # type: ignore[arg-type]
        assert names_of(less(features)[1]) == expected - {name}
        gone = {"domain": "discriminator", "category": "classifier", "semantic": "decoder"}.get(name)
        assert gone is None or not any(key.startswith(gone) for key in less.state_dict())
        assert (made.word_facts is None) == ("semantic" not in expected)


def test_heads_that_need_categories() -> None:
    for heads in ("category", "both"):
        with pytest.raises(ValueError, match="with 1 category, a classifier needs two; set heads to 'intra'"):
            Regularisers(5, ["chair"], "category", replace(PLAIN, heads=heads))  # type: ignore[arg-type]


def test_all_off_is_nought_with_a_gradient() -> None:
    made = Regularisers(5, NAMES, "category", replace(PLAIN, domain=0.0, category=0.0, semantic=0.0))
    features = some()
    total, terms = made(features)
    total.backward()
    assert total.item() == 0.0
    assert terms == {}
    assert not features.sketches.grad.any()  # type: ignore[union-attr]
    assert made.facts() == {"terms": {}, "words": None}
    assert not list(made.parameters())


def test_features_are_checked() -> None:
    made, good = Regularisers(5, NAMES, "category", PLAIN), some()
    made(good)
    for side in ("sketches", "photos"):
        rows = getattr(good, side).detach()
        far = rows.clone()
        far[2] *= 1.05
        with pytest.raises(ValueError, match=f"the {side} are off unit length by up to 0.05; normalise them first"):
            made(replace(good, **{side: far}))
        bad = rows.clone()
        bad[1, 1] = math.nan
        with pytest.raises(NonFiniteError, match=f"features of the {side} hold NaN or infinity"):
            made(replace(good, **{side: bad}))
    with pytest.raises(ValueError, match="features have 4 numbers, expected 5"):
        made(some(width=4))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"category numbers go from {min(wrong, 0)} to {max(wrong, 2)}, expected 0 to 2"):
            made(replace(good, category=torch.tensor([0, 1, 2, 0, 1, wrong])))


def test_rows_go_together() -> None:
    good = some()
    for name, value in (
        ("photos", good.photos[:5]),
        ("photos", good.photos[:, :4]),
        ("category", good.category[:5]),
        ("photo_index", good.photo_index[:5]),
        ("sketches", good.sketches[:, :4]),
    ):
        with pytest.raises(ValueError, match=r"expected sketches and photos \[n,C\]"):
            replace(good, **{name: value})
    with pytest.raises(ValueError, match="n > 0"):
        JointFeatures(torch.zeros(0, 5), torch.zeros(0, 5), torch.zeros(0), torch.zeros(0))


def test_support_and_query_are_joined() -> None:
    parts = [some(rows=2, seed=1), some(rows=4, seed=2)]
    joined = JointFeatures.joined(parts)
    for name in ("sketches", "photos", "photo_index", "category"):
        torch.testing.assert_close(getattr(joined, name), torch.cat([getattr(part, name) for part in parts]))


def test_half_precision_and_autocast_change_little() -> None:
    made, features = Regularisers(5, NAMES, "category", replace(PLAIN, heads="both")), some()
    total = made(features)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(features)[0], total)
    low = replace(features, sketches=features.sketches.bfloat16(), photos=features.photos.bfloat16())
    half = made(low)[0]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, total, rtol=0.02, atol=0.0)


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Regularisers(5, NAMES, "category", PLAIN)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = Regularisers(5, NAMES, "category", replace(PLAIN, domain=0.0))  # without D the others start the same
    others = {name: tensor for name, tensor in first.state_dict().items() if not name.startswith("discriminator")}
    assert set(second.state_dict()) == set(others)
    assert all(torch.equal(tensor, others[name]) for name, tensor in second.state_dict().items())
    third = Regularisers(5, NAMES, "category", replace(PLAIN, seed=1))
    assert not torch.equal(third.classifier[0].weight, first.classifier[0].weight)
    features = some()
    for one, two in zip(first(features)[1].values(), first(features)[1].values(), strict=True):
        assert torch.equal(one, two)


def test_a_state_dict_goes_round(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("bee 1 0 0\ncat 0 1 0\nowl 0 0 1\n")
    trained = Regularisers(5, NAMES, "category", replace(PLAIN, words=str(file)))
    features = some()
    trained(features)[0].backward()
    torch.optim.SGD(trained.parameters(), lr=0.1).step()
    again = Regularisers(5, NAMES, "category", replace(PLAIN, words_width=3, seed=9))  # with the stand-in
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again(features)[0], trained(features)[0])
    assert torch.equal(again.words, torch.eye(3))


def test_words_are_read_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "words.txt"
    file.write_text("bee 1 0\ncat 0 1\nbird -1 0\n")
    config = replace(PLAIN, words=str(file), aliases={"owl": "bird"})
    with caplog.at_level(logging.WARNING):
        made = Regularisers(5, NAMES, "category", config)
    assert not caplog.records
    np.testing.assert_array_equal(made.words.numpy(), [[1, 0], [0, 1], [-1, 0]])
    told = made.facts()["words"]
    assert isinstance(told, dict)
    assert (told["source"], told["meaning"], told["read_as"]) == ("words.txt", True, {"owl": "bird"})
    with caplog.at_level(logging.WARNING):
        stood_in = Regularisers(5, NAMES, "category", PLAIN)
    assert "stand-in vectors without meaning" in caplog.text
    assert stood_in.word_facts == WordVectors.stand_in(NAMES, 6).facts()
    with pytest.raises(WordVectorsError, match="no vector for 1 of 3: 'owl'"):
        Regularisers(5, NAMES, "category", replace(config, aliases={}))
    Regularisers(5, NAMES, "category", replace(config, aliases={}, semantic=0.0))  # not read where it is not needed
    with pytest.raises(ValueError, match="words are of other names than the categories"):
        Regularisers(5, NAMES, "category", PLAIN, WordVectors.stand_in(NAMES[::-1], 6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"domain": -1.0}, "domain is -1.0"),
        ({"semantic": math.inf}, "semantic is inf"),
        ({"strength": math.nan}, "strength is nan"),
        ({"heads": "all"}, "heads is 'all'"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"intra_negatives": "random"}, "intra_negatives is 'random'"),
        ({"intra_margin": 2.5}, "intra_margin is 2.5"),
        ({"hidden": -1}, "hidden is -1"),
        ({"words_width": 0}, "words_width 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_options_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegulariserConfig(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=next(iter(values))):
        from_table(RegulariserConfig, values)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="setting is 'user'"):
        Regularisers(5, NAMES, "user", PLAIN)  # type: ignore[arg-type]
    for wrong in ((), ("bee", "bee")):
        with pytest.raises(ValueError, match="expected each once and at least one"):
            Regularisers(5, wrong, "category", PLAIN)


def test_options_as_a_table() -> None:
    table = {"domain": 1, "words": "glove.txt", "aliases": {"car_(sedan)": "sedan"}}
    config = from_table(RegulariserConfig, table)
    assert config.aliases == {"car_(sedan)": "sedan"}
    assert from_table(RegulariserConfig, to_table(config)) == config


@pytest.mark.parametrize("module", [gradient_reversal, regularisers, words])
def test_python_3_10_can_read_it(module: object) -> None:
    path = Path(str(module.__file__))  # type: ignore[attr-defined]
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_the_document_names_every_option_and_its_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "regularisers.md").read_text(encoding="utf-8")
    assert not [item.name for item in fields(RegulariserConfig) if f"`{item.name}" not in text]
    example = "\n".join(line[4:] for line in text.splitlines()[1:8] if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glove.6B.300d.txt").write_text("".join(f"{name} {' '.join(['0.5'] * 300)}\n" for name in NAMES))
    good = some()
    scope = {"width": 5, "categories": NAMES, **{item.name: getattr(good, item.name) for item in fields(good)}}
    exec(example, scope)
    terms = scope["terms"]
    assert isinstance(terms, dict)
    assert names_of(terms) == {"domain", "category", "semantic"}
