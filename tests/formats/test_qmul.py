"""QMUL pickles, the unpickler that trusts nothing, and strokes.npz."""

from __future__ import annotations

import codecs
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgsbir_edge.errors import (
    EmptySketchError,
    NonFiniteError,
    OutputError,
    ShapeError,
    SketchFormatError,
    SketchTooLargeError,
    UnreadableImageError,
)
from fgsbir_edge.formats.qmul import (
    from_pen_rows,
    read_qmul,
    read_strokes_npz,
    to_pen_rows,
    write_qmul,
    write_strokes_npz,
)
from tests.formats.samples import HOUSE, any_coordinates, same, sketches, steady

ROWS = np.array([[1.5, 2, 0], [3, 4, 1], [5, 6, 0], [7, 8, 0], [9, 10, 1]])


class Run:
    """What a hostile pickle does: call any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def python2_pickle(rows: np.ndarray) -> bytes:
    """The bytes that Python 2 and its NumPy write: protocol 0, byte strings, the old module names."""
    body = repr(rows.tobytes())[2:-1].replace("'", "\\'")
    return (
        "(dp0\nS'/train/a_1'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
        f"(I1\n(I{rows.shape[0]}\nI{rows.shape[1]}\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n"
        f"(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS'{body}'\np15\ntp16\nbs."
    ).encode("latin1")


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a pickle file and returns its path."""

    def write(data: bytes):
        path = tmp_path / "sketches.pkl"
        path.write_bytes(data)
        return path

    return write


class TestRows:
    def test_pen_ends_a_stroke(self):
        sketch = from_pen_rows(ROWS)
        assert sketch.offsets.tolist() == [0, 2, 5]
        assert (to_pen_rows(sketch) == ROWS).all()

    def test_the_last_row_ends_a_stroke_in_any_case(self):
        assert from_pen_rows(ROWS[:4]).offsets.tolist() == [0, 2, 4]

    @pytest.mark.parametrize("rows", [np.zeros((3, 2)), np.zeros(3), np.array([["a", "b", "c"]]), np.zeros((2, 3), object)])
    def test_other_shapes(self, rows):
        with pytest.raises(ShapeError, match="x, y, pen"):
            from_pen_rows(rows)

    @steady
    @given(sketches(any_coordinates))
    def test_round_trip(self, sketch):
        assert same(from_pen_rows(to_pen_rows(sketch)), sketch)


class TestQmul:
    @steady
    @given(st.dictionaries(st.text(max_size=12), sketches(any_coordinates), max_size=4))
    def test_round_trip(self, tmp_path_factory, collection):
        path = tmp_path_factory.mktemp("qmul") / "c.pickle"
        write_qmul(path, collection)
        back = read_qmul(path)
        assert list(back) == list(collection)
        assert all(same(back[key], collection[key]) for key in collection)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<i4", ">i2", "u1"])
    def test_every_protocol_and_dtype(self, file, protocol, dtype):
        rows = np.floor(ROWS).astype(dtype)
        for array in (rows, np.asfortranarray(rows)):
            sketch = read_qmul(file(pickle.dumps({"k": array}, protocol=protocol)))["k"]
            assert (to_pen_rows(sketch) == np.floor(ROWS)).all()

    def test_python_2(self, file):
        assert (to_pen_rows(read_qmul(file(python2_pickle(ROWS)))["/train/a_1"]) == ROWS).all()

    def test_is_what_numpy_reads(self, tmp_path):
        write_qmul(tmp_path / "c.pkl", {"k": HOUSE})
        assert (pickle.loads((tmp_path / "c.pkl").read_bytes())["k"] == to_pen_rows(HOUSE)).all()

    def test_bad_rows_are_named(self, file):
        path = file(pickle.dumps({"good": ROWS, "dot_1": ROWS[:1]}))
        with pytest.raises(EmptySketchError, match=r"sketches\.pkl: dot_1: .*draw a line"):
            read_qmul(path)
        bad = ROWS.copy()
        bad[0, 0] = np.nan
        with pytest.raises(NonFiniteError, match="k: point 0"):
            read_qmul(file(pickle.dumps({"k": bad})))

    def test_too_many_points(self, file):
        data = pickle.dumps({"k": np.ones((100_001, 3))})
        with pytest.raises(SketchTooLargeError, match="k: sketch has 100001 points"):
            read_qmul(file(data))
        assert read_qmul(file(data), max_points=None)["k"].num_points == 100_001

    @pytest.mark.parametrize("content", [[ROWS], 5, "text", {1: ROWS}, None, (ROWS,)])
    def test_not_a_dict_of_rows(self, file, content):
        with pytest.raises(SketchFormatError, match="expected a dict"):
            read_qmul(file(pickle.dumps(content)))

    def test_values_of_another_kind(self, file):
        with pytest.raises(SketchFormatError, match="k: a list where rows"):
            read_qmul(file(pickle.dumps({"k": ROWS.tolist()})))

    def test_missing(self, tmp_path):
        with pytest.raises(UnreadableImageError, match="no such file"):
            read_qmul(tmp_path / "none.pkl")

    def test_unwritable(self, tmp_path):
        with pytest.raises(OutputError):
            write_qmul(tmp_path / "no" / "folder.pkl", {"k": HOUSE})


