"""The node: subscriptions, publishers, services and parameters around a ``Finder``. One thread, as the engine wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from fgsbir_interfaces.srv import Adapt
from nav_msgs.msg import Path
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Classification, ObjectHypothesis, VisionInfo

from fgsbir_edge.errors import FgsbirError
from fgsbir_ros import messages
from fgsbir_ros.finder import Answer, Finder, Settings, Taught

DEFAULTS: dict[str, Any] = {
    **{"gallery": "", "bundle": "", "person": "", "k": 5, "backend": "auto", "variant": "fp32", "threads": 0},
    **{"min_score": 0.0, "max_pixels": 1 << 24},
    **{"topics.image": "~/sketch", "topics.stroke": "~/stroke", "topics.classification": "~/classification"},
    **{"topics.overlay": "~/overlay", "topics.vision_info": "~/vision_info", "topics.diagnostics": "/diagnostics"},
}
CHANGEABLE = {"person", "k"}  # while the node runs
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
DRAWN = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)  # a stroke that is lost makes another sketch


class FindNode(Node):
    """Answers every sketch with a Classification whose header is the sketch's own."""

    def __init__(self) -> None:
        """Raises ValueError on parameters out of range, and what Engine.open raises."""
        super().__init__("fgsbir")
        given = {name: self.declare_parameter(name, value).value for name, value in DEFAULTS.items()}
        self._max_pixels = int(given["max_pixels"])
        self.finder = Finder(Settings(**{name: given[name] for name in Settings.__dataclass_fields__}))
        topic = {name.removeprefix("topics."): value for name, value in given.items() if name.startswith("topics.")}
        self._found = self.create_publisher(Classification, topic["classification"], 10)
        self._overlay = self.create_publisher(Image, topic["overlay"], 1)
        self._info = self.create_publisher(VisionInfo, topic["vision_info"], LATCHED)
        self._health = self.create_publisher(DiagnosticArray, topic["diagnostics"], 10)
        self.create_subscription(Image, topic["image"], self.on_image, DRAWN)
        self.create_subscription(Path, topic["stroke"], self.on_stroke, DRAWN)
        self.create_service(Adapt, "~/adapt", self.on_adapt)
        self.create_service(Trigger, "~/undo", lambda request, response: self._answer(response, self.finder.undo()))
        self.create_service(Trigger, "~/reset", lambda request, response: self._answer(response, self.finder.reset()))
        self.add_on_set_parameters_callback(self.on_parameters)
        self.create_timer(1.0, self.on_timer)
        self._tell()

    def on_image(self, message: Any) -> None:
        """A drawing."""
        self._respond(message, lambda: self.finder.see(messages.image_of(message, self._max_pixels)))

    def on_stroke(self, message: Any) -> None:
        """One more stroke of the sketch with this stamp."""
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._respond(message, lambda: self.finder.draw(stamp, messages.stroke_of(message)))

    def on_adapt(self, request: Any, response: Any) -> Any:
        """The person says which photo the last sketch meant."""
        taught = self.finder.adapt(request.photo)
        response.rank_before, response.rank_after = taught.rank_before, taught.rank_after
        response.pairs = taught.pairs
        return self._answer(response, taught)

    def on_parameters(self, parameters: list[Any]) -> Any:
        """Another person or number of hypotheses; the rest holds until the node is started again."""
        for parameter in parameters:
            if parameter.name not in CHANGEABLE:
                reason = f"{parameter.name} is read at the start alone; restart the node"
                return SetParametersResult(successful=False, reason=reason)
            if parameter.name == "k" and parameter.value < 1:
                return SetParametersResult(successful=False, reason=f"k is {parameter.value}, expected at least 1")
        before = self.finder.info.version
        for parameter in parameters:
            if parameter.name == "k":
                self.finder.k = int(parameter.value)
            else:
                self.finder.use_person(parameter.value)
        if self.finder.info.version != before:
            self._tell()
        return SetParametersResult(successful=True)

    def on_timer(self) -> None:
        """Once a second: how things are."""
        report = DiagnosticArray()
        report.header.stamp = self.get_clock().now().to_msg()
        try:
            values = self.finder.values()
        except FgsbirError as error:  # a gallery that cannot be read is no reason to fall silent
            values = {"last problem": str(error)}
        report.status.append(messages.fill_status(DiagnosticStatus(), KeyValue, self.get_name(), values))
        self._health.publish(report)

    def _respond(self, message: Any, find: Callable[[], Answer]) -> None:
        """Every sketch has an answer, so that whoever waits for one with its header is not left waiting."""
        try:
            answer = find()
            self.finder.problem = ""
        except (FgsbirError, ValueError) as error:
            answer = Answer((), None)
            self.finder.problem = str(error)
            self.get_logger().warning(str(error))
        self._found.publish(messages.fill_classification(Classification(), ObjectHypothesis, message.header, answer))
        if self._overlay.get_subscription_count():
            try:
                picture = messages.overlay(answer, self.finder.engine.gallery)
            except FgsbirError as error:  # another program has removed the photo since
                self.get_logger().warning(str(error))
            else:
                self._overlay.publish(messages.fill_image(Image(), message.header, picture))

    def _answer(self, response: Any, taught: Taught) -> Any:
        response.success, response.message = taught.success, taught.message
        if taught.success:
            self._tell()
        return response

    def _tell(self) -> None:
        """Publish VisionInfo; subscribers that come later are given the last one."""
        self._info.publish(messages.fill_info(VisionInfo(), self.get_clock().now().to_msg(), self.finder.info))


def main() -> None:
    """Run until stopped."""
    rclpy.init()
    try:
        node = FindNode()
    except (FgsbirError, ValueError) as error:
        get_logger("fgsbir").fatal(str(error))
        rclpy.try_shutdown()
        raise SystemExit(1) from error
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.finder.close()
        node.destroy_node()
        rclpy.try_shutdown()
