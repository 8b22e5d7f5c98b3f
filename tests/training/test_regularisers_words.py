"""Word vectors from text files, names of several words, the stand-in, damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from training.episodic.words import WordVectors, WordVectorsError, readings

GLOVE = b"""the 0 0 1
cat 1 2 3
hot 1 0 0
air 0 1 0
dog -1 0.5 2e-1
dog 9 9 9
balloon 0 0 1
hot spring 7 7 7
sedan 2 2 2
car 4 0 0
"""


def put(folder: Path, content: bytes, name: str = "vectors.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def word2vec(content: bytes = GLOVE, trail: bytes = b" ") -> bytes:
    """The same words as the original word2vec writes them: a header, a space at the end of every line."""
    lines = [line for line in content.splitlines() if not line.startswith(b"hot spring")]
    return b"%d 3\n" % len(lines) + b"".join(line + trail + b"\n" for line in lines)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [GLOVE, GLOVE.replace(b"\n", b"\r\n"), word2vec(), word2vec(trail=b"")])
def test_both_formats_with_and_without_gzip(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = put(tmp_path, gzip.compress(content) if packed else content, "vectors.gz" if packed else "vectors.txt")
    words = WordVectors.read(path, ["dog", "cat"])
    np.testing.assert_array_equal(words.vectors, np.array([[-1, 0.5, 0.2], [1, 2, 3]], dtype=np.float32))  # the first "dog"
    assert words.names == ("dog", "cat")
    assert words.meaning
    assert words.width == 3
    facts = words.facts()
    assert (facts["source"], facts["meaning"], facts["read_as"]) == (path.name, True, {})
    assert facts["sha256"] == WordVectors.read(put(tmp_path, GLOVE), ["dog", "cat"]).facts()["sha256"]


def test_names_of_several_words_are_means(tmp_path: Path) -> None:
    path = put(tmp_path, GLOVE)
    words = WordVectors.read(path, ["hot-air_balloon", "car_(sedan)", "Cat", "hotdog"], {"hotdog": "hot dog"})
    expected = [[1 / 3, 1 / 3, 1 / 3], [3, 1, 1], [1, 2, 3], [0, 0.25, 0.1]]
    np.testing.assert_allclose(words.vectors, expected, rtol=1e-6)
    assert words.facts()["read_as"] == {
        "hot-air_balloon": "hot air balloon",
        "car_(sedan)": "car sedan",
        "Cat": "cat",
        "hotdog": "hot dog",
    }


def test_a_phrase_of_the_file_comes_before_its_words(tmp_path: Path) -> None:
    path = put(tmp_path, GLOVE + b"hot-air 5 5 5\nHot_Dog 6 6 6\n")
    words = WordVectors.read(path, ["hot-air_balloon", "Hot_Dog"])
    np.testing.assert_allclose(words.vectors, [[2.5, 2.5, 3], [6, 6, 6]])
    assert readings("pickup_truck") == [("pickup_truck",), ("pickup-truck",), ("pickup", "truck")]
    assert readings("jack-o-lantern")[0] == ("jack-o-lantern",)
    assert readings("bee") == [("bee",)]
    assert readings("hotdog", "hot dog") == [("hot", "dog")]


def test_missing_words_are_named_with_the_remedy(tmp_path: Path) -> None:
    path = put(tmp_path, GLOVE)
    with pytest.raises(
        WordVectorsError, match=r"no vector for 2 of 3: 'pickup_truck' \(lacks 'pickup', 'truck'\), 'bee'.*aliases"
    ):
        WordVectors.read(path, ["pickup_truck", "cat", "bee"])
    with pytest.raises(WordVectorsError, match="lacks 'horse'"):
        WordVectors.read(path, ["cat"], {"cat": "horse"})  # an alias is not overruled by the name itself
    with pytest.raises(WordVectorsError, match="alias 'bat' is for no category"):
        WordVectors.read(path, ["cat"], {"bat": "cat"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 is no word with its vector"),
        (b"word\n", "line 1 is no word with its vector"),
        (b"3 0\n", "promises vectors of no numbers"),
        (b"the 0 0 1\ncat 1 2\ndog 1 2 3\n", "line 2 has 2 numbers, expected 3.*cut off"),
        (b"9 3\ncat 1 2 3\n", "has 1 words, its first line promises 9: it is cut off"),
        (b"3 3\ncat \x00\x01\x02\x03\x04\x05\n", r"line 2 has 1 numbers, expected 3.*\.bin has to be saved as text"),
        (b"the 0 0 1\ncat 1 nan 3\n", "line 2, 'cat': a number is NaN or infinite"),
        (b"the 0 0 1\ncat 1 1e39 3\n", "line 2, 'cat': a number is NaN or infinite"),
        (b"the 0 0 1\ncat 1 x 3\n", "line 2, 'cat': could not convert"),
        (b"the 0 0 1\ncat 0 0 0\n", "the vector of 'cat' is zero"),
        (gzip.compress(GLOVE * 50)[:-20], r"cannot be read .*fetch the file anew"),
        (b"the 0 0 1\ncat 1 2 " + b"3" * (1 << 20), "line 2 is longer than 1048576 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(WordVectorsError, match=message):
        WordVectors.read(put(tmp_path, content), ["cat"])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WordVectorsError, match='there is no such file; words = "" takes a stand-in'):
        WordVectors.read(tmp_path / "none.txt", ["cat"])
    with pytest.raises(WordVectorsError, match="cannot be read"):
        WordVectors.read(tmp_path, ["cat"])


def test_vectors_fit_their_names() -> None:
    vectors = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(WordVectorsError, match=r"vectors are float32 \(2, 3\), expected float32 \[1,W\]"):
        WordVectors(("a",), vectors, "here", True, {})
    with pytest.raises(WordVectorsError, match="a name stands twice among the 2"):
        WordVectors(("a", "a"), vectors, "here", True, {})
    vectors[1, 1] = np.inf
    with pytest.raises(WordVectorsError, match="the vector of 'b' is not finite"):
        WordVectors(("a", "b"), vectors, "here", True, {})


def test_the_stand_in_is_the_same_everywhere_and_says_so() -> None:
    names = [f"name {number}" for number in range(104)]
    words = WordVectors.stand_in(names)
    assert words.vectors.shape == (104, 300)
    np.testing.assert_allclose(np.linalg.norm(words.vectors, axis=1), 1.0, rtol=1e-6)
    cosines = words.vectors @ words.vectors.T - np.eye(104)
    assert np.abs(cosines).max() < 0.3  # five standard deviations of 1/sqrt(300)
    assert not words.meaning
    assert words.facts()["source"] == "stand-in"
    assert words.facts()["meaning"] is False
    alone = WordVectors.stand_in(names[7:8])
    np.testing.assert_array_equal(alone.vectors[0], words.vectors[7])  # whatever other names there are
    bits = WordVectors.stand_in(["cat"], 16).vectors[0] > 0
    assert "".join(str(int(bit)) for bit in bits) == f"{0x8952:016b}"  # what OpenSSL gives as SHAKE-256 of "cat"
    with pytest.raises(ValueError, match="width is 0"):
        WordVectors.stand_in(names, 0)
