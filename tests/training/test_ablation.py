"""The ablation: arms from one recipe, trained once each, in one table with intervals over seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.generator_toys import write_classifier
from tests.training.recipe import RECIPE
from tests.training.semi_recipe import SEMI
from training import ablation as module
from training.ablation import Given, ablate, collect, plans, run_plan
from training.checkpoint import load_model, read_meta
from training.config import ConfigError, read_config
from training.data.folder import PairsFolder
from training.generation.checkpoint import load_generator
from training.semi import quality
from training.semi.arms import ARMS, TABLE
from training.semi.config import GeneratorUpdateConfig, SemiConfig
from training.semi.discriminator import DiscriminatorConfig
from training.semi.fractions import training_pairs
from training.semi.quality import Judges
from training.semi.retrieval import RetrievalConfig
from training.semi.reward import RewardConfig
from training.semi.table import markdown, mean_interval, plot, tabulate
from training.trainer import LAST

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

GENERATOR = """
[generator]
backbone = "mobilenetv2"
size = 64
latent = 6
hidden = 16
attention = 8
mixtures = 3
max_length = 30
train_backbone = false
[sequences]
epsilon = 2.0
max_points = 31
max_length = 30
[stream]
batch = 4
[run]
steps = 2
every = 2
threads = 1
[[data.sources]]
name = "shapes"
folder = "shapes"
"""
FILE = """
retrieval = "retrieval.toml"
generator = "generator.toml"
joint = "semi.toml"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name, text in (("retrieval", RECIPE), ("generator", GENERATOR), ("semi", SEMI), ("ablation", FILE)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path / "ablation.toml"


@pytest.fixture
def given(shapes: Path, tmp_path: Path, bundle_path: Path) -> Given:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes").symlink_to(shapes)
    judges = Judges(write_classifier(tmp_path / "classifier.safetensors"), bundle_path)
    return Given(tmp_path / "data", tmp_path / "out", tmp_path / "cache", "random", "random", judges=judges)


def test_arms_differ_in_what_they_leave_out(recipe: Path) -> None:
    (plan,) = plans(recipe, list(ARMS), [0.4], [7], ["joint.run.steps=40", "joint.run.every=20"])
    assert plan.name == "40-7"
    assert set(plan.joint) == set(ARMS) - {"supervised"}
    full = plan.joint["full"]
    assert full.unlabelled.fraction == 0.4
    assert full.run.seed == plan.retrieval.run.seed == plan.generator.run.seed == 7
    wanted = {
        "vanilla": ("none", 0.0, 0, False),
        "no_weights": ("none", 0.1, 1, True),
        "no_teacher": ("certainty", 0.0, 1, True),
        "no_attention": ("certainty", 0.1, 1, False),
        "no_joint": ("certainty", 0.1, 0, True),
        "full": ("certainty", 0.1, 1, True),
    }
    for arm, (weights, distillation, generator, attention) in wanted.items():
        config = plan.joint[arm]
        found = (config.retrieval.weights, config.retrieval.distillation, config.alternation.generator, ARMS[arm].attention)
        assert found == (weights, distillation, generator, attention), arm
    updates = {arm: config.alternation.done(config.run.steps) for arm, config in plan.joint.items()}
    assert set(updates.values()) == {26}  # of 39 steps after the warm-up two thirds
    assert plan.joint["no_joint"].run.steps == 27
    assert plan.joint["vanilla"].run.steps == plan.joint["continued"].run.steps == 26
    assert not plan.joint["vanilla"].judges
    assert plan.joint["no_weights"].judges
    assert not plan.joint["continued"].draws


def test_slips_show_before_anything_is_trained(recipe: Path) -> None:
    for arms, settings, message in (
        (["fuller"], [], "there is no arm 'fuller'; there are supervised, "),
        (["full"], ["run.steps=3"], "expected one of retrieval, generator, joint first"),
        (["full"], ["joint.run.stepps=3"], "unknown key 'stepps'"),
        (["full"], ["generator.run.stepps=3"], "unknown key 'stepps'"),
    ):
        with pytest.raises(ConfigError, match=message):
            plans(recipe, arms, [0.5], [0], settings)
    with pytest.raises(ConfigError, match=r"the label fraction is 1\.5, expected more than 0"):
        plans(recipe, ["full"], [1.5], [0])
    (recipe.parent / "generator.toml").write_text(GENERATOR.replace("folder =", 'pairs = "extra.csv"\nfolder ='))
    with pytest.raises(ConfigError, match=r"generator: source shapes reads .*extra\.csv.* each would label other photos"):
        plans(recipe, ["full"], [0.5], [0])


def test_every_run_sees_the_labelled_photos_alone_and_runs_once(
    recipe: Path, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["supervised", "vanilla", "full"]
    made = plans(recipe, arms, [0.5], [0], ["joint.run.steps=4", "joint.run.every=4", "retrieval.run.steps=2"])
    table = ablate(given, made, arms, "mean/acc@1")
    folder = given.out / "50-0"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "data-retrieval",
        "data-generator",
        "supervised",
        "generator",
        "generator_plain",
        "vanilla",
        "full",
    }
    assert load_generator(folder / "generator" / LAST)[0].config.use_attention
    assert not load_generator(folder / "generator_plain" / LAST)[0].config.use_attention
    source = plans(recipe, arms, [0.5], [0])[0].retrieval.data.sources[0]
    kept = {pair.photo for pair in training_pairs(source, given.data).labelled(0.5).pairs}
    for part in ("data-retrieval", "data-generator"):
        assert {pair.photo for pair in PairsFolder.read(folder / part / "shapes", "labelled-0.csv").pairs} == kept
    for part in ("supervised", "generator", "generator_plain"):
        assert read_meta(folder / part / LAST)["recipe"]["data"]["sources"][0]["pairs"] == "labelled-0.csv"
    assert load_model(folder / "full" / LAST)[2]["recipe"]["unlabelled"]["fraction"] == 0.5
    assert set(table["arms"]) == set(arms)
    assert json.loads((given.out / "ablation.json").read_text()) == table
    assert (given.out / "ablation.png").stat().st_size > 5000
    assert "| full | " in (given.out / "ablation.md").read_text()
    drawn = table["arms"]["full"]["fractions"]["50"]["generation"]
    assert list(drawn) == ["rec@1", "rec@10", "ret@1", "ret@10", "fid"]
    assert "generation" not in table["arms"]["supervised"]["fractions"]["50"]
    assert "| full, 50 % | " in (given.out / "ablation.md").read_text()

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    for name in ("train_retrieval", "train_generator", "train_joint"):
        monkeypatch.setattr(module, name, never)
    with monkeypatch.context() as patch:  # nor measured again, but by other judges
        patch.setattr(quality, "open_artist", never)
        run_plan(made[0], given)
        with pytest.raises(AssertionError, match="trained again"):
            run_plan(made[0], replace(given, judges=Judges(given.judges.classifier)))
    assert ablate(given, made, arms, "mean/acc@1", collect_only=True) == table
    more = plans(recipe, arms, [0.5], [0, 1], ["joint.run.steps=4", "joint.run.every=4", "retrieval.run.steps=2"])
    assert {key[2] for key in collect(more, arms, given.out)} == {0}
    with pytest.raises(AssertionError, match="trained again"):
        ablate(given, more, arms, "mean/acc@1")
    with pytest.raises(ConfigError, match="score 'mean/map' is not in the log of supervised; there are mean/acc@1"):
        ablate(given, made, arms, "mean/map", collect_only=True)


def test_intervals_are_students() -> None:
    """By hand: 2, 4, 6 have mean 4, deviation 2; t of two degrees at 97.5 % is 4.3027."""
    found = mean_interval([2.0, 4.0, 6.0])
    half = 4.3027 * 2 / 3**0.5
    assert found["mean"] == 4.0
    assert found["interval"] == pytest.approx([4 - half, 4 + half], abs=1e-3)
    assert mean_interval([3.0]) == {"mean": 3.0, "interval": None}


def test_the_table_pairs_gains_by_seed(tmp_path: Path) -> None:
    values = {
        ("supervised", 0.2, 0): {"mean/acc@1": 10.0},
        ("supervised", 0.2, 1): {"mean/acc@1": 20.0},
        ("supervised", 1.0, 0): {"mean/acc@1": 40.0},
        ("full", 0.2, 0): {"mean/acc@1": 16.0, "held/ret@1": 5.0, "quality/fid": 8.0},
        ("full", 0.2, 1): {"mean/acc@1": 25.0, "held/ret@1": 7.0, "quality/fid": 9.0},
    }
    table = tabulate(values, "mean/acc@1")
    cell = table["arms"]["full"]["fractions"]["20"]
    assert cell["values"] == {"0": 16.0, "1": 25.0}
    assert cell["mean"] == 20.5
    assert cell["gain"]["mean"] == 5.5
    assert cell["gain"]["interval"] == pytest.approx([5.5 - 12.706 * 0.5, 5.5 + 12.706 * 0.5], abs=1e-2)
    assert cell["drawings"]["mean"] == 6.0
    lines = markdown(table).splitlines()
    assert lines[0] == "| mean/acc@1 | 20 % labelled | 100 % labelled |"
    assert lines[2] == "| supervised | 15.0 ± 63.5 | 40.0 |"
    assert lines[3] == "| full | 20.5 ± 57.2 (+5.5 ± 6.4) | – |"
    assert lines[-3:] == ["| generated sketches | fid |", "|---|---|", "| full, 20 % | 8.5 ± 6.4 |"]
    plot(table, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_shipped_configurations_read() -> None:
    folder = Path(module.__file__).parent / "configs"
    (plan,) = plans(folder / "semi_ablation.toml", TABLE, [0.2], [0])
    full = plan.joint["full"]
    assert full.data.augmentation == plan.retrieval.data.augmentation
    assert full.retrieval.loss == plan.retrieval.loss
    paper = read_config(folder / "semi_paper.toml", SemiConfig)
    assert (paper.discriminator, paper.reward) == (DiscriminatorConfig(), RewardConfig())
    assert (paper.retrieval, paper.generator) == (RetrievalConfig(), GeneratorUpdateConfig())


def test_the_arms_of_the_table_are_there() -> None:
    assert set(TABLE) <= set(ARMS)
    assert TABLE[0] == "supervised"
