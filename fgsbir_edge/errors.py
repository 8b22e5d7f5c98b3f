"""Every error this package raises on purpose: one class, one exit code, one line that names the remedy.

Command-line tools print the message and leave with ``exit_code``; libraries catch the class they care about. Codes 0, 1 and 2
keep their usual meaning (success, unexpected failure, wrong usage).
"""

from __future__ import annotations


class FgsbirError(Exception):
    """Base of all errors raised on purpose. The message is one line and says how to put things right."""

    exit_code = 1


class EmptyGalleryError(FgsbirError):
    """A search, or an adaptation, needs photos and the gallery (or the chosen category) has none."""

    exit_code = 10


class NoPairsError(FgsbirError):
    """Adaptation was asked for with zero sketch-photo pairs."""

    exit_code = 11


class EmptySketchError(FgsbirError):
    """A sketch has no line in it: no stroke, a single point, or an image without ink."""

    exit_code = 12


class NonFiniteError(FgsbirError):
    """NaN or infinity in coordinates, features or weights."""

    exit_code = 13


class SketchTooLargeError(FgsbirError):
    """A sketch has more points or strokes than the limit."""

    exit_code = 14


class TruncatedImageError(FgsbirError):
    """An image file ends before its pixels do."""

    exit_code = 15


class ImageTooLargeError(FgsbirError):
    """An image file, or the pixels it unpacks to, exceeds the budget (a decompression bomb, for instance)."""

    exit_code = 16


class UnreadableImageError(FgsbirError):
    """A file is missing, is not an image, or cannot be opened."""

    exit_code = 17


class UnknownPhotoError(FgsbirError):
    """A pair, or a request, names a photo that the gallery does not hold."""

    exit_code = 18


class BundleMissingFileError(FgsbirError):
    """A bundle folder lacks its manifest or a file the manifest names."""

    exit_code = 19


class BundleHashError(FgsbirError):
    """A bundle file does not match the hash in the manifest."""

    exit_code = 20


class BundleFormatError(FgsbirError):
    """A bundle's manifest or tensors are not what this version reads."""

    exit_code = 21


class AdapterMismatchError(FgsbirError):
    """An adapter was made for another head."""

    exit_code = 22


class AdapterFormatError(FgsbirError):
    """A file is not an adapter, or is damaged."""

    exit_code = 23


class GalleryMismatchError(FgsbirError):
    """A gallery was indexed with another encoder."""

    exit_code = 24


class GalleryFormatError(FgsbirError):
    """A file is not a gallery of this version, or is damaged."""

    exit_code = 25


class ShardFormatError(FgsbirError):
    """A file is not a shard of encoded photos, is damaged, or shards of its run are missing."""

    exit_code = 60


class SketchFormatError(FgsbirError):
    """A sketch file or array is not in the format it claims, or its format is unknown."""

    exit_code = 26


class PairsFormatError(FgsbirError):
    """A pairs table (or SKETCH=PHOTO argument) cannot be read."""

    exit_code = 27


class ShapeError(FgsbirError):
    """An array has the wrong shape or dtype for the operation or the model."""

    exit_code = 28


class NativeMissingError(FgsbirError):
    """The compiled core is not importable."""

    exit_code = 29


class OutputError(FgsbirError):
    """A result could not be written; nothing half-written is left."""

    exit_code = 30


class DeviceError(FgsbirError):
    """No GPU can be used, CUDA refused, or an array does not lie on the GPU where it is needed."""

    exit_code = 31


class TensorrtMissingError(FgsbirError):
    """TensorRT's Python module cannot be imported, or is older than 10.3."""

    exit_code = 32


class EngineBuildError(FgsbirError):
    """TensorRT does not read an ONNX file, or does not build an engine from it."""

    exit_code = 33


class EngineCacheError(FgsbirError):
    """The folder of built engines is not private to this user, or cannot be used."""

    exit_code = 34


class FaissMissingError(FgsbirError):
    """A search through faiss was asked for, and its Python module cannot be imported."""

    exit_code = 35


class UnknownPersonError(FgsbirError):
    """A gallery knows no person of that name, or the person has shown nothing that could be undone."""

    exit_code = 36


class PersonFormatError(FgsbirError):
    """A file is not an exported person, is damaged, or belongs to another encoder."""

    exit_code = 37


class FilterError(FgsbirError):
    """A filter of photos cannot be read, or compares what a key holds with a value of another kind."""

    exit_code = 50


class MetadataError(FgsbirError):
    """Metadata of photos, or a table of it, is not what a gallery can hold."""

    exit_code = 51


class NoStartError(FgsbirError):
    """A zero-sketch start was asked of a bundle that has none."""

    exit_code = 38


class ServeError(FgsbirError):
    """The server cannot start: its packages are missing, or it cannot listen where it should."""

    exit_code = 39


class QdrantMissingError(FgsbirError):
    """A fleet's collection was asked for, and the Python module qdrant_client cannot be imported."""

    exit_code = 52


class FleetUnavailableError(FgsbirError):
    """A fleet's server cannot be reached, does not answer in time, or refuses."""

    exit_code = 53


class FleetMismatchError(FgsbirError):
    """A fleet's collection is missing, is not one of this package, or was published with another encoder or head."""

    exit_code = 54
