"""The last layer, and its low-rank change for one person: ``Head`` (FC + L2 normalisation) and ``Adapter``.

    z = (W f + b) / ||W f + b||                                            Head
    W' = W + A·X,  b' = b + A·1                                            Adapter
    z' = (W f + b + A (X f + 1)) / ||·||                                   the same without ever forming W'
    z' = (W f + b + A (X f + 1) + c) / ||·||                               sketches, where the head is centred

f [C] are the encoder's features, W [D, C], b [D]; X [m, C] are the support features that moved and A [D, m] what the inner
loop learned. A bias is one more column of ones in X, hence the 1. The shift c [D] takes from sketches what those of the support
have in common (``inner.py``).
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from fgsbir_edge.arrays import Float32, frozen, matrix, normalised
from fgsbir_edge.errors import AdapterFormatError, AdapterMismatchError, BundleFormatError
from fgsbir_edge.files import pack_tensors, read_bounded, unpack_tensors, write_atomic
from fgsbir_edge.margin import MarginNet
from fgsbir_edge.start import REFERENCE, Start

Side = Literal["sketch", "both"]
Negatives = Literal["support", "gallery"]
Role = Literal["sketch", "photo"]

HEAD_FORMAT = "fgsbir-edge-head-1"
ADAPTER_FORMAT = "fgsbir-edge-adapter-1"
_SHOWN = 12  # characters of a digest that messages show


def digest_of(*parts: bytes) -> str:
    """SHA-256 over length-prefixed parts, in hex; the prefixes keep ("ab", "c") apart from ("a", "bc")."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


