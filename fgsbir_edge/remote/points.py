"""A photo as a point of a collection, and back.

id       UUID of the photo's name: publishing a photo again replaces it
vector   "base": unit embedding by the base head, float32 [D]
payload  name, category, sha256 (of the file), order (in the publisher's gallery), meta (metadata),
         features (float16 little-endian [C], base64), state (a digest of all that)
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgsbir_edge.arrays import Float32
from fgsbir_edge.errors import FleetMismatchError
from fgsbir_edge.gallery.metadata import Facts
from fgsbir_edge.gallery.store import Item
from fgsbir_edge.head import digest_of
from fgsbir_edge.remote.qdrant_filters import METADATA
from fgsbir_edge.remote.server import VECTOR, qdrant

FACTS = ["name", "category", "sha256", "order"]  # what a search asks for at first
_NAMESPACE = uuid.UUID("6f2c1b0e-6d0b-5b0a-9d8f-7a1f1d3c5e21")


@dataclass(frozen=True, eq=False)
class Found:
    """A point that a search has found."""

    id: str
    name: str
    category: str | None
    sha256: str
    order: int
    score: float  # as the server has it
    embedding: Float32 | None  # [D], where it was asked for

    @property
    def place(self) -> tuple[int, str]:
        """What photos are ordered by where they tie: as in the gallery they come from."""
        return self.order, self.name


def point_id(name: str) -> str:
    """The id of a photo's point."""
    return str(uuid.uuid5(_NAMESPACE, name))


def payload(item: Item, features: Float32, facts: Facts) -> dict[str, Any]:
    """A photo's payload, from its features [C]."""
    half = features.astype("<f2").tobytes()
    known: dict[str, Any] = {"name": item.name, "category": item.category, "sha256": item.sha256, "order": item.id}
    known[METADATA] = {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}
    state = digest_of(json.dumps(known, sort_keys=True).encode(), half)[:32]
    return {**known, "features": base64.b64encode(half).decode(), "state": state}


def point(content: dict[str, Any], embedding: Float32) -> Any:
    """The point of a photo: its payload, and its embedding [D]."""
    return qdrant().models.PointStruct(
        id=point_id(content["name"]), vector={VECTOR: [float(number) for number in embedding]}, payload=content
    )


def found(answer: Any, source: str) -> Found:
    """A point of an answer. Raises FleetMismatchError where it is none of this package's."""
    try:
        content, vectors = answer.payload, answer.vector
        embedding = None if not vectors else np.asarray(vectors[VECTOR], np.float32)
        texts = str(content["name"]), content["category"], str(content["sha256"])
        return Found(str(answer.id), *texts, int(content["order"]), float(answer.score), embedding)
    except (KeyError, TypeError, ValueError) as error:
        raise FleetMismatchError(f"{source}: point {answer.id} was not published by this package ({error}); remove it") from error


def features_of(record: Any, width: int, source: str) -> Float32:
    """The features [C] in the payload of a record with "name" and "features". Raises FleetMismatchError where they are none."""
    content = record.payload or {}
    try:
        half = np.frombuffer(base64.b64decode(content["features"], validate=True), "<f2")
        if half.shape != (width,) or not np.isfinite(half).all():
            raise ValueError(f"got {half.size} numbers, expected {width} finite ones")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        name = content.get("name")
        raise FleetMismatchError(
            f"{source}: features of {name!r} are damaged ({error}); run 'fgsbir-edge fleet remove {name}', and publish it again"
        ) from error
    return half.astype(np.float32)
