"""Pre-training of the generator end to end on tiny data: what is written, resuming, several sources, what is refused."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.training.generator_recipe import RECIPE, drawing_line
from tests.training.vectors import vector_folder
from training.checkpoint import read_meta, save_tensors
from training.config import ConfigError, read_config
from training.data.sources import SourceConfig
from training.generation.checkpoint import write_halved
from training.generation.losses import VaeLossConfig
from training.generation.sampling import DrawOptions, draw
from training.generation.trainer import AdamConfig, Objective, build_optimizer
from training.generator import Places, PretrainConfig, build_generator, load_generator, open_corpora, save_generator, train
from training.journal import CURVES, read_log
from training.run_state import STATE, ResumeError
from training.trainer import BEST, LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PretrainConfig:
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(RECIPE)
    return read_config(path, PretrainConfig)


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vector sketches, raster sketches of shapes, and drawings of a game without photos."""
    root = tmp_path_factory.mktemp("data")
    vector_folder(root / "things", photos=10)
    (root / "shapes").symlink_to(shapes)
    (root / "hot dog.ndjson").write_text("\n".join(drawing_line(number) for number in range(90)) + "\n")
    return root


@pytest.fixture(scope="module")
def finished(config: PretrainConfig, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config, Places(data, out), None)
    return out


def with_run(config: PretrainConfig, **changes: Any) -> PretrainConfig:
    return replace(config, run=replace(config.run, **changes))


def test_a_run_writes_checkpoints_log_and_curves(finished: Path, config: PretrainConfig) -> None:
    rows = read_log(finished)
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert all(math.isfinite(row[name]) for name in ("loss", "loss/offset", "loss/pen", "loss/kl", "things/length"))
        assert row["things/loss"] == pytest.approx(row["things/offset"] + row["things/pen"])
        assert 0 <= row["things/ended"] <= 100
    with Image.open(finished / CURVES) as picture:
        assert picture.size[0] > 600
    generator, meta = load_generator(finished / LAST)
    assert generator.config == config.generator
    assert not generator.training
    assert meta["input"]["size"] == 64
    assert meta["sequences"]["epsilon"] == 20.0
    assert meta["step"] == 4
    assert meta["recipe"]["data"]["sources"][0]["folder"] == "things"
    assert 5 < meta["scale"] < 100
    drawn = draw(generator, torch.zeros(1, 3, 64, 64), DrawOptions(greedy=True))
    assert 1 <= int(drawn.lengths) <= config.generator.max_length
    best = min(rows, key=lambda row: row["mean/loss"])
    assert read_meta(finished / BEST)["validation"]["mean/loss"] == pytest.approx(best["mean/loss"])


def test_a_file_keeps_every_weight(finished: Path, tmp_path: Path) -> None:
    generator, meta = load_generator(finished / LAST)
    save_generator(tmp_path / "again.safetensors", generator, meta)
    again, _ = load_generator(tmp_path / "again.safetensors")
    for name, tensor in generator.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match="metadata lacks 'scale'"):
        save_generator(tmp_path / "bad.safetensors", generator, {"input": {}})