@dataclass(frozen=True, eq=False)
class Head:
    """The embedding layer and what its inner loop was trained to do. Arrays are float32 and read-only.

    ``step_sizes`` are the T learned rates of the inner loop; ``margin`` is used where ``margin_net`` is None; ``sharpness`` is b
    of softplus_b(x) = log(1 + e^(bx)) / b, 0 meaning the plain hinge; ``side`` and ``negatives`` are the defaults of adaptation.
    ``centre`` is p of the shift -k / (k + p) mean(W s + b) that sketches take from the k sketches of a support; infinity: none.
    ``start`` says what sketches lose before there are any (None: nothing is known of that).
    Raises ValueError when shapes disagree or numbers are not finite.
    """

    weight: Float32  # [D, C]
    bias: Float32  # [D]
    step_sizes: Float32  # [T]
    margin_net: MarginNet | None = None
    margin: float = 0.3
    sharpness: float = 10.0
    side: Side = "sketch"
    negatives: Negatives = "support"
    centre: float = math.inf
    start: Start | None = None

    def __post_init__(self) -> None:
        for name, rank in (("weight", 2), ("bias", 1), ("step_sizes", 1)):
            array = frozen(getattr(self, name))
            object.__setattr__(self, name, array)
            if array.ndim != rank or array.size == 0:
                raise ValueError(f"{name} has shape {list(array.shape)}, expected {rank} non-empty dimension(s)")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds NaN or infinity")
        if self.bias.shape[0] != self.weight.shape[0]:
            raise ValueError(f"bias has {self.bias.shape[0]} entries, weight has {self.weight.shape[0]} rows")
        if not (np.isfinite(self.margin) and np.isfinite(self.sharpness) and self.sharpness >= 0):
            raise ValueError(f"margin {self.margin} and sharpness {self.sharpness} must be finite, sharpness >= 0")
        if self.side not in get_args(Side) or self.negatives not in get_args(Negatives):
            wanted = f"one of {get_args(Side)} and one of {get_args(Negatives)}"
            raise ValueError(f"side and negatives are {self.side!r} and {self.negatives!r}, expected {wanted}")
        if not self.centre >= 0:
            raise ValueError(f"centre is {self.centre}, expected 0 or more, or infinity for none")
        if self.start is not None and self.start.reference.shape != self.bias.shape:
            raise ValueError(f"{REFERENCE} has {len(self.start.reference)} entries, the head gives D = {len(self.bias)}")

    @property
    def features(self) -> int:
        """C, the width of the features that this head takes."""
        return int(self.weight.shape[1])

    @property
    def embedding(self) -> int:
        """D, the width of the embeddings that it gives."""
        return int(self.weight.shape[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over weight and bias: all that an embedding, and therefore an adapter, depends on."""
        shape = np.asarray(self.weight.shape, dtype="<i8")
        return digest_of(shape.tobytes(), self.weight.tobytes(), self.bias.tobytes())

    def outputs(self, features: ArrayLike) -> Float32:
        """W f + b before normalisation: [N, C] -> [N, D] float32. Raises ShapeError, NonFiniteError."""
        product: Float32 = matrix("features", features, self.features) @ self.weight.T + self.bias
        return product

    def embed(self, features: ArrayLike) -> Float32:
        """Unit-length embeddings: [N, C] -> [N, D] float32. Raises ShapeError, NonFiniteError."""
        return normalised(self.outputs(features))

    def to_bytes(self) -> bytes:
        """The content of ``head.safetensors``."""
        tensors = {"weight": self.weight, "bias": self.bias, "step_sizes": self.step_sizes}
        if self.margin_net is not None:
            tensors |= self.margin_net.tensors()
        scalars = {name: repr(float(getattr(self, name))) for name in ("margin", "sharpness", "centre")}
        if self.start is not None:
            tensors[REFERENCE] = self.start.reference
            scalars["start_share"] = repr(float(self.start.share))
        return pack_tensors(tensors, {"format": HEAD_FORMAT, "side": self.side, "negatives": self.negatives, **scalars})

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "head") -> Head:
        """Read ``head.safetensors``. Raises BundleFormatError naming ``source`` and what is wrong."""
        try:
            tensors, meta = unpack_tensors(data)
            if meta.get("format") != HEAD_FORMAT:
                raise ValueError(f"format is {meta.get('format')!r}, expected {HEAD_FORMAT!r}")
            names = [name for name in tensors if name.startswith("margin.")]
            net = MarginNet(**{name.removeprefix("margin."): tensors[name] for name in names}) if names else None
            return cls(
                weight=tensors["weight"],
                bias=tensors["bias"],
                step_sizes=tensors["step_sizes"],
                margin_net=net,
                margin=float(meta["margin"]),
                sharpness=float(meta["sharpness"]),
                side=meta["side"],  # type: ignore[arg-type]  # __post_init__ checks the values
                negatives=meta["negatives"],  # type: ignore[arg-type]
                centre=float(meta.get("centre", "inf")),
                start=Start(tensors[REFERENCE], float(meta["start_share"])) if REFERENCE in tensors else None,
            )
        except KeyError as error:
            raise BundleFormatError(f"{source}: {error} is missing; export the bundle again") from error
        except (ValueError, TypeError) as error:
            raise BundleFormatError(f"{source}: {error}; export the bundle again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write atomically. Raises OutputError."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Head:
        """Read a head file. Raises BundleFormatError."""
        try:
            data = read_bounded(path)
        except OSError as error:
            raise BundleFormatError(f"{path}: cannot read ({error.strerror}); export the bundle again") from error
        except ValueError as error:
            raise BundleFormatError(f"{path}: {error}; a head is far smaller, check the path") from error
        return cls.from_bytes(data, str(path))


@dataclass(frozen=True, eq=False)
class Adapter:
    """One person's (or category's) low-rank change of one head: W' = W + A·X, b' = b + A·1. Arrays float32, read-only.

    ``side`` "sketch": only sketches go through the changed head, so every photo embedding, and any index over them, stays valid;
    "both": photos go through it too, as in the papers. ``sketch_shift`` is added to the outputs of sketches alone, on
    either side. m = 0 without a shift is the base head itself.
    """

    head_digest: str
    coefficients: Float32  # A [D, m]
    support: Float32  # X [m, C]
    side: Side
    meta: dict[str, str] = field(default_factory=dict)
    sketch_shift: Float32 | None = None  # c [D]

    def __post_init__(self) -> None:
        for name, rank in (("coefficients", 2), ("support", 2), ("sketch_shift", 1)):
            if getattr(self, name) is None:
                continue
            array = frozen(getattr(self, name))
            object.__setattr__(self, name, array)
            if array.ndim != rank:
                raise ValueError(f"{name} has shape {list(array.shape)}, expected {rank} dimension(s)")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds NaN or infinity")
        if self.coefficients.shape[1] != self.support.shape[0]:
            raise ValueError(f"coefficients {list(self.coefficients.shape)} and support {list(self.support.shape)} disagree on m")
        if self.sketch_shift is not None and len(self.sketch_shift) != len(self.coefficients):
            raise ValueError(f"sketch_shift has {len(self.sketch_shift)} entries, coefficients have D = {len(self.coefficients)}")
        if self.side not in get_args(Side):
            raise ValueError(f"side is {self.side!r}, expected one of {get_args(Side)}")

    @classmethod
    def identity(cls, head: Head, side: Side = "sketch", meta: dict[str, str] | None = None) -> Adapter:
        """The adapter that changes nothing (m = 0): what adaptation returns when the base head stays in force."""
        nothing = np.zeros((head.embedding, 0), np.float32), np.zeros((0, head.features), np.float32)
        return cls(head.digest, *nothing, side, meta or {})

    @property
    def rank(self) -> int:
        """m, the number of support features that the change is written in."""
        return int(self.support.shape[0])

    @property
    def changes(self) -> bool:
        """Whether it does anything to a search: not so where the base head stayed in force."""
        return self.rank > 0 or self.sketch_shift is not None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything an adapted embedding depends on; caches are keyed by it."""
        arrays = [self.coefficients.tobytes(), self.support.tobytes()]
        if self.sketch_shift is not None:
            arrays.append(self.sketch_shift.tobytes())
        return digest_of(self.head_digest.encode(), self.side.encode(), str(self.rank).encode(), *arrays)

    def moves(self, role: Role) -> bool:
        """Whether embeddings of ``role`` differ from the base head's."""
        if role == "sketch":
            return self.rank > 0 or self.sketch_shift is not None
        return self.rank > 0 and self.side == "both"

    def shift(self, features: Float32, role: Role = "sketch") -> Float32:
        """What the adapter adds to W f + b where it moves that role, A (X f + 1), of sketches + c: [N, C] -> [N, D] float32.

        The low-rank product while it is the cheaper one, the full D x C change when m is so large that it is not.
        """
        D, m = self.coefficients.shape
        C = self.support.shape[1]
        change: Float32
        if m * (D + C) <= D * C:
            change = (features @ self.support.T + np.float32(1.0)) @ self.coefficients.T
        else:
            change = features @ (self.coefficients @ self.support).T + self.coefficients.sum(axis=1)
        return change if role == "photo" or self.sketch_shift is None else change + self.sketch_shift

    def embed(self, head: Head, features: ArrayLike, role: Role = "sketch") -> Float32:
        """Unit-length adapted embeddings: [N, C] -> [N, D] float32.

        Raises AdapterMismatchError when ``head`` is another one, ShapeError and NonFiniteError on bad features.
        """
        self.check(head)
        rows = matrix("features", features, head.features)
        outputs = head.outputs(rows)
        return normalised(outputs + self.shift(rows, role) if self.moves(role) else outputs)

    def check(self, head: Head, source: str = "adapter") -> None:
        """Raise AdapterMismatchError unless this adapter was made for ``head``."""
        shapes = self.coefficients.shape[0], self.support.shape[1]
        if self.head_digest != head.digest or shapes != head.weight.shape:
            raise AdapterMismatchError(
                f"{source}: made for head {self.head_digest[:_SHOWN]}, this bundle has head {head.digest[:_SHOWN]}; "
                "use the bundle it was made with, or adapt again"
            )

    def to_bytes(self) -> bytes:
        """The content of an adapter's file."""
        meta = {f"meta.{key}": value for key, value in self.meta.items()}
        header = {"format": ADAPTER_FORMAT, "head": self.head_digest, "side": self.side, **meta}
        tensors = {"coefficients": self.coefficients, "support": self.support}
        if self.sketch_shift is not None:
            tensors["sketch_shift"] = self.sketch_shift
        return pack_tensors(tensors, header)

    @classmethod
    def from_bytes(cls, data: bytes, head: Head, source: str = "adapter") -> Adapter:
        """Read an adapter of ``head``. Raises AdapterFormatError naming ``source``, and AdapterMismatchError."""
        try:
            tensors, header = unpack_tensors(data)
            if header.get("format") != ADAPTER_FORMAT:
                raise ValueError(f"format is {header.get('format')!r}, expected {ADAPTER_FORMAT!r}")
            if any(array.dtype != np.float32 for array in tensors.values()):
                raise ValueError("tensors are not float32")
            meta = {key.removeprefix("meta."): value for key, value in header.items() if key.startswith("meta.")}
            arrays = tensors["coefficients"], tensors["support"]
            side, shift = header["side"], tensors.get("sketch_shift")
            adapter = cls(header["head"], *arrays, side, meta, shift)  # type: ignore[arg-type]  # __post_init__ checks side
        except KeyError as error:
            raise AdapterFormatError(f"{source}: {error} is missing; adapt again") from error
        except ValueError as error:
            raise AdapterFormatError(f"{source}: {error}; adapt again") from error
        adapter.check(head, source)
        return adapter

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file atomically. Raises OutputError."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str], head: Head) -> Adapter:
        """Read an adapter of ``head``. Raises AdapterFormatError (not an adapter, damaged) and AdapterMismatchError."""
        try:
            data = read_bounded(path)
        except OSError as error:
            raise AdapterFormatError(f"{path}: cannot read ({error.strerror}); check the path") from error
        except ValueError as error:
            raise AdapterFormatError(f"{path}: {error}; adapt again") from error
        return cls.from_bytes(data, head, str(path))
