"""Stand-ins for what the node imports of ROS 2: messages with the fields and types of their definitions, and a small rclpy.

Fields are those of Humble and Jazzy: std_msgs, sensor_msgs, nav_msgs, geometry_msgs, diagnostic_msgs, std_srvs, and vision_msgs
from 4.0.0 on. As in the generated classes a field takes its own type alone, and there are no others.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

INTEGERS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "uint8": (0, 255)}
OTHERS: dict[str, Callable[[], Any]] = {
    **{"string": str, "float64": float, "bool": bool, "list": list},
    **{"byte": lambda: b"\0", "uint8[]": lambda: array("B")},
}


def fits(kind: Any, value: Any) -> bool:
    """Whether a field of this kind takes the value."""
    if isinstance(kind, type):
        return isinstance(value, kind)
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return type(value) is int and low <= value <= high
    return type(value) is type(OTHERS[kind]()) and (kind != "byte" or len(value) == 1)


def message(name: str, /, **fields: Any) -> type:
    """A class of messages; a field's kind is a name of the interface language, or another such class."""

    def init(self: Any, **given: Any) -> None:
        for field, kind in fields.items():
            make = kind if isinstance(kind, type) else int if kind in INTEGERS else OTHERS[kind]
            object.__setattr__(self, field, make())
        for field, value in given.items():
            setattr(self, field, value)

    def put(self: Any, field: str, value: Any) -> None:
        assert field in fields, f"{name} has no field {field}"
        assert fits(fields[field], value), f"{name}.{field} is {fields[field]}, got {value!r}"
        object.__setattr__(self, field, value)

    return type(name, (), {"__init__": init, "__setattr__": put})


Time = message("Time", sec="int32", nanosec="uint32")
Header = message("Header", stamp=Time, frame_id="string")
Point = message("Point", x="float64", y="float64", z="float64")
Pose = message("Pose", position=Point)
PoseStamped = message("PoseStamped", header=Header, pose=Pose)
Path_ = message("Path", header=Header, poses="list")
Image = message(
    "Image",
    **{"header": Header, "height": "uint32", "width": "uint32", "encoding": "string"},
    **{"is_bigendian": "uint8", "step": "uint32", "data": "uint8[]"},
)
ObjectHypothesis = message("ObjectHypothesis", class_id="string", score="float64")
Classification = message("Classification", header=Header, results="list")
VisionInfo = message("VisionInfo", header=Header, method="string", database_location="string", database_version="int32")
KeyValue = message("KeyValue", key="string", value="string")
DiagnosticStatus = message("DiagnosticStatus", level="byte", name="string", message="string", hardware_id="string", values="list")
DiagnosticArray = message("DiagnosticArray", header=Header, status="list")
SetParametersResult = message("SetParametersResult", successful="bool", reason="string")
Trigger = SimpleNamespace(Request=message("Trigger.Request"), Response=message("Response", success="bool", message="string"))


def service(file: Path) -> SimpleNamespace:
    """A service as its .srv file defines it."""
    parts = []
    for part in file.read_text(encoding="utf-8").split("---"):
        lines = [line.split() for line in part.splitlines() if line.strip() and not line.startswith("#")]
        parts.append({name: kind for kind, name in lines})
    request, response = parts
    return SimpleNamespace(Request=message("Request", **request), Response=message("Response", **response))


class Node:
    """A node whose publishers keep what they publish, and whose subscriptions and services tests call."""

    overrides: dict[str, Any] = {}  # noqa: RUF012 - set by tests, as a file of parameters would
    made: list[Node] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name, self.destroyed = name, False
        self.parameters: dict[str, Any] = {}
        self.publishers: dict[str, SimpleNamespace] = {}
        self.subscriptions: dict[str, tuple[type, Callable[[Any], None]]] = {}
        self.services: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {}
        self.timers: list[Callable[[], None]] = []
        self.log: list[str] = []
        self._ticks = itertools.count(1)
        Node.made.append(self)

    def declare_parameter(self, name: str, value: Any) -> Any:
        given = self.overrides.get(name, value)
        assert type(given) is type(value), f"parameter {name} is {type(value)}"
        self.parameters[name] = given
        return SimpleNamespace(value=given)

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        sent: list[Any] = []

        def publish(item: Any) -> None:
            assert isinstance(item, kind)
            sent.append(item)

        made = SimpleNamespace(publish=publish, sent=sent, qos=qos, listeners=0)
        made.get_subscription_count = lambda: made.listeners
        self.publishers[topic] = made
        return made

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self.subscriptions[topic] = kind, callback

    def create_service(self, kind: Any, name: str, callback: Callable[[Any, Any], Any]) -> None:
        self.services[name] = kind, callback

    def create_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds > 0
        self.timers.append(callback)

    def add_on_set_parameters_callback(self, callback: Callable[[list[Any]], Any]) -> None:
        self.on_set = callback

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: Time(sec=next(self._ticks))))

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.log.append)

    def get_name(self) -> str:
        return self.name

    def destroy_node(self) -> None:
        self.destroyed = True


def modules(adapt: SimpleNamespace, state: SimpleNamespace) -> dict[str, ModuleType]:
    """What the node imports, by name. ``state`` keeps what is logged without a node, and ``spin``, which tests set."""

    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(content)
        return made

    def choice(*names: str) -> SimpleNamespace:
        return SimpleNamespace(**{name: name for name in names})

    stopped = type("ExternalShutdownException", (Exception,), {})
    parts = {
        "rclpy": {
            "init": lambda: None,
            "spin": lambda node: state.spin(node),
            "try_shutdown": lambda: state.log.append("shut down"),
        },
        "rclpy.executors": {"ExternalShutdownException": stopped},
        "rclpy.logging": {"get_logger": lambda name: SimpleNamespace(fatal=state.log.append)},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {
            "QoSProfile": SimpleNamespace,
            "DurabilityPolicy": choice("TRANSIENT_LOCAL", "VOLATILE"),
            "ReliabilityPolicy": choice("RELIABLE", "BEST_EFFORT"),
        },
        "diagnostic_msgs.msg": {
            "DiagnosticArray": DiagnosticArray,
            "DiagnosticStatus": DiagnosticStatus,
            "KeyValue": KeyValue,
        },
        "fgsbir_interfaces.srv": {"Adapt": adapt},
        "nav_msgs.msg": {"Path": Path_},
        "rcl_interfaces.msg": {"SetParametersResult": SetParametersResult},
        "sensor_msgs.msg": {"Image": Image},
        "std_srvs.srv": {"Trigger": Trigger},
        "vision_msgs.msg": {"Classification": Classification, "ObjectHypothesis": ObjectHypothesis, "VisionInfo": VisionInfo},
    }
    made = {name: module(name, **content) for name, content in parts.items()}
    for name in list(made):
        made.setdefault(name.split(".")[0], module(name.split(".")[0]))
    return made


@contextmanager
def installed(package: Path, adapt: SimpleNamespace, state: SimpleNamespace) -> Iterator[None]:
    """The stand-ins, and a folder that holds the node's package, where imports find them; gone again afterwards."""
    before = dict(sys.modules)
    sys.modules.update(modules(adapt, state))
    sys.path.insert(0, str(package))
    Node.made.clear()
    Node.overrides = {}
    try:
        yield
    finally:
        sys.path.remove(str(package))
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in {"rclpy", "fgsbir_ros", *(made.split(".")[0] for made in modules(adapt, state))}:
                del sys.modules[name]
