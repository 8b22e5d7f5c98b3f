"""SVG drawings. Straight lines are read here; curves, other shapes and transforms through svgelements (extra ``svg``).

Every drawn outline becomes a stroke, filled shapes included, since some pens are saved as outlines. Passed over are text,
images, markers, clip paths, what ``display`` or ``visibility`` hides, and rectangles without a stroke, which are backgrounds;
``<use>`` is refused. Coordinates are those inside the outermost ``viewBox``: its scale and offset are ignored, as Sketch.centred
undoes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import NonFiniteError, SketchFormatError, SketchTooLargeError
from fgsbir_edge.files import write_atomic
from fgsbir_edge.formats._files import located, read_bytes
from fgsbir_edge.reading import AnyPath
from fgsbir_edge.sketch import CANVAS, MAX_POINTS, Sketch

MAX_SVG_BYTES = 16 * 2**20
MAX_ELEMENTS = 100_000
MAX_DEPTH = 100
FLATNESS = 1e-3  # of the drawing's longer side: farthest that a flattened curve's lines stray from it

_SVG = "http://www.w3.org/2000/svg"
_GROUPS = {"svg", "g", "a"}
_NOT_DRAWN = {"clipPath", "mask", "marker", "pattern", "symbol", "metadata", "title", "desc", "text", "image", "script"}
_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b")
_STROKE = re.compile(r"(?:^|;)\s*stroke\s*:\s*([^;]+)")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PATH_TOKEN = re.compile(rf"[MLHVZmlhvz]|{_NUMBER}")
_CURVE = re.compile(r"[CSQTAcsqta]")
_ARITY = {"M": 2, "L": 2, "H": 1, "V": 1, "Z": 0}

Point = tuple[float, float]


class _NotPlainError(Exception):
    """An element that needs svgelements; the message names it."""


def read_svg(path: AnyPath, max_points: int | None = MAX_POINTS) -> Sketch:
    """Read the strokes of an SVG file.

    Polylines, polygons, lines and paths of straight segments need nothing else. Anything more goes through svgelements; curves
    become lines that stray at most a thousandth of the drawing's longer side from them.

    Raises:
        SketchFormatError: not SVG, declares entities, uses ``<use>``, or needs svgelements where that is not installed.
        SketchTooLargeError: more than 16 MiB, 100,000 elements or 100 levels.
        UnreadableImageError: the file is missing or cannot be opened.
        What Sketch raises.
    """
    return parse_svg(read_bytes(path, MAX_SVG_BYTES), os.fspath(path), max_points)


def parse_svg(data: bytes, name: str = "SVG", max_points: int | None = MAX_POINTS) -> Sketch:
    """Read the strokes of an SVG document; ``name`` is for messages. Raises as read_svg does."""
    with located(name):
        root = _Document().parse(data)
        try:
            return Sketch.from_strokes(list(_plain_strokes(root, stroked=False)), max_points=max_points)
        except _NotPlainError as needed:
            return Sketch.from_strokes(_strokes_by_svgelements(root, str(needed)), max_points=max_points)


def write_svg(path: AnyPath, sketch: Sketch, stroke_width: float = 2.0) -> None:
    """Write a sketch as polylines, black, round-capped; read_svg restores it exactly. Raises OutputError.

    The view is the 256-unit canvas, or the sketch's own box where it leaves the canvas. Strokes of one point are kept, though
    viewers show nothing there.
    """
    x0, y0, x1, y1 = sketch.bounds
    if min(x0, y0) < 0 or max(x1, y1) > CANVAS:
        margin = max(x1 - x0, y1 - y0) / 20 + stroke_width
        view = (x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin)
    else:
        view = (0.0, 0.0, CANVAS, CANVAS)
    lines = [
        f'<svg xmlns="{_SVG}" viewBox="{" ".join(f"{value:g}" for value in view)}">',
        f'<g fill="none" stroke="black" stroke-width="{stroke_width:g}" stroke-linecap="round" stroke-linejoin="round">',
        *(f'<polyline points="{" ".join(f"{x!r},{y!r}" for x, y in stroke.tolist())}"/>' for stroke in sketch.strokes),
        "</g>",
        "</svg>",
    ]
    write_atomic(path, "\n".join(lines).encode() + b"\n")


class _Document:
    """Builds the tree of an SVG from what is drawn: hidden, foreign and never-drawn elements are left out, names are local."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.depth = 0
        self.elements = 0
        self.skipped_at = 0  # depth of the element whose content is being left out; 0: none

    def parse(self, data: bytes) -> Element:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse_entity
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise SketchFormatError(f"not well-formed XML ({error}): export it again as SVG") from error
        root: Element = self.builder.close()
        return root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        if self.elements > MAX_ELEMENTS or self.depth > MAX_DEPTH:
            raise SketchTooLargeError(f"more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels: simplify the drawing")
        space, _, tag = name.rpartition(" ")
        if self.depth == 1 and (tag != "svg" or space not in {"", _SVG}):
            raise SketchFormatError(f"XML of <{tag}>, expected <svg>: export it as SVG")
        if tag == "use":  # a few lines of nested <use> can stand for more shapes than memory holds
            raise SketchFormatError(
                "<use> is not read: turn clones into shapes of their own (Inkscape: Edit, Clone, Unlink Clone)"
            )
        style = f"{attributes.get('style', '')};display:{attributes.get('display')};visibility:{attributes.get('visibility')}"
        if not self.skipped_at and self.depth > 1 and (space not in {"", _SVG} or tag in _NOT_DRAWN or _HIDDEN.search(style)):
            self.skipped_at = self.depth
        if not self.skipped_at:
            self.builder.start(tag, {key: value for key, value in attributes.items() if " " not in key})

    def _end(self, name: str) -> None:
        if not self.skipped_at:
            self.builder.end(name.rpartition(" ")[2])
        elif self.skipped_at == self.depth:
            self.skipped_at = 0
        self.depth -= 1

    def _text(self, text: str) -> None:
        if not self.skipped_at:
            self.builder.data(text)

    def _refuse_entity(self, *_: object) -> None:
        raise SketchFormatError("declares an XML entity, which is refused: export it as plain SVG")


