"""The table's arithmetic, and the command end to end on drawn shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import training.adaptation_table as module
from tests.training import methods_toys as toys
from training import meta
from training.adaptation_table import Given, rows_of, table_of
from training.checkpoint import load_model, read_meta
from training.config import ConfigError, read_config
from training.episodic.config import DomainConfig, MetaConfig
from training.episodic.methods.config import TableConfig
from training.episodic.methods.learned import arm
from training.episodic.methods.protocol import Measured
from training.episodic.methods.settings import SettingConfig
from training.episodic.plots import Axis, Panel, plot_lines, plot_rows
from training.episodic.regularisers import RegulariserConfig
from training.episodic.report import Found, draw, points, write_report
from training.episodic.table import ROWS, cell, markdown, note_of, tabulate

pytestmark = pytest.mark.torch

HAND = ("none", "prototype", "ridge", "centred", "finetune_head", "finetune", "maml", "sign_maml", "ccdg", "upper")
TABLE = f"""
methods = {list(HAND)}
threads = 1
[[settings]]
name = "category"
kind = "category"
folder = "shapes"
[protocol]
ks = [1, 3]
draws = 2
[choosing]
tasks = 1
draws = 1
[grids]
head_rates = [0.1, 0.5]
head_steps = [2]
network_rates = [0.01]
network_steps = [1]
shares = [0.5]
strengths = [0.1, 1.0]
priors = [2.0]
[network]
modules = 1
[network.outer]
tasks = 1
k = 2
queries = 2
others = 2
versions = 1
loop = {{ steps = 2, every = 2, threads = 1 }}
[ccdg]
traits = 2
outer = {{ k = 1, queries = 2, tasks = 1, versions = 1, loop = {{ steps = 2, every = 2, threads = 1 }} }}
[upper]
folds = 2
outer = {{ k = 1, queries = 2, tasks = 1, versions = 1, loop = {{ steps = 1, every = 1, threads = 1 }} }}
[sweep]
k = 3
steps = [0, 1, 4]
step_methods = ["finetune_head"]
"""


def measured(*rows: list[float]) -> Measured:
    """Acc@1 by task and draw; Acc@5 is 50 everywhere."""
    fifth = [[50.0] * len(row) for row in rows]
    return Measured(tuple(f"task{i}" for i in range(len(rows))), {"acc@1": list(rows), "acc@5": fifth})


def test_gains_are_paired_by_draw_and_intervals_resample_tasks() -> None:
    base, own = measured([10.0, 30.0], [50.0, 70.0]), measured([20.0, 40.0], [60.0, 80.0])
    found = cell(own, base)["acc@1"]
    assert (found["mean"], found["gain"]) == (50.0, 10.0)
    assert found["gain_interval"] == [10.0, 10.0]  # every draw gains 10, though the values are far apart
    assert found["interval"] == [30.0, 70.0]  # both tasks the first one, both the second
    assert cell(own, base)["by_task"] == {"task0": 30.0, "task1": 70.0}
    assert cell(own, base)["acc@5"]["gain"] == 0.0
    lone = cell(measured([10.0, 30.0]), None)["acc@1"]
    assert lone["interval"] == [10.0, 30.0]  # one task: its draws
    assert "gain" not in lone
    with pytest.raises(ValueError, match="tasks measured differ"):
        cell(own, measured([1.0, 2.0]))


def test_the_table_in_print() -> None:
    base = {1: measured([10.0], [30.0]), 5: measured([20.0], [40.0])}
    table = tabulate({"none": base, "ridge": {5: measured([25.0], [43.0])}})
    lines = markdown("people", table, ROWS, note_of({1: 2, 5: 2}, 10)).splitlines()
    assert lines[2] == "| method | Acc@1, k=1 | gain | Acc@5 | Acc@1, k=5 | gain | Acc@5 |"
    assert lines[3].count("|") == lines[2].count("|") == 8
    assert lines[4].startswith("| *without adaptation* |")
    assert lines[5] == "| no adaptation | 20.0 [10.0, 30.0] |  | 50.0 | 30.0 [20.0, 40.0] |  | 50.0 |"
    assert lines[7] == "| ridge | – | – | – | 34.0 [25.0, 43.0] | +4.0 [+3.0, +5.0] | 50.0 |"
    assert "2 at k=1, 2 at k=5" in lines[9]
    assert all(line.count("|") == 8 for line in lines[2:8])


def test_plots_are_drawn_where_there_is_something(tmp_path: Path) -> None:
    lines = {"ours": {1: (20.0, [10.0, 30.0]), 5: (25.0, [20.0, 24.0])}}
    plot_lines([Panel("person", lines), Panel("category", {})], Axis("k", even=True), tmp_path / "lines.png")
    plot_rows([Panel("person", {"all": lines["ours"], "none": {5: (22.0, None)}}, base=21.0)], tmp_path / "rows.png")
    for name in ("lines.png", "rows.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (680, 450)  # one panel and its legend
            assert 3 < len(image.convert("RGB").getcolors() or []) <= 64
    plot_lines([Panel("person", {})], Axis("k"), tmp_path / "empty.png")
    assert not (tmp_path / "empty.png").exists()


def test_bars_are_the_interval_of_the_gain() -> None:
    gained = {"acc@1": {"mean": 50.0, "interval": [10.0, 90.0], "gain": 4.0, "gain_interval": [1.0, 9.0]}}
    base = {"acc@1": {"mean": 46.0, "interval": [6.0, 86.0]}}
    assert points({"5": gained, "10": base}) == {5: (50.0, [47.0, 55.0]), 10: (46.0, None)}


def test_rows_of_the_plots_follow_the_setting() -> None:
    config = TableConfig(methods=("none", "ours"))
    people, kinds = (rows_of(config, item) for item in config.settings)
    assert people[:4] == ["none", "ours", "ours@32", "ours@64"]
    assert people[7:11] == ["ours+2", "ours+5", "ours+10", "ours+20"]
    assert people[-3:] == ["ours-domain", "ours-intra", "ours-all"]
    assert kinds[-4:] == ["ours-domain", "ours-semantic", "ours-category", "ours-all"]
    assert rows_of(TableConfig(methods=("none",)), config.settings[0]) == ["none"]


def test_rows_are_the_configuration_of_ours_less_what_they_lack() -> None:
    config = MetaConfig((DomainConfig("a", "a", "person"),), regularisers=RegulariserConfig())
    assert arm("ours", config) is config
    anil = arm("anil", config)
    assert (anil.margin.design, anil.regularisers) == ("fixed", None)
    assert replace(anil, margin=config.margin, regularisers=config.regularisers) == config
    assert arm("ours_pairs", config) == config  # nothing is centred by itself
    plain = arm("regularised", config)
    assert (plain.outer.base_weight, plain.regularisers) == (1.0, config.regularisers)
    assert arm("ours@32", config).features.embedding == 32
    several = arm("ours+4", replace(config, inner=replace(config.inner, steps=2, rate=0.5)))
    assert several == replace(config, inner=replace(config.inner, steps=4, rate=0.25))
    assert arm("ours-all", config).regularisers is None
    for term in ("domain", "category", "intra", "semantic"):
        kept = arm(f"ours-{term}", config).regularisers
        assert kept is not None
        assert kept == replace(RegulariserConfig(), **{term: 0.0})
    with pytest.raises(ConfigError, match="no meta-trained row 'ours-other'"):
        arm("ours-other", config)
    with pytest.raises(ConfigError, match=r"regularised: the configuration has no regularisers; add \[regularisers\]"):
        arm("regularised", replace(config, regularisers=None))


def test_a_report_has_all_parts(tmp_path: Path) -> None:
    config = TableConfig(settings=(SettingConfig("person", "person", "shapes"),))
    one, two = measured([10.0, 20.0], [30.0, 40.0]), measured([20.0, 20.0], [50.0, 40.0])
    rows = {
        "none": Found({}, {1: one, 5: one}),
        "ours": Found({}, {1: one, 5: two}, {0: one, 1: two}),
        "ridge": Found({}, {5: two}, chosen={"5": {"strength": 1.0}}),
        "ours@32": Found({}, {5: two}, {0: one}),
        "ours@64": Found({}, {5: one}),
        "ours+5": Found({}, {5: two}),
        "ours-domain": Found({}, {5: one}),
        "ours-all": Found({}, {5: one}),
    }
    table = write_report(config, {"person": rows}, tmp_path)
    draw(config, table["settings"], tmp_path)
    assert json.loads((tmp_path / "adaptation.json").read_text()) == table
    found = table["settings"]["person"]
    assert set(found["methods"]) == {"none", "ours", "ridge"}
    assert found["chosen"] == {"ridge": {"5": {"strength": 1.0}}}
    assert found["steps"]["ours"]["1"]["acc@1"]["gain"] == pytest.approx(7.5)
    assert set(found["steps"]) == {"ours"}
    assert list(found["widths"]) == ["32", "64"]
    assert found["trained_steps"]["5"]["acc@1"]["gain"] == pytest.approx(7.5)
    assert set(found["before"]) == {"ours", "ours@32"}
    assert found["before"]["ours@32"]["acc@1"]["gain"] == 0.0
    assert list(found["regularisers"]) == ["ours", "ours-domain", "ours-all"]
    text = (tmp_path / "adaptation.md").read_text()
    assert "| without L_D |" in text
    assert "| ours |" in text
    for name in ("by_k", "by_steps", "by_width", "by_regulariser"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Given:
    root = tmp_path_factory.mktemp("table")
    (root / "data").mkdir()
    (root / "data" / "shapes").symlink_to(shapes)
    (root / "table.toml").write_text(TABLE)
    start = toys.checkpoint(root / "start.safetensors", shapes)
    return Given(root / "table.toml", root / "data", start, root / "out")


def test_the_command_trains_measures_and_does_not_do_so_twice(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(given)
    found = table["settings"]["category"]
    assert set(found["methods"]) == set(HAND)
    assert all(set(cells) == {"1", "3"} for cells in found["methods"].values())
    assert set(found["steps"]) == {"finetune_head"}
    assert found["steps"]["finetune_head"]["0"] == {**found["methods"]["none"]["3"], **found["steps"]["finetune_head"]["0"]} | {
        part: {**found["methods"]["none"]["3"][part], "gain": 0.0, "gain_interval": [0.0, 0.0]} for part in ("acc@1", "acc@5")
    }
    assert set(found["chosen"]["finetune_head"]) == {"1", "3"}
    assert len(found["chosen"]["finetune_head"]["3"]["tried"]) == 2
    folder = given.out / "category"
    assert (folder / "maml" / "last.safetensors").is_file()
    assert (folder / "upper" / "fold-1" / "last.safetensors").is_file()
    assert (given.out / "adaptation.md").read_text().count("\n| ") >= len(HAND)
    assert (given.out / "by_steps.png").stat().st_size > 5000

    def never(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "measure", never)
    monkeypatch.setattr(module, "draw", lambda *_: None)  # plots take longer than all the rest
    assert table_of(given) == table
    assert table_of(given, collect=True) == table
    with pytest.raises(AssertionError, match="measured again"):
        table_of(Given(given.config, given.data, given.checkpoint, given.out, settings=("protocol.seed=5",)))
    with pytest.raises(ConfigError, match="nothing is measured with this protocol"):
        table_of(Given(given.config, given.data, given.checkpoint, given.out, settings=("protocol.seed=5",)), collect=True)


META = """
[[domains]]
name = "shapes"
folder = "shapes"
setting = "category"
split = "all"
[[domains]]
name = "held"
folder = "shapes"
setting = "category"
split = "none"
[episodes]
k = [2]
tasks = 1
queries = 2
[regularisers]
hidden = 4
[validation]
k = [1]
draws = 1
[run]
steps = 2
every = 2
threads = 1
"""
LEARNED = """
methods = ["none", "regularised", "anil", "ours"]
threads = 1
[[settings]]
name = "category"
kind = "category"
folder = "shapes"
[[settings]]
name = "person"
kind = "person"
folder = "shapes"
[protocol]
ks = [2]
draws = 2
[sweep]
k = 2
steps = [0, 3]
step_methods = ["ours"]
widths = [4]
trained_steps = [3]
regularisers = false
[meta.category]
config = "meta.toml"
[meta.person]
config = "meta.toml"
"""


def test_meta_trained_rows_are_runs_of_training_meta(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meta.toml").write_text(META)
    (tmp_path / "learned.toml").write_text(LEARNED)
    own = Given(tmp_path / "learned.toml", given.data, given.checkpoint, tmp_path / "out")
    table = table_of(own)
    for name in ("category", "person"):
        found = table["settings"][name]
        assert set(found["methods"]) == {"none", "regularised", "anil", "ours"}
        assert (list(found["widths"]), list(found["trained_steps"])) == (["4"], ["3"])
        assert set(found["steps"]["ours"]) == {"0", "3"}
    folder = own.out / "category"
    assert set(found["before"]) == {"ours", "ours@4", "ours+3"}
    assert read_meta(folder / "ours+3" / "last.safetensors")["adaptation"]["steps"] == 3
    assert load_model(folder / "ours@4" / "last.safetensors")[1].linear.out_features == 4
    designs = {name: read_meta(folder / name / "last.safetensors")["adaptation"]["margin_design"] for name in ("anil", "ours")}
    assert designs == {"anil": "fixed", "ours": "distances"}
    assert not list((own.out / "person").rglob("*.safetensors"))  # equal configurations share their runs
    assert not own.out.joinpath("by_regulariser.png").exists()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(meta, "train", never)
    monkeypatch.setattr(module, "draw", lambda *_: None)
    assert table_of(own) == table


def test_slips_show_with_a_remedy(given: Given, tmp_path: Path) -> None:
    for settings, message in (
        (("methods=['best']",), "there is no method 'best'; there are none, "),
        (("protocol.ks=[0]",), "expected 1 or more"),
        (("network.maml.order='sign'",), "maml.order must be"),
        (("sweep.step_methods=['maml']",), "step_methods has 'maml'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_config(given.config, TableConfig, settings)
    one = Given(given.config, given.data, given.checkpoint, tmp_path, settings=("methods=['anil']", "sweep.widths=[]"))
    with pytest.raises(ConfigError, match=r"anil is meta-trained: name a configuration of training\.meta in \[meta\.category\]"):
        table_of(one)
    with pytest.raises(ConfigError, match="there is no such checkpoint; train one"):
        table_of(Given(given.config, given.data, tmp_path / "none.safetensors", tmp_path))