def test_going_on_gives_what_an_unbroken_run_gives(
    finished: Path, config: PretrainConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the third step, which is finished; weights, average and moments are those of no stop."""
    forward, calls = Objective.forward, []

    def stop(self: Objective, *arguments: Any) -> tuple[torch.Tensor, dict[str, float]]:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, *arguments)

    with monkeypatch.context() as once:
        once.setattr(Objective, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, Places(data, tmp_path), None)
    assert len(calls) == 3
    assert read_meta(tmp_path / STATE)["progress"]["step"] == 3
    train(config, Places(data, tmp_path), None)
    unbroken, again = load_file(finished / STATE), load_file(tmp_path / STATE)
    assert unbroken.keys() == again.keys()
    for name, tensor in unbroken.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    rows, wanted = read_log(tmp_path), read_log(finished)
    assert [row["things/loss"] for row in rows] == pytest.approx([row["things/loss"] for row in wanted])


def test_another_configuration_cannot_go_on(finished: Path, config: PretrainConfig, data: Path) -> None:
    other = replace(config, stream=replace(config.stream, flip=False))
    with pytest.raises(ResumeError, match=r"stream\.flip was True and is False; give the old value or another --out"):
        train(other, Places(data, finished), None)
    train(with_run(config, threads=2, patience=3), Places(data, finished), None)  # these change nothing that is computed


@pytest.mark.parametrize("trained", [False, True])
def test_a_fixed_backbone_stays_and_another_moves(trained: bool, config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    config = replace(config, generator=replace(config.generator, train_backbone=trained))
    before = build_generator(config, None).state_dict()
    train(config, Places(data, tmp_path), None)
    after = load_generator(tmp_path / LAST)[0].state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert {"key.weight", "query.weight", "score.weight", "cell.weight_hh", "start.weight", "output.bias", "mean.weight"} <= moved
    assert any(name.startswith("backbone.") for name in moved) == trained
    assert any(name.startswith("weights/backbone.") for name in load_file(tmp_path / STATE)) == trained


def test_it_learns_to_draw_and_to_stop(config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    """Loss of unseen drawings falls well below the first steps', and drawings come to an end that no limit forces."""
    config = replace(
        with_run(config, steps=60, every=60),
        sequences=replace(config.sequences, epsilon=4.0),
        data=replace(config.data, sources=(replace(config.data.sources[0], name="shapes", folder="shapes"),)),
        stream=replace(config.stream, batch=16),
        optimiser=AdamConfig(1e-2, 1e-3, 0.99),
    )
    train(with_run(config, steps=1, every=1), Places(data, tmp_path / "first"), None)
    figures = train(config, Places(data, tmp_path / "last"), None)
    assert figures["shapes/loss"] < read_log(tmp_path / "first")[0]["shapes/loss"] - 1.0
    assert figures["shapes/ended"] > 90
    assert 0.2 < figures["shapes/length"] < 3.0


def test_several_sources_share_one_scale(config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    text = RECIPE + '[[data.sources]]\nname = "shapes"\nfolder = "shapes"\nshare = 2\n'
    text += '[[data.quickdraw]]\nname = "dogs"\nfile = "hot dog.ndjson"\nlimit = 60\n'
    (tmp_path / "run.toml").write_text(text)
    several = read_config(tmp_path / "run.toml", PretrainConfig, ["run.steps=8", "run.every=8"])
    places = Places(data, tmp_path / "run", tmp_path / "cache")
    corpora, held, scale = open_corpora(several, places, several.input.spec(several.generator))
    assert [item.name for item in corpora] == ["things", "shapes", "dogs"]
    assert {item.name for item in held} == {"things", "shapes", "dogs"}
    assert {item.sequences.scale for item in (*corpora, *held)} == {scale}
    offsets = [item.sequences.rows[n, : item.sequences.lengths[n], :2] for item in corpora for n in range(len(item.sequences))]
    assert torch.cat([torch.from_numpy(part) for part in offsets]).std(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    for ours, theirs in ((corpora[0], held[1]), (corpora[1], held[2])):
        photos = {pair.photo for pair in ours.sequences.pairs}
        assert not photos & {pair.photo for pair in theirs.sequences.pairs}
    figures = train(several, places, None)
    assert set(figures) == {f"{name}/{what}" for name in ("things", "shapes", "dogs") for what in FIGURES} | {"mean/loss"}
    assert len(list((tmp_path / "cache").glob("maps-*.npy"))) == 6


FIGURES = ("loss", "offset", "pen", "length", "ended")


def test_another_generator_is_where_to_begin(finished: Path, config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    built, other = build_generator(config, None, finished / LAST), load_generator(finished / LAST)[0]
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in built.state_dict().items())
    figures = train(with_run(config, steps=1), Places(data, tmp_path), None, finished / LAST)
    assert math.isfinite(figures["mean/loss"])
    wider = replace(config, generator=replace(config.generator, hidden=20))
    with pytest.raises(ConfigError, match=r"a generator of another shape than \[generator\] says"):
        build_generator(wider, None, finished / LAST)


def test_a_run_without_progress_stops_early(
    config: PretrainConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.generation.validation import SequenceValidator

    monkeypatch.setattr(SequenceValidator, "__call__", lambda *_: {"things/loss": 2.5, "mean/loss": 2.5})
    train(with_run(config, steps=20, every=1, patience=3), Places(data, tmp_path), None)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4]
    assert read_meta(tmp_path / BEST)["step"] == 1


def test_the_released_mask_and_no_attention_train_too(config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    plain = replace(
        config, loss=VaeLossConfig("released"), generator=replace(config.generator, use_attention=False, positions=True)
    )
    assert math.isfinite(train(plain, Places(data, tmp_path), None)["mean/loss"])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "training" / "configs").glob("generator*.toml")), ids=lambda path: path.name
)
def test_shipped_configurations_can_be_read(path: Path) -> None:
    config = read_config(path, PretrainConfig)
    assert (config.generator.backbone == "vgg16") == ("paper" in path.name)


def test_a_generator_to_begin_with_keeps_its_scale(config: PretrainConfig, data: Path, finished: Path, tmp_path: Path) -> None:
    """Its weights know lengths in that scale, whatever the scale of the new drawings is."""
    spec = config.input.spec(config.generator)
    only = with_run(config, steps=1, every=1)
    only = replace(only, data=replace(config.data, sources=(SourceConfig("shapes", "shapes"),), quickdraw=()))
    known, own = read_meta(finished / LAST)["scale"], open_corpora(only, Places(data, tmp_path), spec)[2]
    assert own != pytest.approx(known, rel=0.01)
    train(only, Places(data, tmp_path / "on"), None, finished / LAST)
    assert read_meta(tmp_path / "on" / LAST)["scale"] == known
    (corpus, *_), _, scale = open_corpora(only, Places(data, tmp_path), spec, known)
    assert corpus.sequences.scale == scale == known


def test_a_halved_file_draws_as_before(finished: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    write_halved(finished / LAST, half)
    assert half.stat().st_size < 0.6 * (finished / LAST).stat().st_size
    (whole, meta), (loaded, found) = load_generator(finished / LAST), load_generator(half)
    assert found == meta
    assert all(tensor.dtype != torch.float16 for tensor in loaded.state_dict().values())
    photos = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = whole.encode(photos), loaded.encode(photos)
    torch.testing.assert_close(second.values, first.values, rtol=2e-2, atol=2e-2)
    save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(KeyError):
        write_halved(tmp_path / "other.safetensors", half)


def test_edges_of_photos_train_and_people_validate(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RECIPE)
    source = "data.sources=[{name='outlines', folder='shapes', kind='edges'}]"
    config = read_config(tmp_path / "run.toml", PretrainConfig, [source, "data.quickdraw=[]", "data.validation=['shapes']"])
    train_side, held, _ = open_corpora(config, Places(data, tmp_path), config.input.spec(config.generator))
    assert [corpus.name for corpus in train_side] == ["outlines"]
    assert [corpus.name for corpus in held] == ["shapes"]
    people = {pair.photo for pair in held[0].sequences.pairs}
    drawn = {pair.photo for pair in train_side[0].sequences.pairs}
    assert drawn
    assert not drawn & people
    assert all(pair.sketch.startswith("edges:") for pair in train_side[0].sequences.pairs)


def test_rates_are_the_released_codes() -> None:
    config = AdamConfig()
    for step in (0, 1000, 50_000):
        assert config.factor(step) * config.rate == pytest.approx((1e-4 - 1e-5) * 0.9999**step + 1e-5)
    assert AdamConfig(warmup=9).factor(0) == pytest.approx(0.1)


def test_the_backbone_has_a_rate_of_its_own(config: PretrainConfig) -> None:
    generator = build_generator(replace(config, generator=replace(config.generator, train_backbone=True)), None)
    groups = build_optimizer(generator, AdamConfig(rate=1e-3, backbone_rate=0.1)).param_groups
    assert [group["base"] for group in groups] == [pytest.approx(1e-4), pytest.approx(1e-3)]
    assert groups[0]["betas"] == (0.5, 0.999)
    assert sum(len(group["params"]) for group in groups) == sum(1 for item in generator.parameters() if item.requires_grad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.sources=[]"], "expected at least one, each with a name of its own"),
        (["sequences.max_length=120"], r"sequences\.max_length is 120, the generator draws at most 100 rows"),
        (["optimiser.floor=1.0"], "floor from 0 to rate"),
        (["stream.stretch=1.5"], "stretch 1.5"),
        (["data.quickdraw=[{name='q', file='x.npz', share=0}]"], "source q: share must be"),
    ],
)
def test_wrong_settings_are_named(settings: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RECIPE)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "run.toml", PretrainConfig, settings)


