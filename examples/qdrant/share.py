"""Two devices share one collection: one publishes its photos, the other finds them by a person's drawings.

python examples/qdrant/share.py URL|FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import mean

from fgsbir_edge import Engine
from fgsbir_edge.pairs import DEMO_FOLDER, DataFolder, draw_support
from fgsbir_edge.remote import Fleet

SHOTS = 5  # pairs that the second device learns from


def share(place: str, tell: Callable[[str], object]) -> tuple[float, float]:
    """Publish, adapt, search; the mean rank of the photos that the person's other drawings mean, before and after adapting."""
    folder = DataFolder.open(DEMO_FOLDER)
    support, queries = draw_support(folder.select(folder.users[0]), SHOTS, seed=0)
    with Engine.open(photos=folder.photos) as first, Fleet(place, first.bundle) as fleet:
        report = fleet.publish(first.gallery)
        tell(f"first device: {report.added} photos published, {report.unchanged} were there")
        adapter = first.adapt([(folder.sketch(pair.sketch), pair.photo) for pair in support]).adapter
    with Engine.open() as second, Fleet(place, second.bundle) as fleet:  # no photos of its own
        features = second.encode_sketches([folder.sketch(pair.sketch) for pair in queries])
        before, after = (
            mean(
                next(hit.rank for hit in hits if hit.name == pair.photo)
                for hits, pair in zip(fleet.search(features, len(fleet), adapter=learned), queries, strict=True)
            )
            for learned in (None, adapter)
        )
    tell(f"second device: {len(queries)} drawings, mean rank of their photos {before:.2f}, with the person's adapter {after:.2f}")
    return before, after


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    share(sys.argv[1], lambda text: sys.stdout.write(text + "\n"))
