"""Word vectors of category names, from GloVe or word2vec text files (METHODS C.3, L_S)."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgsbir_edge.errors import FgsbirError

LONGEST_LINE = 1 << 20  # bytes; a file that is no word vectors at all must not fill the memory
_REMEDY = 'name words that the file has, [...aliases] name = "some words"'

Reading = tuple[str, ...]  # words whose mean a name stands for


class WordVectorsError(FgsbirError, ValueError):
    """A file of word vectors cannot be read, or lacks words."""

    exit_code = 45


@dataclass(frozen=True, eq=False)
class WordVectors:
    """One vector for each name.

    names    of N categories
    vectors  float32 [N,W], as in the file, not brought to unit length (L_S is a cosine)
    source   the file's name, or "stand-in"
    meaning  False for the stand-in: its vectors say nothing about what the words mean
    read_as  the words that each name was looked up by

    Raises:
        WordVectorsError: shapes that do not fit, a name twice, or a vector that is not finite or has no length.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    source: str
    meaning: bool
    read_as: Mapping[str, Reading]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.names) or self.vectors.dtype != np.float32:
            raise WordVectorsError(
                f"{self.source}: vectors are {self.vectors.dtype} {self.vectors.shape}, expected float32 [{len(self.names)},W]"
            )
        if len(set(self.names)) < len(self.names):
            raise WordVectorsError(f"{self.source}: a name stands twice among the {len(self.names)}; name every category once")
        for name, vector in zip(self.names, self.vectors, strict=True):
            if not np.isfinite(vector).all() or not vector.any():
                raise WordVectorsError(
                    f"{self.source}: the vector of {name!r} is {'zero' if np.isfinite(vector).all() else 'not finite'} "
                    f"and has no direction; use another file, or {_REMEDY}"
                )

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    def facts(self) -> dict[str, object]:
        """For metadata and figures: where the vectors come from, whether they mean anything, names not read as they stand."""
        return {
            "source": self.source,
            "meaning": self.meaning,
            "width": self.width,
            "sha256": hashlib.sha256(np.ascontiguousarray(self.vectors).tobytes()).hexdigest(),
            "read_as": {name: " ".join(words) for name, words in self.read_as.items() if words != (name,)},
        }

    @classmethod
    def read(cls, path: str | Path, names: Sequence[str], aliases: Mapping[str, str] | None = None) -> WordVectors:
        """Vectors of `names` from a text file: a line ``word number number ...`` for each word.

        A first line of two whole numbers (words, width) makes it word2vec's format, else it is GloVe's; gzip is told by its first
        bytes. The first line of a word counts. A name of several words is the mean of their vectors, see `readings`. The whole
        file is read once; only the vectors that are needed are kept.

        Args:
            path: the file.
            names: of the categories, each once.
            aliases: words to look up in a name's place, separated by spaces.

        Raises:
            WordVectorsError: no such file, another format, cut off, a needed number that is none or not finite, or words missing.
        """
        path, aliases = Path(path), dict(aliases or {})
        if unknown := sorted(set(aliases) - set(names)):
            raise WordVectorsError(f"alias {unknown[0]!r} is for no category; there are {', '.join(names)}")
        choices = {name: readings(name, aliases.get(name)) for name in names}
        found = _read_words(path, {word for options in choices.values() for words in options for word in words})
        read_as: dict[str, Reading] = {}
        missing = []
        for name, options in choices.items():
            words = next((words for words in options if all(word in found for word in words)), None)
            if words is None:
                lacking = sorted({word for word in options[-1] if word not in found})
                missing.append(f"{name!r} (lacks {', '.join(map(repr, lacking))})")
            else:
                read_as[name] = words
        if missing:
            raise WordVectorsError(f"{path}: has no vector for {len(missing)} of {len(names)}: {', '.join(missing)}; {_REMEDY}")
        means = [np.mean([found[word] for word in read_as[name]], axis=0, dtype=np.float64) for name in names]
        return cls(tuple(names), np.array(means, dtype=np.float32).reshape(len(names), -1), path.name, True, read_as)

    @classmethod
    def stand_in(cls, names: Sequence[str], width: int = 300) -> WordVectors:
        """Unit vectors of signs from a hash of each name: the same everywhere, and without meaning.

        Any two are nearly at right angles, a cat as far from a tiger as from a piano. L_S with them says no more than "tell the
        categories apart", so figures had with them are no figures of L_S.

        Raises:
            ValueError: `width` below 1.
        """
        if width < 1:
            raise ValueError(f"the stand-in's width is {width}, expected at least 1")
        digests = [hashlib.shake_256(name.encode()).digest((width + 7) // 8) for name in names]
        bits = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8).reshape(len(names), -1), axis=1)[:, :width]
        vectors = ((2.0 * bits - 1.0) / np.sqrt(width)).astype(np.float32)
        return cls(tuple(names), vectors, "stand-in", False, {name: (name,) for name in names})


