"""Tasks of the outer loop, over cached features: people (drawings32), categories (sketchy) and chairs (chairv2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgsbir_edge.preprocess import InputSpec
from training.data.folder import PairsFolder
from training.data.pixels import PixelStore
from training.data.splits import CHAIRV2_VALIDATION_PHOTOS, select, split_categories, split_drawings, split_photos
from training.episodes import Task, category_tasks, person_tasks
from training.features import cached
from training.models.encoder import Encoder


@dataclass(frozen=True)
class Domain:
    """Tasks with the feature rows they index: sketches float16 [S,V,R], photos float16 [P,V,R]."""

    tasks: list[Task]
    share: float
    sketches: np.ndarray
    photos: np.ndarray


ROWS_PER_DOMAIN = 600  # of sketches and of photos, so that no dataset outweighs another


def training_rows(domains: list[Domain]) -> torch.Tensor:
    """Pooled features [N,R] float32 of clean training sketches and photos, equally many of every domain."""
    rng, rows = np.random.default_rng(0), []
    for domain in domains:
        for table, used in (
            (domain.sketches, [task.sketches for task in domain.tasks]),
            (domain.photos, [task.gallery for task in domain.tasks]),
        ):
            indices = np.unique(np.concatenate(used))
            rows.append(table[rng.permutation(indices)[:ROWS_PER_DOMAIN], 0])
    return torch.from_numpy(np.concatenate(rows)).float()


Validation = dict[str, tuple[Domain, list[Task]]]


def open_domains(data: Path, cache: Path, encoder: Encoder, meta: dict[str, Any]) -> tuple[list[Domain], Validation]:
    """Training domains, and validation tasks by name: none of the latter's people, objects, photos or categories train."""
    spec = InputSpec.from_manifest(meta["input"])
    domains: list[Domain] = []
    validation: Validation = {}

    drawings = PairsFolder.read(data / "drawings32")
    people = split_drawings(drawings)
    table = cached(PixelStore(drawings, spec), encoder, cache)
    rows = _rows(table.sketch_keys), _rows(table.photo_names)
    seen, unseen = sorted(people.seen), sorted(people.unseen)
    train = person_tasks(select(drawings.pairs, users=people.train, photos=people.seen), seen, *rows)
    domains.append(Domain(train, 0.5, table.sketches, table.photos))
    held = select(drawings.pairs, users=people.validation)
    validation["people, 32 objects"] = domains[-1], person_tasks(held, sorted(drawings.photo_category), *rows)
    known = select(drawings.pairs, users=people.train, photos=people.unseen)
    validation["training people, unseen objects"] = domains[-1], person_tasks(known, unseen, *rows)
    validation["people, unseen objects"] = domains[-1], person_tasks(select(held, photos=people.unseen), unseen, *rows)

    sketchy = PairsFolder.read(data / "sketchy")
    categories = split_categories(sketchy)
    table = cached(PixelStore(sketchy, spec), encoder, cache)
    rows = _rows(table.sketch_keys), _rows(table.photo_names)
    outer = select(sketchy.pairs, categories=categories.outer | categories.backbone)
    domains.append(Domain(category_tasks(outer, sketchy.photo_category, *rows), 0.35, table.sketches, table.photos))
    held = select(sketchy.pairs, categories=categories.validation)
    validation["categories"] = domains[-1], category_tasks(held, sketchy.photo_category, *rows)

    chairs = PairsFolder.read(data / "chairv2")
    train_photos, held_photos = split_photos(chairs, CHAIRV2_VALIDATION_PHOTOS, "chairv2-photos")
    table = cached(PixelStore(chairs, spec), encoder, cache)
    rows = _rows(table.sketch_keys), _rows(table.photo_names)
    for photos, name in ((train_photos, ""), (held_photos, "chairs")):
        tasks = category_tasks(select(chairs.pairs, photos=photos), dict.fromkeys(photos, "chair"), *rows)
        domain = Domain(tasks, 0.15, table.sketches, table.photos)
        if name:
            validation[name] = domain, tasks
        else:
            domains.append(domain)
    return domains, validation


def _rows(names: list[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}