def _plain_strokes(element: Element, stroked: bool) -> Iterator[list[Point]]:
    """Yield the strokes of an element and its children, or raise _NotPlainError."""
    tag, attributes = element.tag, element.attrib
    if tag in {"defs", "style"}:
        return
    if "transform" in attributes:
        raise _NotPlainError("a transform")
    paint = _STROKE.search(attributes.get("style", ""))
    colour = paint[1].strip() if paint else attributes.get("stroke")
    stroked = stroked if colour is None else colour != "none"
    if tag in _GROUPS:
        for child in element:
            if child.tag == "svg":
                raise _NotPlainError("a nested <svg>")
            yield from _plain_strokes(child, stroked)
    elif tag in {"polyline", "polygon"}:
        numbers = _numbers(attributes.get("points", ""), tag)
        points = list(zip(numbers[::2], numbers[1::2], strict=True)) if len(numbers) % 2 == 0 else None
        if points is None:
            raise SketchFormatError(f"<{tag}> has {len(numbers)} coordinates, expected pairs of x and y")
        yield points + points[:1] if tag == "polygon" else points
    elif tag == "line":
        x1, y1, x2, y2 = (attributes.get(key, "0") for key in ("x1", "y1", "x2", "y2"))
        if not all(re.fullmatch(_NUMBER, value.strip()) for value in (x1, y1, x2, y2)):
            raise _NotPlainError("a length with a unit")
        yield [(float(x1), float(y1)), (float(x2), float(y2))]
    elif tag == "path":
        yield from _path_strokes(attributes.get("d", ""))
    elif tag != "rect" or stroked or "class" in attributes:
        raise _NotPlainError(f"<{tag}>")


def _numbers(text: str, tag: str) -> list[float]:
    if junk := re.sub(_NUMBER, "", text).strip(" ,\t\r\n"):
        raise SketchFormatError(f"<{tag}> has {junk[:20]!r} among its coordinates, expected numbers")
    return [float(number) for number in re.findall(_NUMBER, text)]


def _path_strokes(data: str) -> Iterator[list[Point]]:
    """Yield the strokes of a path of M, L, H, V, Z in either case. A move that nothing follows draws nothing."""
    if not data.strip():
        return
    if curve := _CURVE.search(data):
        raise _NotPlainError(f"a path with {curve[0]!r}")
    if junk := _PATH_TOKEN.sub("", data).strip(" ,\t\r\n"):
        raise SketchFormatError(f"<path> has {junk[:20]!r} in its data, expected commands and numbers")
    if data.strip()[0] not in "Mm":
        raise SketchFormatError(f"<path> starts with {data.strip()[:10]!r}, expected a move")
    commands: list[tuple[str, list[float]]] = []
    for token in _PATH_TOKEN.findall(data):
        if token.isalpha():
            commands.append((token, []))
        else:
            commands[-1][1].append(float(token))
    if not all(map(_complete, commands)):
        raise SketchFormatError("<path> has a command with the wrong number of coordinates")
    yield from (stroke for stroke in _walk(commands) if len(stroke) > 1)


