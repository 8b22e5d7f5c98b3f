"""ROS messages to arrays and back. Messages are taken as they come, so that nothing of ROS is imported here."""

from __future__ import annotations

import io
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.gallery import Gallery
from fgsbir_edge.sheet import sketch_picture
from fgsbir_ros.finder import Answer, Info

CHANNELS = {"mono8": 1, "8UC1": 1, "rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "8UC4": 4}
BLUE_FIRST = {"bgr8", "bgra8", "8UC3", "8UC4"}  # OpenCV's order, in which those without a name come
CELL = 128  # pixels a side of each picture in the overlay: that of thumbnails
SHOWN = 4  # photos in the overlay
GREEN = (0, 150, 60)

OK, WARN = b"\x00", b"\x01"  # levels of diagnostic_msgs/DiagnosticStatus, which are bytes


def image_of(message: Any, max_pixels: int) -> NDArray[np.uint8]:
    """sensor_msgs/Image to uint8 [H, W] or [H, W, 3 or 4], red first.

    Raises ValueError: an encoding that has not 8 bits a channel, more than ``max_pixels``, or data that are too short.
    """
    channels = CHANNELS.get(message.encoding)
    if channels is None:
        raise ValueError(f"image encoding {message.encoding!r} is not taken; expected one of {', '.join(CHANNELS)}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not 0 < height * width <= max_pixels:
        raise ValueError(f"image is {width} x {height}, expected 1 to {max_pixels} pixels; see parameter max_pixels")
    if step < width * channels or len(message.data) < (height - 1) * step + width * channels:
        raise ValueError(f"image of {width} x {height} {message.encoding} has step {step} and {len(message.data)} bytes, too few")
    flat = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(flat, (height, width, channels), (step, channels, 1), writeable=False)
    if channels == 1:
        return rows[..., 0].copy()
    order = [2, 1, 0, 3][:channels] if message.encoding in BLUE_FIRST else list(range(channels))
    colours: NDArray[np.uint8] = rows[..., order]  # an index of places copies
    return colours


def stroke_of(message: Any) -> NDArray[np.float64]:
    """nav_msgs/Path to the points of one stroke [n, 2]: x right, y down, z and orientations unused."""
    points = [(pose.pose.position.x, pose.pose.position.y) for pose in message.poses]
    return np.array(points, np.float64).reshape(-1, 2)


def fill_classification(message: Any, hypothesis: Any, header: Any, answer: Answer) -> Any:
    """Fill vision_msgs/Classification; ``hypothesis`` makes a vision_msgs/ObjectHypothesis. The header is the source's own."""
    message.header = header
    for photo, score in answer.hits:
        item = hypothesis()
        item.class_id, item.score = photo, float(score)
        message.results.append(item)
    return message


def fill_info(message: Any, stamp: Any, info: Info) -> Any:
    """Fill vision_msgs/VisionInfo."""
    message.header.stamp = stamp
    message.method, message.database_location, message.database_version = info.method, info.location, info.version
    return message


def fill_image(message: Any, header: Any, pixels: NDArray[np.uint8]) -> Any:
    """Fill sensor_msgs/Image with uint8 [H, W, 3]."""
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian, message.step = "rgb8", 0, 3 * pixels.shape[1]
    message.data = array("B", pixels.tobytes())
    return message


def fill_status(message: Any, key_value: Any, name: str, values: dict[str, str]) -> Any:
    """Fill diagnostic_msgs/DiagnosticStatus from ``Finder.values``; a problem is a warning."""
    message.name, message.hardware_id = name, "fgsbir-edge"
    message.level, message.message = (WARN, values["last problem"]) if values["last problem"] else (OK, "ready")
    for key, value in values.items():
        item = key_value()
        item.key, item.value = key, value
        message.values.append(item)
    return message


def overlay(answer: Answer, gallery: Gallery) -> NDArray[np.uint8]:
    """The sketch, the photo found laid under its lines, and the next photos: uint8 [CELL, n CELL, 3]."""
    from PIL import Image

    if answer.sketch is None:
        return np.full((CELL, CELL, 3), 255, np.uint8)
    lines = np.asarray(Image.fromarray(sketch_picture(answer.sketch)).resize((CELL, CELL)))
    cells = [np.repeat(lines[..., None], 3, axis=-1)]
    for place, (photo, _) in enumerate(answer.hits[:SHOWN]):
        thumbnail = Image.open(io.BytesIO(gallery.thumbnail(photo))).convert("RGB")
        thumbnail.thumbnail((CELL, CELL))
        cell = Image.new("RGB", (CELL, CELL), "white")
        cell.paste(thumbnail, ((CELL - thumbnail.width) // 2, (CELL - thumbnail.height) // 2))
        pixels = np.array(cell)
        if place == 0:
            ink = (255 - lines)[..., None] / 255.0
            pixels = np.rint((1 - ink) * pixels + ink * np.array(GREEN)).astype(np.uint8)
        cells.append(pixels)
    return np.concatenate(cells, axis=1)
