"""The connection to a Qdrant server, or to its embedded form; what it refuses becomes this package's errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fgsbir_edge.errors import FleetMismatchError, FleetUnavailableError, QdrantMissingError

FORMAT = 1  # of points and of the record in the collection's metadata
RECORD = "fgsbir_edge"
VECTOR = "base"  # unit embeddings by the base head
KEY_VARIABLE = "QDRANT_API_KEY"
LOCAL_WAY = "searches of this device's own gallery go on without it: fgsbir-edge query SKETCH --gallery FILE"


@dataclass(frozen=True)
class FleetOptions:
    """How a fleet's collection is used.

    Args:
        collection: its name.
        timeout: seconds for one request.
        batch: photos sent, or asked for, in one request.
        shortlist: M; adapters that move photos re-rank the M photos that the base head finds nearest.
        exact: whether the server looks at all photos. Otherwise it uses its approximate index, and may miss some.

    Raises:
        ValueError: a value out of range.
    """

    collection: str = "photos"
    timeout: int = 10
    batch: int = 128
    shortlist: int = 1000
    exact: bool = True

    def __post_init__(self) -> None:
        if min(self.timeout, self.batch, self.shortlist) < 1:
            raise ValueError(f"timeout {self.timeout}, batch {self.batch}, shortlist {self.shortlist}: expected at least 1")


@dataclass(frozen=True)
class Model:
    """What a collection's photos were made with; noted in the collection, since other vectors would be found and mean nothing."""

    features_digest: str
    head_digest: str
    features: int  # C
    embedding: int  # D
    format: int = FORMAT


def qdrant() -> Any:
    """The module qdrant_client. Raises QdrantMissingError naming the remedy."""
    try:
        import qdrant_client
    except ImportError as error:
        raise QdrantMissingError(
            f"qdrant_client cannot be imported ({error}); pip install 'fgsbir-edge[qdrant]'. {LOCAL_WAY}"
        ) from error
    return qdrant_client


class Server:
    """One collection at one place: a URL, ":memory:", or a folder that Qdrant's embedded form keeps (one process at a time)."""

    def __init__(self, place: str, options: FleetOptions) -> None:
        self.place, self.options = place, options
        self.embedded = "://" not in place
        self.name = f"collection {options.collection!r} at {place}"
        if re.fullmatch(r"[\w.-]+:\d+/?", place):
            raise FleetUnavailableError(f"{place!r} is neither a URL nor a folder; write http://{place} or https://{place}")
        client, where = qdrant().QdrantClient, {"location" if place == ":memory:" else "path": place}
        with self.errors():
            if self.embedded:
                self.client = client(**where)
            else:
                key = os.environ.get(KEY_VARIABLE) or None
                self.client = client(url=place, timeout=options.timeout, api_key=key, check_compatibility=False)

    def close(self) -> None:
        """Let go of the connection; an embedded folder is free for others then."""
        self.client.close()

    def model(self) -> Model | None:
        """What the collection was made with; None where there is no such collection. Raises FleetMismatchError, and others."""
        with self.errors():
            if not self.client.collection_exists(self.options.collection):
                return None
            config = self.client.get_collection(self.options.collection).config
        try:
            model, vector = Model(**config.metadata[RECORD]), config.params.vectors[VECTOR]
        except (TypeError, KeyError) as error:
            raise FleetMismatchError(
                f"{self.name} was not made by 'fgsbir-edge fleet publish' (or its server is older than Qdrant 1.16, which cannot "
                f"keep the record); choose another name with --collection"
            ) from error
        if model.format != FORMAT or vector.size != model.embedding:
            raise FleetMismatchError(f"{self.name} is of format {model.format}, this release knows {FORMAT}; update one of them")
        return model

    def create(self, model: Model) -> None:
        """Make the collection, unless another device has just made it."""
        models = qdrant().models
        vectors = {VECTOR: models.VectorParams(size=model.embedding, distance=models.Distance.DOT)}
        with self.errors():
            try:
                self.client.create_collection(
                    self.options.collection,
                    vectors_config=vectors,
                    metadata={RECORD: asdict(model)},
                    timeout=self.options.timeout,
                )
            except Exception:
                if not self.client.collection_exists(self.options.collection):
                    raise

    def require(self, model: Model) -> None:
        """Raises FleetMismatchError where the collection is missing, or of another model than this device's."""
        there = self.model()
        if there is None:
            raise FleetMismatchError(f"{self.name} does not exist; make it with 'fgsbir-edge fleet publish'. {LOCAL_WAY}")
        for what, theirs, ours in (
            ("encoder", there.features_digest, model.features_digest),
            ("head", there.head_digest, model.head_digest),
        ):
            if theirs != ours:
                raise FleetMismatchError(
                    f"{self.name} was published with another {what} ({theirs[:12]}) than this device's bundle has ({ours[:12]}); "
                    f"use that bundle, or publish to another collection. {LOCAL_WAY}"
                )

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong between here and the server, as FleetUnavailableError."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

        try:
            yield
        except ResponseHandlingException as error:  # no connection, or no answer in time
            reason = f"{type(error.source).__name__}: {error.source}".strip(": ")
            raise FleetUnavailableError(
                f"{self.place} does not answer within {self.options.timeout} s ({reason}); start it, or check address and "
                f"network. {LOCAL_WAY}"
            ) from error
        except UnexpectedResponse as error:
            raise FleetUnavailableError(f"{self.name}: {_refusal(error)}. {LOCAL_WAY}") from error
        except (ApiException, ResourceExhaustedResponse) as error:
            raise FleetUnavailableError(f"{self.name}: {error}; try again later. {LOCAL_WAY}") from error
        except (ValueError, RuntimeError, OSError) as error:  # not an address, no JSON; embedded: a folder in use
            reason = " ".join(str(error).split())[:200].rstrip(".")
            hint = "" if self.embedded else "; is it a Qdrant server?"
            raise FleetUnavailableError(f"{self.name}: {reason}{hint}. {LOCAL_WAY}") from error


def _refusal(error: Any) -> str:
    """What an HTTP status means here."""
    if error.status_code in (401, 403):
        return f"the server refuses (HTTP {error.status_code}); set the environment variable {KEY_VARIABLE} to its key"
    if error.status_code == 404:
        return "the collection is not there; make it with 'fgsbir-edge fleet publish'"
    content = bytes(error.content or b"").decode(errors="replace")[:200]
    return f"the server answers HTTP {error.status_code} ({content}); see its log"
