"""examples/ros2: the node and what is under it, against stand-ins for ROS 2, which cannot be installed here."""

from __future__ import annotations

import importlib
import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.confidence import Confidence
from fgsbir_edge.engine import Engine
from fgsbir_edge.errors import OutputError
from tests.examples import fake_ros
from tests.examples.programs import EXAMPLES

PACKAGE = EXAMPLES / "ros2" / "fgsbir_ros"
ADAPT = fake_ros.service(EXAMPLES / "ros2" / "fgsbir_interfaces" / "srv" / "Adapt.srv")
TOPICS = {name: f"~/{name}" for name in ("classification", "overlay", "vision_info")}


@pytest.fixture
def ros() -> Iterator[SimpleNamespace]:
    """What ROS would keep: a log, and what spinning does."""
    state = SimpleNamespace(log=[], spin=lambda node: None)
    with fake_ros.installed(PACKAGE, ADAPT, state):
        yield state


@pytest.fixture
def place(bundle_path: Path, data_path: Path, tmp_path: Path) -> Path:
    """A gallery file of the toy photos."""
    path = tmp_path / "photos.fgsbir"
    Engine.open(photos=data_path / "photos", gallery=path, bundle=bundle_path).close()
    return path


class Robot:
    """A node over the toy gallery, as other nodes see it."""

    def __init__(self, place: Path, bundle_path: Path, **parameters: Any) -> None:
        fake_ros.Node.overrides = {
            "gallery": str(place),
            "bundle": str(bundle_path),
            "backend": "onnx-cpu",
            "threads": 1,
            **parameters,
        }
        self.node = importlib.import_module("fgsbir_ros.node").FindNode()

    def sent(self, name: str) -> list[Any]:
        """All that was published on a topic."""
        return self.node.publishers[TOPICS.get(name, name)].sent

    def send(self, topic: str, item: Any) -> Any:
        """Publish to the node; the answer."""
        kind, callback = self.node.subscriptions[topic]
        assert isinstance(item, kind)
        count = len(self.sent("classification"))
        callback(item)
        assert len(self.sent("classification")) == count + 1, "every sketch has an answer"
        answer = self.sent("classification")[-1]
        assert answer.header is item.header
        return answer

    def call(self, name: str, **request: Any) -> Any:
        """Call a service."""
        kind, callback = self.node.services[name]
        response = kind.Response()
        assert callback(kind.Request(**request), response) is response
        return response

    def set(self, **parameters: Any) -> Any:
        """Set parameters."""
        return self.node.on_set([SimpleNamespace(name=name, value=value) for name, value in parameters.items()])

    @property
    def version(self) -> int:
        """What the last VisionInfo says."""
        return int(self.sent("vision_info")[-1].database_version)


@pytest.fixture
def robot(ros: SimpleNamespace, place: Path, bundle_path: Path) -> Iterator[Robot]:
    """The node, with Ann at the table."""
    made = Robot(place, bundle_path, person="ann", k=3)
    yield made
    made.node.finder.close()


def header(second: int = 1) -> Any:
    """A header stamped with a second."""
    return fake_ros.Header(stamp=fake_ros.Time(sec=second, nanosec=5), frame_id="paper")


def image(pixels: np.ndarray, encoding: str = "mono8", padding: int = 0) -> Any:
    """A sensor_msgs/Image whose rows have some bytes too many."""
    rows = pixels.reshape(len(pixels), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    made = fake_ros.Image(header=header(), encoding=encoding, step=padded.shape[1])
    made.height, made.width = pixels.shape[:2]
    made.data = array("B", padded.tobytes())
    return made


def stroke(points: list[tuple[float, float]], second: int = 1) -> Any:
    """A nav_msgs/Path."""
    made = fake_ros.Path_(header=header(second))
    for x, y in points:
        made.poses.append(fake_ros.PoseStamped(pose=fake_ros.Pose(position=fake_ros.Point(x=x, y=y))))
    return made


def drawing(data_path: Path, number: int, person: str = "ann") -> np.ndarray:
    """One of the toy drawings, uint8 [H, W]."""
    return np.array(Image.open(data_path / "sketches" / person / f"{number}.png"))


SQUARE = [(10.0, 10.0), (90.0, 10.0), (90.0, 90.0), (10.0, 90.0)]
CROSS = [(10.0, 10.0), (90.0, 90.0)]


def test_a_drawing_is_answered_with_the_photos_that_a_search_finds(
    robot: Robot, data_path: Path, place: Path, bundle: Bundle
) -> None:
    answer = robot.send("~/sketch", image(drawing(data_path, 4)))
    with Engine.open(gallery=place, bundle=bundle, threads=1) as engine:
        hits = engine.search(drawing(data_path, 4), 3)
    assert [item.class_id for item in answer.results] == [hit.name for hit in hits]
    assert [item.score for item in answer.results] == pytest.approx([1 - hit.distance**2 / 4 for hit in hits])
    assert all(0 <= item.score <= 1 for item in answer.results)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["8UC1", "rgb8", "bgr8", "8UC3", "rgba8", "bgra8", "8UC4"])