def _complete(command: tuple[str, list[float]]) -> bool:
    arity = _ARITY[command[0].upper()]
    return not command[1] if arity == 0 else bool(command[1]) and len(command[1]) % arity == 0


def _walk(commands: list[tuple[str, list[float]]]) -> Iterator[list[Point]]:
    stroke: list[Point] = []
    x = y = 0.0
    for letter, numbers in commands:
        kind, relative = letter.upper(), letter.islower()
        if kind == "Z":
            if len(stroke) > 1:
                yield [*stroke, stroke[0]]
            x, y = stroke[0]
            stroke = [(x, y)]  # where a line begins that no move precedes
        step = max(1, _ARITY[kind])
        for index in range(0, len(numbers), step):
            values = numbers[index : index + step]
            if kind == "H":
                x = values[0] + x * relative
            elif kind == "V":
                y = values[0] + y * relative
            else:
                x, y = values[0] + x * relative, values[1] + y * relative
            if kind == "M" and index == 0:
                yield stroke
                stroke = []
            stroke.append((x, y))
    yield stroke


def _strokes_by_svgelements(root: Element, needed: str) -> list[NDArray[np.float64]]:
    """Return the strokes of any SVG tree; ``needed`` says what the plain reader could not take."""
    try:
        import svgelements
    except ImportError:
        raise SketchFormatError(
            f"{needed} needs svgelements: pip install 'fgsbir-edge[svg]', or export the drawing as polylines"
        ) from None
    import io
    from xml.etree.ElementTree import tostring

    for key in ("viewBox", "width", "height", "x", "y"):  # so that coordinates stay those of the file
        root.attrib.pop(key, None)
    try:
        document = svgelements.SVG.parse(io.StringIO(tostring(root, encoding="unicode")), on_error="raise")
        paths = [
            svgelements.Path(shape)
            for shape in document.elements()
            if isinstance(shape, svgelements.Shape)
            and not (isinstance(shape, svgelements.Rect) and (shape.stroke is None or shape.stroke.value is None))
        ]
        for path in paths:
            path.approximate_arcs_with_cubics()
        corners = [[(point.x, point.y) for point in segment if point is not None] for path in paths for segment in path]
    except Exception as error:  # the library raises many kinds for malformed values
        raise SketchFormatError("a shape has values that svgelements does not read: export it as plain SVG") from error
    every = np.array([point for points in corners for point in points] or [(0.0, 0.0)])
    if not np.isfinite(every).all():
        raise NonFiniteError("a shape has a coordinate that is not finite: remove or repair it")
    tolerance = FLATNESS * float(np.ptp(every, axis=0).max())
    return [stroke for path in paths for stroke in _flattened(path, svgelements.Move, tolerance)]


def _flattened(path: Any, move: type, tolerance: float) -> Iterator[NDArray[np.float64]]:
    """Yield one array [n, 2] for each subpath. A segment's points, all but the first None, are its Bezier control points."""
    pieces: list[NDArray[np.float64]] = []
    for segment in path:
        points = np.array([(point.x, point.y) for point in segment if point is not None])
        if isinstance(segment, move):
            if len(pieces) > 1:
                yield np.concatenate(pieces)
            pieces = [points[-1:]]
        else:
            pieces.append(_bezier(points, tolerance)[1:])
    if len(pieces) > 1:
        yield np.concatenate(pieces)


def _bezier(control: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Points on a Bezier curve of degree 1 to 3, control points [degree + 1, 2], that straight lines join within ``tolerance``.

    Lines over n equal steps stray at most max|B''| / (8 n^2), and |B''| is at most degree (degree - 1) times the largest second
    difference of the control points.
    """
    degree = len(control) - 1
    if degree < 2:
        return control
    bend = degree * (degree - 1) * float(np.linalg.norm(np.diff(control, n=2, axis=0), axis=1).max())
    steps = max(1, int(np.ceil(np.sqrt(bend / (8 * tolerance))))) if bend > 0 else 1
    t = np.linspace(0, 1, steps + 1)[:, None, None]
    level = np.broadcast_to(control, (steps + 1, *control.shape))
    for _ in range(degree):  # de Casteljau
        level = level[:, :-1] * (1 - t) + level[:, 1:] * t
    return level[:, 0]
