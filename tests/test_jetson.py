"""What the tools of a Jetson print, read from samples written after their documented formats (tests/golden/jetson/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgsbir_edge import jetson
from fgsbir_edge.jetson import Clock, Sample, parse_clocks, parse_mode, parse_modes, parse_tegrastats

GOLDEN = Path(__file__).parent / "golden" / "jetson"


def text(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_tegrastats_of_jetpack_5() -> None:
    sample = parse_tegrastats(text("tegrastats_jetpack5"))
    assert (sample.ram, sample.swap) == ((3567, 30588), (12, 15294))
    assert sample.cpus[:5] == ((2, 729), (0, 729), None, None, (11, 2201))
    assert len(sample.cpus) == 12
    assert sample.engines == {"EMC": (1, (2133,)), "GR3D": (37, (611, 611))}
    assert sample.celsius["GPU"] == 40.5
    assert not {"CV0", "CV1", "CV2"} & set(sample.celsius)  # switched off
    assert sample.milliwatts["VDD_GPU_SOC"] == (2391, 2390)
    assert sample.watts is None  # VIN_SYS_5V0 is not the whole module


def test_tegrastats_of_jetpack_6() -> None:
    first, second = map(parse_tegrastats, text("tegrastats_jetpack6").splitlines())
    assert first.engines["GR3D"] == (99, (624,))
    assert first.celsius == {"cpu": 47.5, "soc2": 46.218, "soc0": 45.906, "gpu": 46.625, "tj": 47.5, "soc1": 46.062}
    assert set(first.milliwatts) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert first.watts == 5.52
    assert second.engines == {"GR3D": (37, ())}
    assert second.cpus[-1] is None


def test_tegrastats_of_jetpack_7() -> None:
    sample = parse_tegrastats(text("tegrastats_jetpack7"))
    assert sample.engines["GR3D"] == (None, (1574, 1574, 1573))
    assert sample.swap is None
    assert sample.watts == 22.59


def test_rails_without_units_as_older_releases_print_them() -> None:
    assert parse_tegrastats("RAM 1/2MB CPU [off,7%] VDD_IN 2532/2530") == Sample(
        (1, 2), None, (None, (7, 0)), {}, {}, {"VDD_IN": (2532, 2530)}
    )
    assert parse_tegrastats("nothing of the kind") == Sample()


@pytest.mark.parametrize(("release", "mode"), [(5, ("MAXN", 0)), (6, ("15W", 0)), (7, ("120W", 1))])
def test_power_mode(release: int, mode: tuple[str, int]) -> None:
    assert parse_mode(text(f"nvpmodel_jetpack{release}")) == mode
    told = parse_mode(text(f"jetson_clocks_jetpack{release}"))
    assert told is not None
    assert told[0] == mode[0]
    assert parse_mode("nvpmodel: command not found") is None


def test_power_modes_have_other_numbers_on_each_board() -> None:
    assert parse_modes(text("nvpmodel_conf_jetpack6")) == {0: "15W", 1: "25W", 2: "MAXN_SUPER"}


def test_clocks() -> None:
    clocks = parse_clocks(text("jetson_clocks_jetpack5"))
    assert clocks["cpu0"] == Clock(729.6, 2201.6, 729.6)
    assert [name for name, clock in clocks.items() if clock.pinned] == ["cpu1"]
    assert clocks["GPU"].largest == 1300.5
    assert clocks["EMC"].current == 2133
    assert parse_clocks(text("jetson_clocks_jetpack6"))["GPU"].pinned
    assert parse_clocks(text("jetson_clocks_jetpack7"))["GPU"] == Clock(1575, 1575, 1575)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def test_state_from_the_files_of_a_device(tmp_path: Path) -> None:
    assert jetson.state(tmp_path) is None
    write(tmp_path / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic, EABI: aarch64")
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    assert jetson.state(tmp_path) == {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "l4t": "36.4.7",
        "power_mode": None,
        "clocks_mhz": {},
        "clocks_pinned": False,
    }
    write(tmp_path / "etc/nvpmodel.conf", text("nvpmodel_conf_jetpack6"))
    write(tmp_path / "var/lib/nvpmodel/status", "pmode:0002 fmode:quiet")
    for name, value in (("min", 1510400), ("max", 1510400), ("cur", 1510400)):
        write(tmp_path / f"sys/devices/system/cpu/cpu0/cpufreq/scaling_{name}_freq", value)
    for name, value in (("min", 306000000), ("max", 624750000), ("cur", 306000000)):
        write(tmp_path / f"sys/class/devfreq/17000000.gpu/{name}_freq", value)
        write(tmp_path / f"sys/class/devfreq/15340000.vic/{name}_freq", value)
    found = jetson.state(tmp_path)
    assert found is not None
    assert found["power_mode"] == "MAXN_SUPER"
    assert found["clocks_mhz"]["GPU"] == {"least": 306.0, "largest": 624.75, "current": 306.0}
    assert set(found["clocks_mhz"]) == {"cpu0", "GPU"}
    assert not found["clocks_pinned"]
    write(tmp_path / "sys/class/devfreq/17000000.gpu/min_freq", 624750000)
    pinned = jetson.state(tmp_path)
    assert pinned is not None
    assert pinned["clocks_pinned"]


def test_a_tool_that_is_missing_or_fails_says_nothing() -> None:
    assert jetson.output_of("no-such-tool-of-a-jetson") == ""
    assert jetson.output_of("false") == ""