def test_encodings_of_one_colour_drawing_give_one_array(ros: SimpleNamespace, encoding: str, padding: int) -> None:
    messages = importlib.import_module("fgsbir_ros.messages")
    colours = np.random.default_rng(2).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    if encoding == "8UC1":
        assert np.array_equal(messages.image_of(image(colours[..., 0], encoding, padding), 1000), colours[..., 0])
        return
    channels = 4 if encoding in ("rgba8", "bgra8", "8UC4") else 3
    blue_first = encoding[0] in "b8"
    sent = colours[..., [2, 1, 0, 3][:channels]] if blue_first else colours[..., :channels]
    got = messages.image_of(image(np.ascontiguousarray(sent), encoding, padding), 1000)
    assert np.array_equal(got, colours[..., :channels])
    assert got.flags.writeable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "16UC1"}, "encoding '16UC1' is not taken"),
        ({"encoding": "rgb8"}, "too few"),
        ({"height": 101}, "too few"),
        ({"step": 99}, "too few"),
        ({"width": 0}, "expected 1 to"),
        ({"height": 4_000_000_000}, "see parameter max_pixels"),
        ({"data": array("B", bytes(10_000))}, ""),  # black: nothing is drawn on it
    ],
)
def test_images_that_cannot_be_read_have_an_empty_answer_and_a_line(
    robot: Robot, data_path: Path, change: dict[str, Any], message: str
) -> None:
    sent = image(drawing(data_path, 0))
    for name, value in change.items():
        setattr(sent, name, value)
    assert robot.send("~/sketch", sent).results == []
    assert message in robot.node.log[-1]
    robot.node.timers[0]()
    status = robot.sent("/diagnostics")[-1].status[0]
    assert status.level == b"\x01"
    assert status.message == robot.node.log[-1]
    assert robot.send("~/sketch", image(drawing(data_path, 0))).results
    robot.node.timers[0]()
    assert robot.sent("/diagnostics")[-1].status[0].level == b"\x00"


@pytest.fixture
def sure_path(bundle: Bundle, tmp_path: Path) -> Path:
    """The toy bundle with constants for probabilities."""
    constants = Confidence((20.0, 0.0, 0.0), (0.0, 0.0), (15.0, 0.0, 0.0, 0.0, 0.0), none_below=0.5, sure_from=0.9)
    replace(bundle, confidence=constants).save(tmp_path / "sure")
    return tmp_path / "sure"


def test_scores_are_probabilities_where_the_model_knows_them(
    ros: SimpleNamespace, sure_path: Path, data_path: Path, place: Path, bundle: Bundle
) -> None:
    robot = Robot(place, sure_path, k=12)
    answer = robot.send("~/sketch", image(drawing(data_path, 4)))
    robot.node.finder.close()
    with Engine.open(gallery=place, bundle=sure_path, threads=1) as engine:
        hits = engine.search(drawing(data_path, 4), 12)
    assert [item.score for item in answer.results] == [hit.confidence for hit in hits]
    assert 0 < sum(item.score for item in answer.results) < 1
    assert robot.sent("vision_info")[0].method.endswith("score: probability")
    cut = answer.results[2].score
    robot = Robot(place, sure_path, k=12, min_score=cut)
    assert len(robot.send("~/sketch", image(drawing(data_path, 4))).results) == 3
    robot.node.finder.close()
    with pytest.raises(ValueError, match="min_score"):
        Robot(place, sure_path, min_score=1.5)


def test_strokes_of_one_stamp_are_one_sketch(robot: Robot, place: Path, bundle: Bundle, tmp_path: Path) -> None:
    robot.send("~/stroke", stroke(SQUARE))
    both = robot.send("~/stroke", stroke(CROSS))
    other = robot.send("~/stroke", stroke(CROSS, second=2))
    (tmp_path / "both.ndjson").write_text(json.dumps({"drawing": [np.transpose(points).tolist() for points in (SQUARE, CROSS)]}))
    (tmp_path / "cross.ndjson").write_text(json.dumps({"drawing": [np.transpose(CROSS).tolist()]}))
    with Engine.open(gallery=place, bundle=bundle, threads=1) as engine:
        for answer, file in ((both, "both.ndjson"), (other, "cross.ndjson")):
            hits = engine.search(tmp_path / file, 3)
            assert [item.score for item in answer.results] == pytest.approx([1 - hit.distance**2 / 4 for hit in hits])
    assert [item.score for item in both.results] != pytest.approx([item.score for item in other.results])


