"""Small downloads in the formats of the public ones: pictures, pickles, lists and trees that the loaders' tests read."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fgsbir_edge.formats.qmul import to_pen_rows
from fgsbir_edge.sketch import Sketch


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A thing of some shape and colour on white, another for every seed."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), "white")
    draw = ImageDraw.Draw(image)
    corners = [(int(x), int(y)) for x, y in rng.uniform((15, 10), (145, 110), (7, 2))]
    draw.polygon(corners, fill=tuple(int(v) for v in rng.integers(20, 200, 3)))
    for _ in range(4):
        x, y, r = (int(v) for v in rng.uniform((25, 25, 4), (135, 95, 18)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    return image.resize(size, Image.Resampling.LANCZOS)


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def scribble(seed: int, strokes: int = 3) -> Sketch:
    """Strokes in the frame of the QMUL coordinates."""
    rng = np.random.default_rng(seed)
    walks = [np.cumsum(rng.normal(0, 9, (int(rng.integers(6, 20)), 2)), axis=0) + rng.uniform(0, 120, 2) for _ in range(strokes)]
    return Sketch.from_strokes(walks).centred()


def drawn(sketch: Sketch, size: int = 128, width: int = 2, mode: str = "L") -> Image.Image:
    """A scribble as a picture: black on white, or on nothing in RGBA."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0)) if mode == "RGBA" else Image.new(mode, (size, size), 255)
    draw = ImageDraw.Draw(image)
    for stroke in sketch.strokes:
        draw.line(
            [tuple(point) for point in (stroke * size / 256).tolist()], fill=(0, 0, 0, 255) if mode == "RGBA" else 0, width=width
        )
    return image


def svg(path: Path, strokes: Iterable[np.ndarray], *, curved: bool = False, canvas: tuple[int, int] = (640, 480)) -> Path:
    """Strokes [n, 2] as paths, of cubic curves whose control points lie on the lines if `curved`."""
    lines = [f'<svg width="{canvas[0]}" height="{canvas[1]}" xmlns="http://www.w3.org/2000/svg"><g><title>Layer 1</title>']
    for stroke in strokes:
        points = stroke.tolist()
        text = f"M {points[0][0]},{points[0][1]}"
        for (ax, ay), (bx, by) in pairwise(points):
            thirds = [(ax + (bx - ax) * t / 3, ay + (by - ay) * t / 3) for t in (1, 2)]
            text += f" C {thirds[0][0]},{thirds[0][1]} {thirds[1][0]},{thirds[1][1]} {bx},{by}" if curved else f" L {bx},{by}"
        lines.append(f'<path d="{text}" fill="none" stroke="#000" stroke-width="2"/>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</g></svg>"]))
    return path


def coordinates(path: Path, sketches: Mapping[str, Sketch]) -> Path:
    """A QMUL coordinate pickle, as the authors made theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({key: to_pen_rows(sketch) for key, sketch in sketches.items()}, protocol=2))
    return path


def sketch_rnn(path: Path, splits: Mapping[str, list[np.ndarray]]) -> Path:
    """The .npz of Sketch-RNN: object arrays of int16 stroke-3 rows."""
    arrays = {}
    for name, rows in splits.items():
        arrays[name] = np.empty(len(rows), dtype=object)
        arrays[name][:] = rows
    np.savez_compressed(path, **arrays)
    return path


def python2_array(arrays: list[np.ndarray]) -> bytes:
    """The pickle of an object array as Python 2 wrote it: data as byte strings, names of the old modules. Small arrays only."""
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"

    def dtype(code: bytes, order: bytes, flags: bytes) -> bytes:
        made = b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R"
        return made + b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK" + flags + b"tb"

    items = b""
    for array in arrays:
        data = array.astype("<i2").tobytes()
        items += new + b"(K\x01K" + bytes([len(array)]) + b"K\x03\x86" + dtype(b"i2", b"<", b"\x00")
        items += b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    return (
        b"\x80\x02" + new + b"(K\x01K" + bytes([len(arrays)]) + b"\x85" + dtype(b"O8", b"|", b"?") + b"\x89](" + items + b"etb."
    )


def npz_of(path: Path, members: Mapping[str, bytes], count: int = 1, long: str = "") -> Path:
    """A .npz whose members are object arrays with these pickles; `long` is the L that Python 2 put after a length."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            header = f"{{'descr': '|O', 'fortran_order': False, 'shape': ({count}{long},), }}".encode()
            header += b" " * (-(len(header) + 11) % 64) + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)
    return path
