"""The length of the shortlist that a gallery keeps: so many photos reached a stated recall when it was measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from fgsbir_edge.gallery.store import Store
from fgsbir_edge.head import Head

KEY = "shortlist"  # in the file's table ``meta``


@dataclass(frozen=True)
class Shortlist:
    """``photos`` many of ``total`` reached ``recall`` of the ``k`` nearest with adapters of the head with that digest."""

    head: str
    photos: int
    total: int
    recall: float
    k: int

    def length(self, head: Head, total: int) -> int | None:
        """M in a gallery of ``total`` photos, the same share of them where it has grown; None for another head."""
        if head.digest != self.head:
            return None
        return math.ceil(self.photos * max(1.0, total / self.total))

    def keep(self, store: Store) -> None:
        """Write it to the gallery's file. Raises OutputError."""
        with store.writing():
            store.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KEY, json.dumps(asdict(self))))

    @classmethod
    def kept(cls, store: Store) -> Shortlist | None:
        """What ``keep`` has written; None where nothing is, or what is there cannot be read: then all photos are looked at."""
        with store.errors():
            row = store.db.execute("SELECT value FROM meta WHERE key = ?", (KEY,)).fetchone()
        try:
            found = None if row is None else cls(**json.loads(row[0]))
        except (TypeError, ValueError, RecursionError):
            return None
        return found if found is not None and found.sound else None

    @property
    def sound(self) -> bool:
        """Whether the numbers can be meant."""
        whole = all(isinstance(number, int) and number > 0 for number in (self.photos, self.total, self.k))
        return isinstance(self.head, str) and whole and isinstance(self.recall, float) and 0.0 < self.recall <= 1.0