def test_dots_empty_strokes_and_bad_ones(robot: Robot) -> None:
    assert robot.send("~/stroke", stroke([(5.0, 5.0)])).results == []  # a dot is no sketch yet
    assert robot.node.log == []
    begun = robot.send("~/stroke", stroke(SQUARE))
    assert begun.results
    assert robot.send("~/stroke", stroke([(math.nan, 1.0)])).results == []
    assert "is (nan, 1.0)" in robot.node.log[-1]
    assert robot.call("~/adapt", photo="even/star00.png").success  # the sketch before the bad stroke is still there
    assert robot.send("~/stroke", stroke([])).results == []
    assert "draw first" in robot.call("~/adapt", photo="even/star00.png").message


def test_adapting_undoing_and_forgetting(robot: Robot, data_path: Path, place: Path, bundle: Bundle) -> None:
    versions = [robot.version]
    photos = ["even/star00.png", "odd/star01.png", "even/star02.png"]
    for number, photo in enumerate(photos):
        robot.send("~/sketch", image(drawing(data_path, number)))
        taught = robot.call("~/adapt", photo=photo)
        assert taught.success, taught.message
        assert taught.pairs == number + 1
        versions.append(robot.version)
    answer = robot.send("~/sketch", image(drawing(data_path, 7)))
    with Engine.open(gallery=place, bundle=bundle, threads=1) as engine:
        sketch = drawing(data_path, 7)
        hits = engine.search(sketch, 3, person="ann")
        assert [item.score for item in answer.results] == pytest.approx([1 - hit.distance**2 / 4 for hit in hits])
        features, base = engine.encode_sketches([drawing(data_path, 2)]), engine.head
        ranks = [
            engine.gallery.ranks(features, photos[2:], head=base, adapter=adapter)[0]
            for adapter in (
                engine.adapt([(drawing(data_path, n), photos[n]) for n in (0, 1)]).adapter,
                engine.learner.adapter("ann"),
            )
        ]
        assert [taught.rank_before, taught.rank_after] == ranks
    assert robot.call("~/undo").success
    versions.append(robot.version)
    assert robot.node.finder.values()["pairs"] == "2"
    assert robot.call("~/reset").success
    versions.append(robot.version)
    assert versions == list(range(1, 7))
    assert robot.node.finder.values()["pairs"] == "0"
    assert not robot.call("~/undo").success  # nothing of Ann is left
    assert not robot.call("~/reset").success
    assert robot.version == versions[-1]


def test_what_cannot_be_learned_says_why_and_changes_nothing(robot: Robot, data_path: Path) -> None:
    assert "draw first" in robot.call("~/adapt", photo="even/star00.png").message
    robot.send("~/sketch", image(drawing(data_path, 0)))
    wrong = robot.call("~/adapt", photo="even/star0.png")
    assert not wrong.success
    assert "did you mean" in wrong.message
    assert robot.set(person="").successful
    assert "parameter person is empty" in robot.call("~/adapt", photo="even/star00.png").message
    assert robot.set(person="x" * 500).successful
    assert not robot.call("~/adapt", photo="even/star00.png").success
    assert robot.node.finder.engine.gallery.people.names() == []


def test_parameters_that_change_while_it_runs(robot: Robot, data_path: Path) -> None:
    before = robot.version
    assert robot.set(k=2).successful
    assert robot.version == before
    assert len(robot.send("~/sketch", image(drawing(data_path, 0))).results) == 2
    assert robot.set(person="bob").successful
    assert robot.version == before + 1
    assert robot.set(person="bob").successful
    assert robot.version == before + 1
    refused = robot.set(person="eve", k=0)
    assert not refused.successful
    assert "expected at least 1" in refused.reason
    assert not robot.set(gallery="other").successful
    assert robot.node.finder.person == "bob"


def test_vision_info_is_latched_and_told_at_the_start(robot: Robot, place: Path, bundle: Bundle) -> None:
    publisher = robot.node.publishers["~/vision_info"]
    assert (publisher.qos.durability, publisher.qos.reliability, publisher.qos.depth) == ("TRANSIENT_LOCAL", "RELIABLE", 1)
    (info,) = publisher.sent
    assert info.database_version == 1
    assert info.database_location == str(place)
    assert bundle.name in info.method
    assert info.method.endswith("score: (1 + cosine) / 2")