def readings(name: str, alias: str | None = None) -> list[Reading]:
    """What to look a name up by, best first; the first whose words are all in the file counts.

    An alias alone, where there is one. Else the name as it stands (word2vec has phrases with underscores), in small letters, with
    hyphens, then as words cut at underscores and brackets, then at hyphens too: "hot-air_balloon" is "hot-air" and "balloon", or
    "hot", "air" and "balloon". Several words count as the mean of their vectors, the usual choice; the paper names none.
    """
    if alias is not None:
        return [tuple(alias.split())]
    small = name.lower()
    cut = [tuple(part for part in re.split(pattern, small) if part) for pattern in (r"[_\s()]+", r"[_\s()-]+")]
    return list(dict.fromkeys([(name,), (small,), (re.sub(r"[_\s]", "-", small),), *(words for words in cut if words)]))


def _read_words(path: Path, wanted: set[str]) -> dict[str, NDArray[np.float32]]:
    """The vectors of those words of `wanted` that the file has."""
    keys = {word.encode(): word for word in wanted}
    found: dict[str, NDArray[np.float32]] = {}
    lines = _lines(path)
    number, first = next(lines, (0, b""))
    head = first.split()
    promised = -1
    if len(head) == 2 and all(re.fullmatch(rb"\d{1,12}", item) for item in head):
        promised, width = map(int, head)
        if width == 0:
            raise WordVectorsError(f"{path}: line 1 promises vectors of no numbers; it is not a text file of word vectors")
    else:
        width = len(head) - 1
        lines = _again((number, first), lines)
    if width < 1:
        raise WordVectorsError(f"{path}: line 1 is no word with its vector; expected a text file of GloVe or word2vec")
    words = 0
    for number, line in lines:
        if line.count(b" ") < width:
            raise WordVectorsError(
                f"{path}: line {number} has {line.count(b' ')} numbers, expected {width}: the file is cut off or not text "
                "(word2vec's .bin has to be saved as text first); fetch or convert it anew"
            )
        words += 1
        word = keys.get(line[: line.find(b" ")])
        if word is None or word in found:
            continue
        token, *numbers = line.rsplit(b" ", width)
        if token == word.encode():  # GloVe 840B has words with spaces in them, which begin like others
            found[word] = _vector(numbers, f"{path}: line {number}, {word!r}")
    if words < promised:
        raise WordVectorsError(f"{path}: has {words} words, its first line promises {promised}: it is cut off; fetch it anew")
    return found


def _vector(numbers: Iterable[bytes], where: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            vector = np.array([float(item) for item in numbers]).astype(np.float32)
    except ValueError as error:
        raise WordVectorsError(f"{where}: {error}; fetch the file anew") from None
    if not np.isfinite(vector).all():
        raise WordVectorsError(f"{where}: a number is NaN or infinite; fetch the file anew, or use an alias")
    return vector


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, empty ones left out."""
    number = 0
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            with gzip.open(plain, "rb") if packed else plain as stream:
                while line := stream.readline(LONGEST_LINE):
                    number += 1
                    if len(line) == LONGEST_LINE:
                        raise WordVectorsError(
                            f"{path}: line {number} is longer than {LONGEST_LINE} bytes: no text of word vectors"
                        )
                    if line := line.rstrip():
                        yield number, line
    except FileNotFoundError:
        raise WordVectorsError(f'{path}: there is no such file; words = "" takes a stand-in without meaning') from None
    except (OSError, EOFError, zlib.error) as error:
        raise WordVectorsError(f"{path}: line {number + 1} cannot be read ({error}); fetch the file anew") from None


def _again(first: tuple[int, bytes], rest: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from rest
