"""examples/ros2 as colcon and ros2 launch will read it: manifests, set-up, parameters and launch file agree with the node."""

from __future__ import annotations

import ast
import importlib
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.examples import fake_ros
from tests.examples.programs import EXAMPLES

ROOT = EXAMPLES / "ros2"
PACKAGE, INTERFACES = ROOT / "fgsbir_ros", ROOT / "fgsbir_interfaces"
NOT_ROS = {"fgsbir_edge", "fgsbir_ros", "numpy", "PIL", "setuptools"}


def manifest(folder: Path) -> ElementTree.Element:
    """A package.xml of format 3."""
    root = ElementTree.parse(folder / "package.xml").getroot()
    assert (root.tag, root.get("format")) == ("package", "3")
    for tag in ("name", "version", "description", "maintainer", "license"):
        assert (root.findtext(tag) or "").strip(), tag
    assert root.find("maintainer").get("email")
    return root


def imported(folder: Path) -> set[str]:
    """Packages that a folder's Python imports and that are not Python's own."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found.update(name.split(".")[0] for name in names)
    return found - set(sys.stdlib_module_names)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    given: dict[str, Any] = {}
    tools = ModuleType("setuptools")
    tools.setup = given.update  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "setuptools", tools)
    runpy.run_path(str(PACKAGE / "setup.py"))
    return given


@pytest.fixture
def node() -> Any:
    """The node's module, imported over stand-ins."""
    adapt = fake_ros.service(INTERFACES / "srv" / "Adapt.srv")
    with fake_ros.installed(PACKAGE, adapt, SimpleNamespace(log=[])):
        yield importlib.import_module("fgsbir_ros.node")


def test_manifests_name_what_is_imported() -> None:
    root = manifest(PACKAGE)
    depends = {item.text for item in root.iter("exec_depend")}
    assert depends == imported(PACKAGE) - NOT_ROS
    assert [item.get("version_gte") for item in root.iter("exec_depend") if item.text == "vision_msgs"] == ["4.0.0"]
    assert root.findtext("export/build_type") == "ament_python"


def test_interfaces_are_generated_from_the_files_there_are() -> None:
    root = manifest(INTERFACES)
    assert root.findtext("member_of_group") == "rosidl_interface_packages"
    assert root.findtext("export/build_type") == "ament_cmake"
    commands = (INTERFACES / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f"project({root.findtext('name')})" in commands
    for file in INTERFACES.rglob("*.srv"):
        assert f'"{file.relative_to(INTERFACES).as_posix()}"' in commands


def test_setup_installs_files_that_exist(setup: dict[str, Any]) -> None:
    name = manifest(PACKAGE).findtext("name")
    assert setup["name"] == name
    assert setup["version"] == manifest(PACKAGE).findtext("version")
    assert setup["packages"] == [name]
    places = dict(setup["data_files"])
    assert places["share/ament_index/resource_index/packages"] == [f"resource/{name}"]
    for files in places.values():
        assert all((PACKAGE / file).is_file() for file in files), files
    installed = {Path(file).name for files in places.values() for file in files}
    assert {file.name for part in ("launch", "config") for file in (PACKAGE / part).iterdir()} <= installed
    scripts = (PACKAGE / "setup.cfg").read_text(encoding="utf-8")
    assert scripts.count(f"$base/lib/{name}") == 2  # where ros2 run looks


def test_entry_points_lead_to_functions(setup: dict[str, Any], node: Any) -> None:
    for line in setup["entry_points"]["console_scripts"]:
        _, _, target = line.partition(" = ")
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_file_of_parameters_is_the_node_s_defaults(node: Any) -> None:
    """But for the gallery, which has none. Read by hand: YAML is not among the test requirements."""
    found: dict[str, str] = {}
    prefix = ""
    for line in (PACKAGE / "config" / "find.yaml").read_text(encoding="utf-8").splitlines()[3:]:
        name, _, value = line.strip().partition(":")
        value = value.split(" #")[0].strip().strip('"')
        depth = len(line) - len(line.lstrip())
        if line.rstrip().endswith(":"):
            prefix = f"{name}."
        else:
            found[(prefix if depth > 4 else "") + name] = value
    defaults = {name: str(value) for name, value in node.DEFAULTS.items()}
    assert found.pop("gallery")
    assert defaults.pop("gallery") == ""
    assert found == defaults


def test_the_launch_file_starts_the_node(monkeypatch: pytest.MonkeyPatch, setup: dict[str, Any], node: Any) -> None:
    def kept(name: str) -> Any:
        return lambda *words, **options: SimpleNamespace(kind=name, words=words, **options)

    parts = {
        "ament_index_python.packages": {"get_package_share_directory": lambda name: f"/share/{name}"},
        "launch": {"LaunchDescription": lambda items: items},
        "launch.actions": {"DeclareLaunchArgument": kept("argument")},
        "launch.substitutions": {"LaunchConfiguration": kept("value")},
        "launch_ros.actions": {"Node": kept("node")},
        "launch_ros.parameter_descriptions": {"ParameterValue": kept("typed")},
    }
    for name, content in parts.items():
        for whole in (name.split(".")[0], name):
            if whole not in sys.modules:
                monkeypatch.setitem(sys.modules, whole, ModuleType(whole))
        sys.modules[name].__dict__.update(content)
    items = runpy.run_path(str(PACKAGE / "launch" / "find.launch.py"))["generate_launch_description"]()
    *arguments, started = items
    declared = {item.words[0] for item in arguments}
    assert started.package == setup["name"]
    assert any(line.startswith(f"{started.executable} = ") for line in setup["entry_points"]["console_scripts"])
    file, given = started.parameters
    assert file.words == ("config",)
    assert arguments[0].default_value == "/share/fgsbir_ros/config/find.yaml"
    assert {"config", *given} == declared
    for name, value in given.items():
        assert value.words[0].words == (name,)
        assert value.value_type is type(node.DEFAULTS[name])
    assert not hasattr(arguments[1], "default_value")  # a gallery must be named