def test_the_overlay_is_drawn_for_those_who_look(robot: Robot, data_path: Path) -> None:
    robot.send("~/sketch", image(drawing(data_path, 3)))
    assert robot.sent("overlay") == []
    robot.node.publishers["~/overlay"].listeners = 1
    robot.send("~/sketch", image(drawing(data_path, 3)))
    (picture,) = robot.sent("overlay")
    assert (picture.height, picture.width, picture.encoding, picture.step) == (128, 4 * 128, "rgb8", 3 * 4 * 128)
    pixels = np.frombuffer(picture.data, np.uint8).reshape(128, 4, 128, 3)
    assert (pixels[:, 0] == 0).any()  # ink of the sketch
    assert (pixels[:, 1] == (0, 150, 60)).all(axis=-1).any()  # the same lines over the photo found
    assert not (pixels[:, 2] == (0, 150, 60)).all(axis=-1).any()
    robot.send("~/stroke", stroke([]))
    blank = robot.sent("overlay")[-1]
    assert set(blank.data) == {255}
    assert blank.width == 128


def test_a_gallery_that_cannot_be_read_does_not_end_the_node(
    robot: Robot, data_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **options: object) -> None:
        raise OutputError("the disk is gone; put it back")

    robot.node.publishers["~/overlay"].listeners = 1
    monkeypatch.setattr(robot.node.finder.engine.gallery, "thumbnail", broken)
    assert robot.send("~/sketch", image(drawing(data_path, 1))).results
    assert (robot.sent("overlay"), robot.node.log) == ([], ["the disk is gone; put it back"])
    monkeypatch.setattr(robot.node.finder, "values", broken)
    robot.node.timers[0]()
    (status,) = robot.sent("/diagnostics")[-1].status
    assert (status.level, status.message) == (b"\x01", "the disk is gone; put it back")
    monkeypatch.setattr(robot.node.finder.engine, "search", broken)
    assert robot.send("~/sketch", image(drawing(data_path, 1))).results == []


def test_diagnostics_say_what_is_going_on(robot: Robot, data_path: Path) -> None:
    robot.send("~/sketch", image(drawing(data_path, 1)))
    robot.call("~/adapt", photo="odd/star01.png")
    robot.node.timers[0]()
    (status,) = robot.sent("/diagnostics")[-1].status
    values = {item.key: item.value for item in status.values}
    assert {name: values[name] for name in ("photos", "person", "pairs", "database_version", "searches")} == {
        **{"photos": "12", "person": "ann", "pairs": "1", "database_version": "2", "searches": "1"},
    }
    assert (status.name, status.message) == ("fgsbir", "ready")


def test_topics_are_parameters(ros: SimpleNamespace, place: Path, bundle_path: Path) -> None:
    names = ("image", "stroke", "classification", "overlay", "vision_info", "diagnostics")
    robot = Robot(place, bundle_path, **{f"topics.{name}": f"/my/{name}" for name in names})
    robot.node.finder.close()
    assert {*robot.node.subscriptions, *robot.node.publishers} == {f"/my/{name}" for name in names}


def test_main_runs_until_stopped(ros: SimpleNamespace, place: Path, bundle_path: Path) -> None:
    main = importlib.import_module("fgsbir_ros.node").main
    fake_ros.Node.overrides = {"gallery": str(place), "bundle": str(bundle_path), "backend": "onnx-cpu"}

    def stopped(node: Any) -> None:
        raise KeyboardInterrupt

    ros.spin = stopped
    main()
    assert fake_ros.Node.made[-1].destroyed
    assert ros.log == ["shut down"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({}, "parameter gallery is empty"), ({"gallery": "/no/such"}, "/no/such"), ({"gallery": "x", "k": 0}, "k and threads")],
)
def test_main_ends_with_one_line_where_it_cannot_start(ros: SimpleNamespace, parameters: dict[str, Any], message: str) -> None:
    main = importlib.import_module("fgsbir_ros.node").main
    fake_ros.Node.overrides = {"backend": "onnx-cpu", **parameters}
    with pytest.raises(SystemExit, match="1"):
        main()
    assert message in ros.log[0]
    assert ros.log[-1] == "shut down"


def test_the_stand_ins_refuse_what_ros_refuses() -> None:
    for field, value in (("class_id", 3), ("score", 1), ("id", "x")):
        with pytest.raises(AssertionError, match=field):
            setattr(fake_ros.ObjectHypothesis(), field, value)
    for number in (-1, 2**32, 1.0):
        with pytest.raises(AssertionError, match="height"):
            fake_ros.Image(height=number)
    with pytest.raises(AssertionError, match="level"):
        fake_ros.DiagnosticStatus(level=b"ab")
    assert vars(fake_ros.Path_()) != vars(fake_ros.Path_(poses=[1]))
