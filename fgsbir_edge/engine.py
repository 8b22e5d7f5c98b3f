"""``Engine``: what an application holds. Encode, index, search, adapt; the rooms below do the work."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsbir_edge.adapt import AdaptOptions, AdaptResult, adapt
from fgsbir_edge.arrays import Float32
from fgsbir_edge.bundle import Bundle
from fgsbir_edge.candidates import Guarded, sampled
from fgsbir_edge.confidence import Answer, answer, wanted
from fgsbir_edge.encoder import DeviceEncoder, Encoder
from fgsbir_edge.encoder.shifts import encode_shifted
from fgsbir_edge.errors import AdapterMismatchError
from fgsbir_edge.gallery import AddReport, Gallery
from fgsbir_edge.gallery.flat import CHUNK
from fgsbir_edge.gallery.folder import Category, OnError
from fgsbir_edge.gallery.search import Categories
from fgsbir_edge.gallery.store import MEMORY
from fgsbir_edge.head import Adapter, Head
from fgsbir_edge.preprocess import InputSpec, as_sketch, open_photo, photo_batch, sketch_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgsbir_edge.feedback import Feedback, Learner
    from fgsbir_edge.formats.drawing import Drawing
    from fgsbir_edge.gallery.filters import Where
    from fgsbir_edge.sketch import Sketch
    from fgsbir_edge.strokes_cuda import StrokesEncoder

    SketchLike = Sketch | Drawing | str | os.PathLike[str] | Image | NDArray[np.uint8]
    PhotoLike = str | os.PathLike[str] | Image | NDArray[np.uint8]

_log = logging.getLogger(__name__)

BATCH = 32  # sketches or photos made into pixels at a time; bounds memory


class Engine:
    """A bundle, its encoder, and a gallery. Use from one thread; close it, or use it in a ``with`` block."""

    def __init__(
        self, bundle: Bundle, encoder: Encoder, gallery: Gallery, *, threads: int = 1, sketch_encoder: Encoder | None = None
    ) -> None:
        """``encoder`` is for photos, and for sketches too unless the bundle has a second one for them.

        ``sketch_encoder`` runs that second one; None opens it on ONNX Runtime, with so many ``threads``.
        """
        self.bundle, self.gallery = bundle, gallery
        self.confidence = bundle.confidence  # may be set, to another absent_share say; None: answers without confidence
        self.skipped: list[tuple[str, str]] = []  # (name, message) of photos that indexing could not read
        self._encoder, self._threads, self._guarded = encoder, threads, Guarded()
        self._sketch_encoder = _for_sketches(bundle, encoder, threads) if sketch_encoder is None else sketch_encoder
        self._strokes = strokes_encoder(bundle.for_sketches, self._sketch_encoder)

    @classmethod
    def open(
        cls,
        *,
        photos: str | os.PathLike[str] | None = None,
        gallery: str | os.PathLike[str] | None = None,
        bundle: Bundle | str | os.PathLike[str] | None = None,
        threads: int | None = None,
        create: bool = False,
        backend: str = "auto",
        variant: str = "fp32",
    ) -> Engine:
        """Open a bundle (None: the one in the package) over a gallery file, a folder of photos, or both.

        ``gallery`` alone must exist, unless ``create``. With ``photos`` too it is made where missing and brought up to date.
        ``photos`` alone is indexed into memory and forgotten on close: nothing is written, at a few milliseconds a photo. Photos
        that cannot be read are left out and listed in ``skipped``. ``threads`` None takes the cores there are, at most 4.

        ``backend`` "auto" takes what ``fgsbir-edge bench`` has chosen on this machine, variant and all, and ONNX Runtime on the
        processor where it has not been run; the logger ``fgsbir_edge`` tells. Otherwise it is a name of
        ``encoder.backends.BACKENDS``, which then must work, with this ``variant`` of the bundle. Of a bundle with two encoders
        the one that lacks the variant runs as fp32.
        Raises what Bundle.load, open_encoder, Gallery.open and Gallery.add_folder raise.
        """
        from fgsbir_edge.encoder.backends import Setting, open_encoder
        from fgsbir_edge.encoder.choose import open_chosen
        from fgsbir_edge.encoder.onnx import default_threads

        model = bundle if isinstance(bundle, Bundle) else Bundle.default() if bundle is None else Bundle.load(bundle)
        workers = default_threads() if threads is None else threads
        # before the gallery: a bundle that cannot run must not leave a file behind. Of two encoders that of photos can wait
        # where nothing is indexed: those who only search never need it, and it takes 45 MiB
        drawn = model.for_sketches
        deferred = drawn is not model and photos is None and not create
        if backend == "auto":
            encoder = open_chosen(model, threads, deferred=deferred)
            own = encoder if drawn is model else open_chosen(drawn, threads)
        else:
            encoder = open_encoder(model, Setting(backend, model.nearest(variant), workers), deferred=deferred)
            own = encoder if drawn is model else open_encoder(drawn, Setting(backend, model.nearest(variant, drawn), workers))
        if gallery is not None and photos is None and not create:
            store = Gallery.open(gallery, model)
        else:
            store = Gallery.open_or_create(MEMORY if gallery is None else gallery, model)
        engine = cls(model, encoder, store, threads=workers, sketch_encoder=own)
        if photos is not None:
            try:
                engine.index(photos)
            except BaseException:
                store.close()
                raise
        return engine

    def close(self) -> None:
        """Close the gallery."""
        self.gallery.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def head(self) -> Head:
        """The base head."""
        return self.bundle.head

    @property
    def encoder(self) -> Encoder:
        """What runs the network; its ``name`` says where. Of two encoders that of photos."""
        return self._encoder

    @property
    def sketch_encoder(self) -> Encoder:
        """What runs the network for sketches: ``encoder`` itself, unless the bundle has two."""
        return self._sketch_encoder

    @property
    def input(self) -> InputSpec:
        """What the encoder sees; of two encoders that of photos."""
        return self.bundle.input

    @property
    def sketch_input(self) -> InputSpec:
        """What the encoder of sketches sees of them."""
        return self.bundle.for_sketches.input

    def encode_sketches(self, sketches: Sequence[SketchLike]) -> Float32:
        """Features [B, C] of sketches: Sketch, Drawing, path, PIL image or image array uint8 [H, W(, 3 or 4)].

        Raises what the readers raise: EmptySketchError, NonFiniteError, SketchTooLargeError, UnreadableImageError and others.
        """
        rows = [np.empty((0, self.head.features), np.float32)]
        for start in range(0, len(sketches), BATCH):
            items = [as_sketch(source) for source in sketches[start : start + BATCH]]
            rows.append(self._encode_items(items))
        return np.concatenate(rows)

    def _encode_items(self, items: list[Sketch | Drawing]) -> Float32:
        """Vector sketches are drawn where the network runs; anything else is made into pixels here."""
        from fgsbir_edge.sketch import Sketch

        vectors = [item for item in items if isinstance(item, Sketch)]
        if self._strokes is not None and len(vectors) == len(items):
            return self._strokes.encode(vectors)
        return self._sketch_encoder.encode(sketch_pixels(items, self.sketch_input, threads=self._threads))

    def encode_photos(self, photos: Sequence[PhotoLike]) -> Float32:
        """Features [B, C] of photos: paths, PIL images or arrays uint8 [H, W, 3]. Raises UnreadableImageError and its kin."""
        from PIL import Image

        from fgsbir_edge.photo import photo_pixels

        rows = [np.empty((0, self.head.features), np.float32)]
        for start in range(0, len(photos), BATCH):
            images = []
            for photo in photos[start : start + BATCH]:
                if isinstance(photo, (str, os.PathLike)):
                    image = open_photo(photo, self.input)
                else:
                    image = Image.fromarray(photo) if isinstance(photo, np.ndarray) else photo
                images.append(photo_pixels(image, self.input.size, self.input.photo_fit))
            rows.append(self.encode_pixels(images))
        return np.concatenate(rows)

    def encode_pixels(self, images: Sequence[NDArray[np.uint8]]) -> Float32:
        """Features [B, C] of photos already brought to the encoder's size, uint8 [S, S, 3] each."""
        return encode_shifted(self._encoder.encode, photo_batch(images, self.input), self.input.photo_shift)

    def index(
        self,
        folder: str | os.PathLike[str],
        *,
        recursive: bool = True,
        category: Category = "folder",
        progress: bool | None = None,
        on_error: OnError | None = None,
    ) -> AddReport:
        """Add a folder's photos to the gallery; see ``Gallery.add_folder``. What is skipped is also kept in ``skipped``."""
        report = self.gallery.add_folder(
            self, folder, recursive=recursive, category=category, progress=progress, on_error=on_error
        )
        self.skipped += [(name, str(error)) for name, error in report.failed]
        return report

    def search(
        self,
        sketch: SketchLike,
        k: int = 10,
        *,
        adapter: Adapter | None = None,
        person: str | None = None,
        category: Categories = None,
        where: Where | Sequence[Where] | None = None,
        none_below: float | None = None,
    ) -> Answer:
        """The k photos nearest to a sketch, nearest first; with ``person`` by what ``feedback`` has learned of them.

        ``category`` (one or several) and ``where`` (``gallery/filters.py``) leave photos out. Hits come with a confidence, and
        the answer says whether the photo meant is among those searched at all: ``known`` is False below the probability
        ``none_below`` (None: the model's own). Raises EmptyGalleryError, FilterError, UnknownPersonError and what
        ``encode_sketches`` raises.
        """
        if person is not None:
            adapter = self.learner.adapter(person)
        features = self.encode_sketches([sketch])
        return self.search_features(features, k, adapter=adapter, category=category, where=where, none_below=none_below)

    def search_features(
        self,
        features: Float32,
        k: int = 10,
        *,
        adapter: Adapter | None = None,
        category: Categories = None,
        where: Where | Sequence[Where] | None = None,
        none_below: float | None = None,
    ) -> Answer:
        """The same for what ``encode_sketches`` gave for one sketch, float32 [1, feature_dim]."""
        width = wanted(k, self.confidence)
        hits = self.gallery.search(features, width, head=self.head, adapter=adapter, category=category, where=where)[0]
        return answer(hits, k, self.confidence, adapter=adapter, none_below=none_below)

    def adapt(
        self,
        pairs: Sequence[tuple[SketchLike, str | os.PathLike[str]]],
        *,
        options: AdaptOptions | None = None,
        category: str | None = None,
        start: Adapter | None = None,
    ) -> AdaptResult:
        """Learn an adapter from (sketch, photo) pairs; a photo is a name in the gallery or a file.

        Negatives and the guard's candidates come from the gallery (from ``category`` alone when given). ``start`` is what
        ``start_category`` gave for these pairs' category, and fades as pairs come. Raises NoPairsError, UnknownPhotoError with
        the nearest names, and what ``encode_sketches`` and ``zero_sketch.handed_over`` raise.
        """
        photos = self.photo_features([photo for _, photo in pairs])  # first: a misspelt name should not cost an encoding
        return self.adapt_features(
            self.encode_sketches([sketch for sketch, _ in pairs]), photos, options=options, category=category, start=start
        )

    def adapt_features(
        self,
        sketches: ArrayLike,
        photos: ArrayLike,
        *,
        options: AdaptOptions | None = None,
        category: str | None = None,
        start: Adapter | None = None,
    ) -> AdaptResult:
        """``adapt`` from features [k, C] of the sketches and of their photos."""
        options = options or AdaptOptions()
        index = self.gallery.index
        negatives = None
        if category is not None and index.entries:
            index.select(category)  # a misspelt one is an error, whether its photos are needed or not
        if options.recipe(self.head).negatives == "gallery" and index.entries:
            named = {row.tobytes() for row in np.asarray(photos, np.float32)}
            found = index.features(sampled(index.select(category))[: options.max_negatives + len(named)])
            negatives = [row for row in found if row.tobytes() not in named][: options.max_negatives]
        result = adapt(
            self.head,
            sketches,
            photos,
            negatives_features=negatives,
            candidates=self._guarded.candidates(self.head, index, category) if options.guard else None,
            options=options,
        )
        if start is not None:
            from fgsbir_edge.zero_sketch import handed_over

            result = handed_over(self.head, start, result)
        return replace(result, adapter=self.signed(result.adapter))

    def start_category(self, category: str | None = None) -> Adapter:
        """The zero-sketch start of a category (None: of the whole gallery as one): an adapter from its photos alone.

        It holds for the photos that are there now; a mean over stored features is cheap, so make it anew when photos come or go.
        Raises NoStartError where the bundle has none, EmptyGalleryError.
        """
        from fgsbir_edge.zero_sketch import start_adapter

        index = self.gallery.index
        places = index.select(category)
        blocks = (index.features(places[first : first + CHUNK]) for first in range(0, len(places), CHUNK))
        return self.signed(start_adapter(self.head, blocks, category))

    def signed(self, adapter: Adapter) -> Adapter:
        """An adapter that says what it was made with."""
        meta = {**adapter.meta, "bundle": self.bundle.name, "features_digest": self.bundle.pairs_digest}
        return replace(adapter, meta=meta)

    @property
    def learner(self) -> Learner:
        """What the gallery's people have shown: to show more, to undo, to import."""
        from fgsbir_edge.feedback import Learner

        return Learner(self)

    def feedback(self, sketch: SketchLike, photo: str, *, person: str) -> Feedback:
        """Note in the gallery's file that ``person`` meant ``photo`` by ``sketch``, and learn from all that they have shown.

        Raises what ``Learner.show`` raises.
        """
        return self.learner.show(person, sketch, photo)

    def photo_features(self, photos: Sequence[str | os.PathLike[str]]) -> Float32:
        """Features [n, C] of photos named as in the gallery, by the path they were indexed from, or of files outside it.

        Raises UnknownPhotoError with the nearest names.
        """
        rows = []
        for photo in photos:
            name = self.gallery.name_of(photo)
            if name is not None:
                rows.append(self.gallery.features([name]))
            elif os.path.isfile(photo):
                rows.append(self.encode_photos([photo]))
            else:
                raise self.gallery.unknown(os.fspath(photo))
        return np.concatenate(rows) if rows else np.empty((0, self.head.features), np.float32)

    def load_adapter(self, path: str | os.PathLike[str]) -> Adapter:
        """Read an adapter of this bundle. Raises AdapterFormatError, and AdapterMismatchError for another head or encoder."""
        adapter = Adapter.load(path, self.head)
        made_with = adapter.meta.get("features_digest", self.bundle.features_digest)
        if made_with != self.bundle.pairs_digest:
            raise AdapterMismatchError(
                f"{path}: made with another encoder ({made_with[:12]}) than that of bundle {self.bundle.name!r} "
                f"({self.bundle.pairs_digest[:12]}); use the bundle it was made with, or adapt again"
            )
        return adapter


def _for_sketches(bundle: Bundle, encoder: Encoder, threads: int) -> Encoder:
    """The encoder of sketches where none is given."""
    if bundle.sketch is None:
        return encoder
    from fgsbir_edge.encoder.onnx import OnnxEncoder

    return OnnxEncoder(bundle.sketch, threads)


def strokes_encoder(bundle: Bundle, encoder: Encoder) -> StrokesEncoder | None:
    """The rasteriser in front of an encoder on a GPU, where this installation has device code."""
    if not hasattr(encoder, "stream"):
        return None
    from fgsbir_edge.device import cuda
    from fgsbir_edge.errors import DeviceError
    from fgsbir_edge.strokes_cuda import StrokesEncoder

    try:
        cuda()
    except DeviceError as error:
        _log.info("sketches are drawn on the processor: %s", error)
        return None
    return StrokesEncoder(cast("DeviceEncoder", encoder), bundle.input)
