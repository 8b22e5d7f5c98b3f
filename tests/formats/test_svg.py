"""SVG: what is read without svgelements, what with it, what is refused."""

from __future__ import annotations

import sys
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from hypothesis import given

from fgsbir_edge.errors import EmptySketchError, NonFiniteError, SketchFormatError, SketchTooLargeError, UnreadableImageError
from fgsbir_edge.formats.svg import FLATNESS, parse_svg, read_svg, write_svg
from fgsbir_edge.sketch import Sketch
from tests.formats.samples import HOUSE, any_coordinates, same, sketches, steady


def svg(body: str, attributes: str = 'viewBox="10 10 100 100" width="500px"') -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{body}</svg>'.encode()


def strokes(body: str) -> list[list[list[float]]]:
    return [stroke.tolist() for stroke in parse_svg(svg(body)).strokes]


@pytest.fixture
def no_svgelements(monkeypatch):
    monkeypatch.setitem(sys.modules, "svgelements", None)


@pytest.mark.usefixtures("no_svgelements")
class TestPlain:
    @steady
    @given(sketches(any_coordinates))
    def test_round_trip_is_exact(self, tmp_path_factory, sketch):
        path = tmp_path_factory.mktemp("svg") / "s.svg"
        write_svg(path, sketch)
        assert same(read_svg(path), sketch)

    def test_written_view_is_the_canvas_or_the_sketch(self, tmp_path):
        path = tmp_path / "s.svg"
        write_svg(path, HOUSE)
        assert fromstring(path.read_text()).get("viewBox") == "0 0 256 256"
        write_svg(path, Sketch.from_strokes([[(-100, 0), (300, 40)]]), stroke_width=3)
        x, y, width, height = map(float, fromstring(path.read_text()).get("viewBox").split())
        assert x < -101
        assert y < -1
        assert x + width > 301
        assert y + height > 41

    @pytest.mark.parametrize(
        ("element", "expected"),
        [
            ('<polyline points="0,0 1,2,3 4"/>', [[[0, 0], [1, 2], [3, 4]]]),
            ('<polyline points="5,6"/><line x2="1"/>', [[[5, 6]], [[0, 0], [1, 0]]]),
            ('<polyline points=""/><line x1="1" y1="2" x2="-3e1" y2=".5"/>', [[[1, 2], [-30, 0.5]]]),
            ('<polygon points="0 0 4 0 4 3"/>', [[[0, 0], [4, 0], [4, 3], [0, 0]]]),
            ('<path d="M0,0L10-5.5.5 3"/>', [[[0, 0], [10, -5.5], [0.5, 3]]]),
            ('<path d="M 1 2 3 4 5 6"/>', [[[1, 2], [3, 4], [5, 6]]]),
            ('<path d="m1 2 1 1 1 1"/>', [[[1, 2], [2, 3], [3, 4]]]),
            ('<path d="M1 1h2 3v4H0V0l1e1-1"/>', [[[1, 1], [3, 1], [6, 1], [6, 5], [0, 5], [0, 0], [10, -1]]]),
            ('<path d="M0 0L1 1M5 5L6 6m1 1l1 1"/>', [[[0, 0], [1, 1]], [[5, 5], [6, 6]], [[7, 7], [8, 8]]]),
            ('<path d="M1 1L2 1L2 2z"/>', [[[1, 1], [2, 1], [2, 2], [1, 1]]]),
            ('<path d="M1 1L2 1zl0 3z z"/>', [[[1, 1], [2, 1], [1, 1]], [[1, 1], [1, 4], [1, 1]]]),
            ('<path d="M1 1L2 1zm3 3l1 0"/>', [[[1, 1], [2, 1], [1, 1]], [[4, 4], [5, 4]]]),
            ('<path d="M9 9M0 0L1 1M8 8"/>', [[[0, 0], [1, 1]]]),
            ('<path d=""/><path/><g><g><line x2="1"/></g></g>', [[[0, 0], [1, 0]]]),
        ],
    )
    def test_elements(self, element, expected):
        assert strokes(element) == expected

    @pytest.mark.parametrize(
        "passed_over",
        [
            '<g display="none"><circle r="5"/></g>',
            '<path style="stroke:red; display : none" d="M0 0C1 1 2 2 3 3"/>',
            '<line visibility="hidden" x2="9"/>',
            "<defs><circle r='3'/></defs>",
            "<metadata><thing>text</thing></metadata>",
            "<text>hello</text><title>t</title><image href='x.png'/>",
            "<clipPath><circle r='3'/></clipPath>",
            '<rect width="100%" height="100%" fill="white"/>',
            '<g stroke="none"><rect width="9" height="9"/></g>',
            '<rect stroke="black" style="stroke:none" width="9" height="9"/>',
            '<x:thing xmlns:x="urn:other"><circle r="5"/><line x2="5"/></x:thing>',
            "<style>line {stroke: red}</style>",
            "<!-- note --><?target data?>",
        ],
    )
    def test_not_drawn(self, passed_over):
        assert strokes(passed_over + '<line x2="1"/>' + passed_over) == [[[0, 0], [1, 0]]]

    def test_without_namespace_and_with_a_document_type(self):
        text = b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://example.org/svg11.dtd"><svg><line x2="3"/></svg>'
        assert parse_svg(text).num_points == 2

    @pytest.mark.parametrize(
        ("element", "named"),
        [
            ('<circle r="5"/>', "<circle>"),
            ('<path d="M0 0C1 1 2 2 3 3"/>', "a path with 'C'"),
            ('<g transform="scale(2)"><line x2="1"/></g>', "a transform"),
            ('<g stroke="red"><rect width="9" height="9"/></g>', "<rect>"),
            ('<rect class="a" width="9" height="9"/>', "<rect>"),
            ('<line x2="5mm"/>', "a length with a unit"),
            ('<svg><line x2="5"/></svg>', "a nested <svg>"),
        ],
    )
    def test_what_needs_the_extra_says_so(self, element, named):
        with pytest.raises(SketchFormatError, match=r"pip install 'fgsbir-edge\[svg\]'") as caught:
            parse_svg(svg(element), "drawing.svg")
        assert str(caught.value).startswith(f"drawing.svg: {named} needs svgelements")


