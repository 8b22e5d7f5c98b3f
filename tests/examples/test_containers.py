"""The recipes for containers, read and checked: there is no Docker here to build them."""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.examples.programs import ROOT

FOLDER = ROOT / "containers"
RECIPES = sorted(FOLDER.glob("*.Dockerfile"))
CONSTRAINTS = sorted((FOLDER / "constraints").iterdir())
BUILDERS = ["scikit-build-core", "pybind11", "cmake", "ninja"]
Instruction = tuple[str, str]


def instructions(recipe: Path) -> list[Instruction]:
    """(name, rest) of each instruction, continued lines joined, comments left out."""
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [
        (name, rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in whole.splitlines() if line.strip())
    ]


def images() -> dict[str, str]:
    """What images.env says."""
    text = (FOLDER / "images.env").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+)=(\S*)", text, re.MULTILINE))


def stages(recipe: Path) -> list[list[Instruction]]:
    """Instructions of each stage; what stands before the first FROM comes first."""
    found: list[list[Instruction]] = [[]]
    for item in instructions(recipe):
        if item[0] == "FROM":
            found.append([])
        found[-1].append(item)
    return found


def tags() -> list[str]:
    """The targets that images.env knows."""
    return [name.removesuffix("_IMAGE").lower() for name in images() if name.endswith("_IMAGE")]


def named(line: str) -> str:
    """The package that a line of constraints pins."""
    return Requirement(line).name.lower().replace("_", "-")


def test_there_is_something_to_check() -> None:
    assert [recipe.name for recipe in RECIPES] == ["cpu.Dockerfile", "jetson.Dockerfile"]
    assert sorted(tags()) == ["cpu", "jetpack6", "jetpack7"]


def test_base_images_are_pinned_and_named_in_one_place() -> None:
    for name, value in images().items():
        if name.endswith("_IMAGE"):
            image, _, tag = value.rpartition(":")
            assert image, value
            assert re.search(r"\d", tag), value
            assert "latest" not in tag
            places = [path for path in FOLDER.rglob("*") if path.is_file() and value in path.read_text(encoding="utf-8")]
            assert places == [FOLDER / "images.env"]
    for recipe in RECIPES:
        text = recipe.read_text(encoding="utf-8")
        assert ":latest" not in text
        assert {rest.split()[0] for name, rest in instructions(recipe) if name == "FROM"} == {"${BASE_IMAGE}"}
        assert ("ARG", "BASE_IMAGE") in stages(recipe)[0]  # no default: it would be a second place


