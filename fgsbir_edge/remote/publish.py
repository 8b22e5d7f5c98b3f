"""Photos of a device's gallery into a fleet's collection: batch by batch, only what is not there yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgsbir_edge.gallery.search import PhotoIndex
from fgsbir_edge.gallery.store import Item
from fgsbir_edge.head import Head
from fgsbir_edge.remote.points import payload, point, point_id
from fgsbir_edge.remote.qdrant_filters import field
from fgsbir_edge.remote.server import Server, qdrant

if TYPE_CHECKING:
    from fgsbir_edge.gallery import Gallery

PAGE = 1000  # points listed in one request


@dataclass
class PublishReport:
    """What publishing did, in photos."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0


class Publisher:
    """One pass over one gallery. Resumable: every batch is there when the server has confirmed it."""

    def __init__(self, server: Server, head: Head, gallery: Gallery) -> None:
        self._server, self._head, self._gallery = server, head, gallery
        self.report = PublishReport()

    def run(self, prune: bool, progress: bool | None) -> PublishReport:
        """Send what is new or changed; with ``prune`` remove what this gallery does not have."""
        from tqdm import tqdm

        there = dict(self._states())
        index = self._gallery.index
        items = [item for item in self._gallery.items() if item.name in index.positions]
        batch = self._server.options.batch
        with tqdm(total=len(items), desc="publishing", unit="photo", disable=None if progress is None else not progress) as bar:
            for first in range(0, len(items), batch):
                self._send(index, items[first : first + batch], there)
                bar.update(len(items[first : first + batch]))
        self._index_fields()
        if prune:
            here = {item.name for item in items}
            gone = [name for name in there if name not in here]
            remove(self._server, gone)
            self.report.removed = len(gone)
        return self.report

    def _states(self) -> Iterator[tuple[str, str]]:
        """(name, state) of every point."""
        offset = None
        while True:
            with self._server.errors():
                records, offset = self._server.client.scroll(
                    self._server.options.collection, limit=PAGE, offset=offset, with_payload=["name", "state"]
                )
            for record in records:
                content = record.payload or {}
                yield str(content.get("name")), str(content.get("state"))
            if offset is None:
                return

    def _index_fields(self) -> None:
        """Let the server filter quickly: an index for each key whose values are of one kind (it finds the same without)."""
        if self._server.embedded:
            return  # it has no indexes
        schemas = qdrant().models.PayloadSchemaType
        kinds = {"text": schemas.KEYWORD, "numbers": schemas.FLOAT, "true or false": schemas.BOOL}
        fields = {"category": schemas.KEYWORD, "name": schemas.KEYWORD}
        keys = self._gallery.columns.keys.items()
        fields |= {field(key): kinds[facts.kinds[0]] for key, facts in keys if len(facts.kinds) == 1}
        for name, schema in fields.items():
            with self._server.errors():
                self._server.client.create_payload_index(self._server.options.collection, field_name=name, field_schema=schema)

    def _send(self, index: PhotoIndex, items: Sequence[Item], there: dict[str, str]) -> None:
        places = [index.positions[item.name] for item in items]
        features, embeddings = index.features(places), index.embeddings(self._head)[places]
        points = []
        for item, row, embedding in zip(items, features, embeddings, strict=True):
            content = payload(item, row, self._gallery.metadata(item.name))
            if there.get(item.name) == content["state"]:
                self.report.unchanged += 1
                continue
            points.append(point(content, embedding))
            if item.name in there:
                self.report.updated += 1
            else:
                self.report.added += 1
        if points:
            with self._server.errors():
                self._server.client.upsert(self._server.options.collection, points=points, wait=True)


def remove(server: Server, names: Sequence[str]) -> None:
    """Remove photos from a collection; names that it does not have are passed over."""
    models = qdrant().models
    for first in range(0, len(names), PAGE):
        chosen = models.PointIdsList(points=[point_id(name) for name in names[first : first + PAGE]])
        with server.errors():
            server.client.delete(server.options.collection, points_selector=chosen, wait=True)