class TestUnpickler:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (Run(os.system, "echo hacked > hacked"), "system"),
            (Run(eval, "open('hacked', 'w')"), r"builtins__?\.eval|builtin"),
            (Run(open, "hacked", "w"), "open"),
            (Run(np.load, "x.npy"), "load"),
            (Run(getattr, np, "x"), "getattr"),
            (OrderedDict(a=1), "OrderedDict"),
            (Run(codecs.decode, b"x", "rot13"), "decode"),
        ],
    )
    def test_refuses_and_names_everything_else(self, file, tmp_path, monkeypatch, protocol, call, name):
        monkeypatch.chdir(tmp_path)
        if isinstance(call, Run) and np in call.call[1]:
            call = Run(getattr, 5, "real")
        path = file(pickle.dumps({"k": call}, protocol=protocol))
        with pytest.raises(SketchFormatError, match=rf"pickle asks for .*({name}).*, which is refused"):
            read_qmul(path)
        assert not (tmp_path / "hacked").exists()

    def test_the_hostile_pickle_would_have_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        pickle.loads(pickle.dumps(Run(os.system, "echo hacked > hacked")))
        assert (tmp_path / "hacked").exists()

    def test_object_arrays(self, file):
        for array in (np.array([ROWS, None], dtype=object), np.array([(1, 2.0)], dtype="i4,f8"), np.array(["a"])):
            with pytest.raises(SketchFormatError, match="expected numbers"):
                read_qmul(file(pickle.dumps({"k": array})))

    def test_truncated_anywhere(self, file):
        data = pickle.dumps({"k": ROWS}, protocol=2)
        for length in range(len(data)):
            with pytest.raises(SketchFormatError, match="truncated or damaged"):
                read_qmul(file(data[:length]))

    def test_array_state_that_lies_about_its_size(self, file):
        data = pickle.dumps({"k": ROWS}, protocol=2)
        assert data.count(b"K\x05K\x03\x86") == 1
        with pytest.raises(SketchFormatError, match="120 bytes for an array of shape"):
            read_qmul(file(data.replace(b"K\x05K\x03\x86", b"K\x50K\x03\x86")))

    def test_memo_index_beyond_the_file(self, file):
        with pytest.raises(SketchFormatError, match="more objects than it has bytes"):
            read_qmul(file(b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFF0) + b"."))

    def test_state_set_on_a_stand_in(self, file):
        # BUILD with a pair sets attributes of whatever object is on the stack.
        with pytest.raises(SketchFormatError, match="state of a function"):
            read_qmul(file(b"\x80\x02c_codecs\nencode\n(N}X\x01\x00\x00\x00aK\x01stb."))
        with pytest.raises(SketchFormatError, match="truncated or damaged"):
            read_qmul(file(b"\x80\x02cnumpy\nndarray\n(N}X\x01\x00\x00\x00aK\x01stb."))

    def test_array_that_was_never_filled(self, file):
        with pytest.raises(SketchFormatError, match="k: a PlainArray where rows"):
            read_qmul(file(b"\x80\x02}X\x01\x00\x00\x00kcnumpy\nndarray\n)\x81s."))

    def test_messages_stay_on_one_line(self, file):
        with pytest.raises(EmptySketchError) as caught:
            read_qmul(file(pickle.dumps({"two\nlines": ROWS[:1]})))
        assert "\n" not in str(caught.value)

    @steady
    @given(st.binary(max_size=60))
    def test_noise(self, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("noise") / "n.pkl"
        path.write_bytes(b"\x80\x02" + data)
        with pytest.raises(SketchFormatError):
            read_qmul(path)


class TestStrokesNpz:
    @steady
    @given(st.dictionaries(st.text("abc/_1", min_size=1, max_size=12), sketches(st.floats(-1e4, 1e4, width=32)), max_size=4))
    def test_round_trip(self, tmp_path_factory, collection):
        path = tmp_path_factory.mktemp("npz") / "strokes.npz"
        write_strokes_npz(path, collection)
        back = read_strokes_npz(path)
        assert list(back) == list(collection)
        assert all(same(back[key], collection[key]) for key in collection)

    def test_layout(self, tmp_path):
        write_strokes_npz(tmp_path / "s.npz", {"a": HOUSE, "b": HOUSE})
        arrays = np.load(tmp_path / "s.npz", allow_pickle=False)
        assert arrays["keys"].tolist() == ["a", "b"]
        assert arrays["offsets"].dtype == np.int64
        assert arrays["offsets"].tolist() == [0, 7, 14]
        assert arrays["points"].dtype == np.float32
        assert arrays["points"][:7].tolist() == to_pen_rows(HOUSE).tolist()

    def test_equal_input_gives_equal_bytes(self, tmp_path):
        for name in ("a", "b"):
            write_strokes_npz(tmp_path / name, {"k": HOUSE})
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"keys": None}, "no array 'keys'"),
            ({"keys": np.array(["a", "a"])}, "different names"),
            ({"keys": np.array([1, 2])}, "different names"),
            ({"offsets": np.array([0, 3])}, "do not fit 2 keys"),
            ({"offsets": np.array([0.0, 2.0, 5.0])}, "do not fit 2 keys"),
            ({"offsets": np.array([0, 6, 5])}, "do not cut 5 points"),
            ({"offsets": np.array([0, 2, 4])}, "do not cut 5 points"),
            ({"offsets": np.array([1, 2, 5])}, "do not cut 5 points"),
            ({"keys": np.array(["a", None], dtype=object)}, "dtype object is not read"),
        ],
    )
    def test_arrays_that_do_not_fit(self, tmp_path, change, message):
        arrays = {"keys": np.array(["a", "b"]), "offsets": np.array([0, 2, 5]), "points": ROWS.astype(np.float32)} | change
        path = tmp_path / "s.npz"
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        with pytest.raises(SketchFormatError, match=rf"s\.npz: .*{message}"):
            read_strokes_npz(path)

    def test_bad_points(self, tmp_path):
        path = tmp_path / "s.npz"
        for points, error in ((ROWS[:, :2], ShapeError), (np.full((5, 3), np.inf), NonFiniteError)):
            np.savez(path, keys=np.array(["a"]), offsets=np.array([0, 5]), points=points)
            with pytest.raises(error, match=r"s\.npz: a: "):
                read_strokes_npz(path)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
    def test_truncated(self, tmp_path, share):
        path = tmp_path / "s.npz"
        write_strokes_npz(path, {"a": HOUSE})
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SketchFormatError, match="damaged"):
            read_strokes_npz(path)

    def test_header_that_claims_more_than_there_is(self, tmp_path):
        array = io.BytesIO()
        np.save(array, np.zeros((5, 3)))
        hostile = array.getvalue().replace(b"(5, 3)", b"(9999999999, 3)").replace(b" " * 9, b"", 1)
        with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
            archive.writestr("points.npy", hostile)
        with pytest.raises(SketchFormatError, match=r"points: .*truncated"):
            read_strokes_npz(tmp_path / "s.npz")

    def test_bomb(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "s.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("points.npy", "w") as entry:
            for _ in range(257):
                entry.write(bytes(2**20))
        with pytest.raises(SketchTooLargeError, match="unpacks to more"):
            read_strokes_npz(tmp_path / "s.npz")

    def test_compression_that_numpy_does_not_write(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "s.npz", "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("points.npy", b"x")
        with pytest.raises(SketchFormatError, match=r"not a \.npz file"):
            read_strokes_npz(tmp_path / "s.npz")