class TestShapes:
    def test_circle_under_transforms(self):
        sketch = parse_svg(svg('<g transform="translate(3 4) scale(2)"><circle cx="50" cy="50" r="40" stroke="red"/></g>'))
        radius = np.hypot(*(sketch.points - [103, 104]).T)
        assert np.abs(radius - 80).max() < 1e-3
        assert sketch.bounds == pytest.approx((23, 24, 183, 184))

    @pytest.mark.parametrize(
        "data",
        ["M0 0C0 100 100 100 100 0", "M0 0Q50 100 100 0", "M0 0A50 30 20 1 1 100 20", "M0 0c0 10 5 20 10 0s10 90 90 0t5 5"],
    )
    def test_curves_keep_to_the_tolerance(self, data):
        import svgelements

        sketch = parse_svg(svg(f'<path stroke="black" d="{data}"/>'))
        path = svgelements.Path(data)
        exact = np.array([(point.x, point.y) for segment in path for point in map(segment.point, np.linspace(0, 1, 200))])
        extent = np.ptp(exact, axis=0).max()
        start, chord = sketch.points[:-1], np.diff(sketch.points, axis=0)
        along = ((exact[:, None] - start) * chord).sum(axis=2) / (chord**2).sum(axis=1)
        nearest = start + np.clip(along, 0, 1)[..., None] * chord
        distance = np.hypot(*(exact[:, None] - nearest).transpose(2, 0, 1)).min(axis=1)
        assert distance.max() <= 2 * FLATNESS * extent
        assert sketch.num_points < 250

    def test_lines_beside_curves_stay_exact(self):
        body = '<polyline points="1,2 3,4"/><path d="M0 0L5 5M7 7L8 9Z"/><ellipse rx="2" ry="3" stroke="red"/>'
        assert strokes(body)[:3] == [[[1, 2], [3, 4]], [[0, 0], [5, 5]], [[7, 7], [8, 9], [7, 7]]]

    def test_stroked_rectangle_is_drawn_and_a_background_is_not(self):
        body = '<rect width="90" height="90" fill="white"/><rect x="1" y="2" width="3" height="4" stroke="red"/>'
        assert strokes(body) == [[[1, 2], [4, 2], [4, 6], [1, 6], [1, 2]]]

    def test_style_sheets_count(self):
        body = "<style>.pen {stroke: red} .off {display: none}</style>"
        body += '<rect class="pen" width="3" height="4"/><circle class="off" r="5"/>'
        assert len(strokes(body)) == 1

    def test_bad_values(self):
        with pytest.raises(SketchFormatError, match="svgelements does not read"):
            parse_svg(svg('<path d="M0 0C1 1 x"/>'))
        with pytest.raises(NonFiniteError):
            parse_svg(svg('<path d="M0 0C1 1 1e999 1 2 2"/>'))


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "not well-formed"),
            (b"\x89PNG\r\n", "not well-formed"),
            (svg("<g>"), "not well-formed"),
            (svg("<line x2='1'/>")[:-4], "not well-formed"),
            (b"<html><body/></html>", "XML of <html>"),
            (b'<svg xmlns="urn:other"><line x2="1"/></svg>', "XML of <svg>"),
            (svg('<path d="L1 1"/>'), "expected a move"),
            (svg('<path d="1 1 M 2 2"/>'), "expected a move"),
            (svg('<path d="M0 0 L1"/>'), "wrong number"),
            (svg('<path d="M0 0 L"/>'), "wrong number"),
            (svg('<path d="M0 0 z5"/>'), "wrong number"),
            (svg('<path d="M0 0 L 1 ; 1"/>'), "';' in its data"),
            (svg('<polyline points="1 2 3"/>'), "3 coordinates"),
            (svg('<polyline points="1px 2px"/>'), "'pxpx|'px px"),
            (svg('<g id="a"/><use href="#a"/>'), "<use> is not read"),
        ],
    )
    def test_not_a_drawing(self, data, message):
        with pytest.raises(SketchFormatError, match=message) as caught:
            parse_svg(data, "x.svg")
        assert str(caught.value).startswith("x.svg: ")
        assert "\n" not in str(caught.value)

    def test_entities(self):
        bomb = '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
        with pytest.raises(SketchFormatError, match="entity, which is refused"):
            parse_svg(bomb.encode() + svg("<text>&b;</text>"))
        with pytest.raises(SketchFormatError, match="entity, which is refused"):
            parse_svg('<!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg>&f;</svg>'.encode("utf-16"))

    def test_sizes(self, tmp_path):
        with pytest.raises(SketchTooLargeError, match="levels"):
            parse_svg(svg("<g>" * 200 + "</g>" * 200))
        with pytest.raises(SketchTooLargeError, match="elements"):
            parse_svg(svg("<g/>" * 100_001))
        (tmp_path / "s.svg").write_bytes(b" " * (16 * 2**20 + 1))
        with pytest.raises(SketchTooLargeError, match="bytes"):
            read_svg(tmp_path / "s.svg")
        many = svg('<polyline points="' + "1 2 " * 100_001 + '"/>')
        with pytest.raises(SketchTooLargeError, match="sketch has 100001 points"):
            parse_svg(many)
        assert parse_svg(many, max_points=None).num_points == 100_001

    def test_nothing_drawn(self):
        with pytest.raises(EmptySketchError, match="draw a line"):
            parse_svg(svg("<text>hello</text>"))
        assert parse_svg(svg('<line x2="1"/>', 'style="display:none"')).num_points == 2  # hiding the whole is a viewer's matter

    def test_missing(self, tmp_path):
        with pytest.raises(UnreadableImageError):
            read_svg(tmp_path / "none.svg")