def test_no_hosts_beyond_those_of_the_images() -> None:
    hosts = {value.split("/")[0] for name, value in images().items() if name.endswith("_IMAGE") and "/" in value}
    for path in FOLDER.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "://" not in text, path
            for host in re.findall(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:io|com|org|net|dev)\b", text):
                assert host in hosts, path
                assert path.name == "images.env"
            assert not re.search(r"--(extra-)?index-url|--find-links|PIP_(EXTRA_)?INDEX", text), path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_is_copied_exists_and_reaches_the_build(recipe: Path) -> None:
    ignore = recipe.with_name(f"{recipe.name}.dockerignore").read_text(encoding="utf-8").split("\n")
    kept = [line[1:] for line in ignore if line.startswith("!")]
    assert "*" in ignore
    pythons = {images()[name] for name in images() if name.endswith("_PYTHON")}
    copied = 0
    for name, rest in instructions(recipe):
        assert name != "ADD"
        if name != "COPY" or rest.startswith("--from="):
            continue
        for source in rest.split()[:-1]:
            for file in {source.replace("${PYTHON}", python) for python in pythons}:
                copied += 1
                assert (ROOT / file).exists(), file
                assert any(file == line or file.startswith(f"{line}/") for line in kept), file
    assert copied > 5
    for line in kept:
        assert (ROOT / line).exists(), line
    built = ["fgsbir_edge/_native.cpython-311-x86_64-linux-gnu.so", "fgsbir_edge/__pycache__/cli.pyc"]
    assert all(
        any(fnmatch.fnmatch(file, line.replace("**/", "*") + "*") for line in ignore[ignore.index("*") + 1 :] if line[:1] != "!")
        for file in built
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_result_runs_as_nobody_in_particular(recipe: Path) -> None:
    last = stages(recipe)[-1]
    users = [rest for name, rest in last if name == "USER"]
    assert len(users) == 1
    assert users[0].isdigit(), "by number, so that runAsNonRoot can tell"
    assert int(users[0]) >= 1000
    assert f"--uid {users[0]}" in " ".join(rest for _, rest in last)
    after = last[[name for name, _ in last].index("USER") + 1 :]
    assert not any(name in ("RUN", "COPY") for name, _ in after)
    volumes = json.loads(next(rest for name, rest in last if name == "VOLUME"))
    made = next(rest for name, rest in last if name == "RUN" and "install -d -o" in rest)
    assert all(f" {volume}" in made for volume in volumes)
    assert "-m 0700" in made  # what engines are loaded from must be nobody else's
    environment = " ".join(rest for name, rest in last if name == "ENV")
    for variable, place in re.findall(r"(FGSBIR_\w+)=(/\S+)", environment):
        assert place in volumes, variable
    for name in ("ENTRYPOINT", "CMD"):
        assert json.loads(next(rest for kind, rest in last if kind == name))  # a list: signals reach the program


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_health_is_checked_by_what_works(recipe: Path) -> None:
    (check,) = [rest for name, rest in stages(recipe)[-1] if name == "HEALTHCHECK"]
    options, _, command = check.partition("CMD ")
    assert "--timeout=" in options
    words = json.loads(command)
    assert words[0] == "python"
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_layers_leave_nothing_behind_and_pin_what_they_install(recipe: Path) -> None:
    runs = [rest for name, rest in instructions(recipe) if name == "RUN"]
    for run in runs:
        if "apt-get" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run
        assert "sudo" not in run
        assert "curl" not in run
        assert "| sh" not in run
    for stage in stages(recipe)[1:]:
        seen = False
        for name, rest in stage:
            seen |= name == "ENV" and "PIP_CONSTRAINT=/opt/constraints.txt" in rest
            assert seen or "pip install" not in rest
    pinned = {named(line) for line in lines(CONSTRAINTS[0])}
    for run in runs:
        for words in re.findall(r"pip install ([^&]+)", run):
            assert {word for word in words.split() if not word.startswith("/wheels")} <= pinned


def lines(file: Path) -> list[str]:
    """The requirements of a file of constraints."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("file", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_all_that_the_package_asks_for(file: Path) -> None:
    python = file.stem.removeprefix("python")
    assert python in {value for name, value in images().items() if name.endswith("_PYTHON")}
    assert lines(file) == sorted(lines(file))
    pins: dict[str, Version] = {}
    for line in lines(file):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", line), line
        pins[named(line)] = Version(line.partition("==")[2])
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [
        *json.loads(re.search(r"^dependencies = (\[.*\])", text, re.MULTILINE).group(1)),
        *json.loads(re.search(r"^requires = (\[.*\])", text, re.MULTILINE).group(1)),
        *BUILDERS,
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_arguments_are_those_that_the_script_gives() -> None:
    script = (FOLDER / "build.sh").read_text(encoding="utf-8")
    given = set(re.findall(r'--build-arg "(\w+)=', script))
    for recipe in RECIPES:
        declared = {rest.split("=")[0] for name, rest in instructions(recipe) if name == "ARG"}
        assert declared == given, recipe
        for stage in stages(recipe)[1:]:
            own = {rest for name, rest in stage if name == "ARG"}
            known = {"PATH"} | own | {"BASE_IMAGE"}
            for name, rest in stage:
                assert set(re.findall(r"\$\{(\w+)\}", rest)) <= known, (name, rest)


@pytest.mark.parametrize("target", [*tags(), "other", ""])
def test_the_script_calls_docker_with_them(target: str, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed: containers/build.sh is not run")
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\npwd\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    words = ["bash", str(FOLDER / "build.sh"), target, "--no-cache"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    if target not in tags():
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    values = {name: images()[f"{target.upper()}_{name}"] for name in ("PYTHON", "SM")}
    values["BASE_IMAGE"] = images()[f"{target.upper()}_IMAGE"]
    *given, place = done.stdout.splitlines()
    assert place == str(ROOT)
    assert given[:3] == ["build", "--file", f"containers/{'cpu' if target == 'cpu' else 'jetson'}.Dockerfile"]
    assert {f"{name}={value}" for name, value in values.items()} == {
        after for before, after in itertools.pairwise(given) if before == "--build-arg"
    }
    assert given[-2:] == ["--no-cache", "."]
    assert f"fgsbir-edge:{target}" in given
