"""Features, edges and generated drawings of the categories that starts are fitted and measured on, kept in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.episodic.held_back import digest
from training.episodic.methods.settings import Setting, open_setting
from training.evaluate_model import open_model
from training.evaluation import Encode, encode_photos, encode_sketches
from training.generation.drawing import open_artist
from training.zero_sketch_drawn import Photos, edge_drawings, generated, kept, open_judge
from training.zero_sketch_start import Fitted, StandIns, fit
from training.zero_sketch_table import Rows, ZeroSketchConfig


@dataclass(frozen=True)
class Given:
    """Files that the commands are given."""

    data: Path
    model: Path
    cache: Path
    generator: Path | None = None
    discriminator: Path | None = None


@dataclass(frozen=True, eq=False)
class Bench:
    """A setting with the features of its measured and training categories; rows of other categories stay empty."""

    config: ZeroSketchConfig
    given: Given
    setting: Setting
    head: Head
    rows: Rows
    network: tuple[Encode, InputSpec]

    @classmethod
    def open(cls, config: ZeroSketchConfig, given: Given) -> Bench:
        """Encode what is not in the cache. Raises ConfigError, and what reading and encoding raise."""
        torch.set_num_threads(config.threads)
        encode, head, spec = open_model(given.model, config.threads)
        setting = open_setting(config.setting, given.data)
        folder, network = setting.folder, (encode, spec)
        tasks = [*setting.measured, *setting.choosing]
        of = digest(given.model), spec

        def sketches(rows: np.ndarray) -> np.ndarray:
            return encode_sketches(folder, [setting.sketches[row] for row in rows], *network)

        def photos(rows: np.ndarray) -> np.ndarray:
            return encode_photos(folder, [setting.photos[row] for row in rows], *network)

        rows = (
            _encoded(given.cache, (*of, "sketches"), [task.sketches for task in tasks], setting.sketches, sketches),
            _encoded(given.cache, (*of, "photos"), [task.gallery for task in tasks], setting.photos, photos),
        )
        return cls(config, given, setting, head, Rows(*rows), network)

    def stand_ins(self) -> dict[str, StandIns]:
        """What can be made of what was given, by the table's names. Drawings are made once for both rows that they are in."""
        config, given, folder = self.config, self.given, self.setting.folder
        wanted = np.unique(np.concatenate([task.gallery for task in (*self.setting.measured, *self.setting.choosing)]))
        photos = Photos(tuple(self.setting.photos[row] for row in wanted), folder.photo_path)
        of = (digest(given.model), self.network[1], photos.names)
        edges = kept(given.cache, (*of, config.edge_scales), lambda: edge_drawings(photos, config.edge_scales, self.network))
        found = {"photos": StandIns.of_photos(self.rows.photo_rows), "edges": replace(edges, photos=wanted[edges.photos])}
        generator = given.generator
        if generator is not None:
            judge = None if given.discriminator is None else open_judge(given.discriminator, self.network[1])
            artist = open_artist(generator, "cpu", config.threads)
            drawn = kept(
                given.cache,
                (*of, config.drawing, *(digest(path) for path in (generator, given.discriminator) if path is not None)),
                lambda: generated(artist, photos, config.drawing, self.network, judge),
            )
            drawn = replace(drawn, photos=wanted[drawn.photos])
            found["generated"] = replace(drawn, weights=np.ones_like(drawn.weights))
            if judge is not None:
                found["certain"] = drawn
        return found

    def fitted(self, stand_ins: StandIns) -> Fitted:
        """The constants, from the training categories that the backbone has not seen."""
        features = self.rows.sketch_rows, self.rows.photo_rows
        return fit(self.head, features, self.setting.choosing, stand_ins, self.config.shares, self.config.protocol)


def _encoded(
    cache: Path,
    of: tuple[object, ...],
    asked: Sequence[np.ndarray],
    names: Sequence[str],
    make: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Features [len(names),C] of the rows that are asked for, zero elsewhere."""
    own = np.unique(np.concatenate(asked))
    found = kept(cache, (*of, [names[row] for row in own]), lambda: StandIns.of(make(own), own))
    full = np.zeros((len(names), found.rows.shape[1]), np.float32)
    full[found.photos] = found.rows
    return full