def test_validation_needs_something_held_back(config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.score is 'mean/map'; there are things/loss, mean/loss"):
        train(with_run(config, score="mean/map"), Places(data, tmp_path), None)
    whole = replace(config.data.sources[0], split="all")
    with pytest.raises(ConfigError, match="no source leaves drawings out to validate on"):
        train(replace(config, data=replace(config.data, sources=(whole,))), Places(data, tmp_path), None)


def test_bfloat16_computes_the_backbone_alone(config: PretrainConfig, data: Path, tmp_path: Path) -> None:
    config = replace(with_run(config, steps=2, precision="bf16-mixed"), generator=replace(config.generator, train_backbone=True))
    assert math.isfinite(train(config, Places(data, tmp_path), None)["mean/loss"])


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no distributed package")
def test_two_processes_train_one_generator(data: Path, tmp_path: Path) -> None:
    """Every trained weight takes part in the sum over devices; figures are printed once."""
    (tmp_path / "run.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "training.generator", "--config", str(tmp_path / "run.toml"), "--data", str(data)]
    settings = ["run.devices=2", "run.accelerator='cpu'", "generator.train_backbone=true", "generator.positions=true"]
    words = [*command, "--out", str(tmp_path / "run"), "--weights", "random", *(w for item in settings for w in ("--set", item))]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "things/loss" in json.loads(ran.stdout)
    assert read_meta(tmp_path / "run" / STATE)["progress"]["step"] == 4


@pytest.mark.slow
def test_the_command_takes_settings_and_names_what_is_wrong(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "training.generator", "--config", str(tmp_path / "run.toml"), "--data", str(data)]
    command += ["--out", str(tmp_path / "run"), "--weights", "random"]
    ran = subprocess.run([*command, "--set", "run.steps=1"], capture_output=True, text=True, check=True)
    assert "things/loss" in json.loads(ran.stdout)
    for extra, text in (
        (["--set", "run.stepps=1"], "unknown key 'stepps'"),
        (["--start", "no.file"], "no.file: there is no such"),
    ):
        failed = subprocess.run([*command, *extra], capture_output=True, text=True, check=False)
        assert failed.returncode not in (0, 2)
        assert text in failed.stderr
        assert "Traceback" not in failed.stderr
