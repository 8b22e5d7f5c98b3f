"""``Fleet``: a collection of photos that many devices publish to and search in; scoring, and what is learned, stays here."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from fgsbir_edge.arrays import matrix
from fgsbir_edge.gallery.filters import Where, as_filter
from fgsbir_edge.gallery.search import Categories, Hit
from fgsbir_edge.head import Adapter
from fgsbir_edge.remote.find import Finder, both
from fgsbir_edge.remote.publish import Publisher, PublishReport, remove
from fgsbir_edge.remote.server import FleetOptions, Model, Server

if TYPE_CHECKING:
    from fgsbir_edge.bundle import Bundle
    from fgsbir_edge.gallery import Gallery


class Fleet:
    """One collection of a Qdrant server, for devices with one bundle. Use from one thread; close it, or use it in a ``with``.

    Args:
        place: URL of the server; or a folder, or ":memory:", of Qdrant's embedded form, for one process at a time.
        bundle: this device's; collections of another encoder or head are refused.
        gallery: this device's own; features of photos that it has too are read from it instead of being fetched.

    Raises:
        QdrantMissingError: qdrant_client cannot be imported.
    """

    def __init__(
        self, place: str, bundle: Bundle, *, gallery: Gallery | None = None, options: FleetOptions | None = None
    ) -> None:
        head = bundle.head
        self._model = Model(bundle.features_digest, head.digest, head.features, head.embedding)
        self._head = head
        self._server = Server(place, options or FleetOptions())
        self._finder = Finder(self._server, head, gallery)
        self._trusted = False

    def close(self) -> None:
        """Let go of the server."""
        self._server.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        self._check()
        with self._server.errors():
            return int(self._server.client.count(self._server.options.collection, exact=True).count)

    def publish(self, gallery: Gallery, *, prune: bool = False, progress: bool | None = None) -> PublishReport:
        """Bring the collection up to date with a gallery: names, categories, metadata, hashes, features and base embeddings.

        The collection is made where there is none. What is there already is not sent again, so that an interrupted run goes on
        where it stopped. ``prune`` removes the collection's photos that the gallery does not have. What people have shown, and
        adapters, are never sent. ``progress`` None shows a bar on stderr where that is a terminal. Raises FleetUnavailableError,
        FleetMismatchError.
        """
        if self._server.model() is None:
            self._server.create(self._model)
        self._check()
        return Publisher(self._server, self._head, gallery).run(prune, progress)

    def remove(self, names: Sequence[str]) -> None:
        """Remove photos by name; names that are not there are passed over. Raises FleetUnavailableError, FleetMismatchError."""
        self._check()
        remove(self._server, names)

    def search(
        self,
        sketches: ArrayLike,
        k: int = 10,
        *,
        adapter: Adapter | None = None,
        category: Categories = None,
        where: Where | Sequence[Where] | None = None,
    ) -> list[list[Hit]]:
        """The k nearest photos of the collection for each sketch, from sketch features [B, C]; see ``find.py`` for exactness.

        Nearest first, ties in the order of the gallery that published them. Raises EmptyGalleryError (no photos that may answer),
        FilterError, AdapterMismatchError, FleetUnavailableError, FleetMismatchError, ShapeError, NonFiniteError, ValueError (k).
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        rows, wanted = matrix("sketch features", sketches, self._head.features), as_filter(where)
        self._check()
        if wanted is not None:
            self._finder.check(wanted)
        return [self._finder.search(row[None], k, adapter, both(category, wanted)) for row in rows]

    def _check(self) -> None:
        """Once a connection: the collection is there, and this bundle's."""
        if not self._trusted:
            self._server.require(self._model)
            self._trusted = True
