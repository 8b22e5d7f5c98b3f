"""A model to be measured: a bundle through ONNX Runtime, or a checkpoint through PyTorch."""

from __future__ import annotations

from pathlib import Path

from fgsbir_edge.bundle import Bundle
from fgsbir_edge.bundle_files import MANIFEST
from fgsbir_edge.encoder.onnx import OnnxEncoder
from fgsbir_edge.errors import BundleFormatError, BundleMissingFileError, FgsbirError
from fgsbir_edge.head import Head
from fgsbir_edge.preprocess import InputSpec
from training.evaluation import Encode, torch_encode


def open_model(path: Path, threads: int) -> tuple[Encode, Head, InputSpec]:
    """Features of a bundle folder or of a checkpoint file, its head and its input. PyTorch is loaded for checkpoints alone.

    Raises:
        BundleMissingFileError: there is nothing, or a folder that is no bundle.
        BundleFormatError, BundleHashError: not a bundle or checkpoint of this project, or a damaged one.
    """
    if not path.exists():
        raise BundleMissingFileError(f"{path}: neither a bundle folder nor a checkpoint; check --model")
    if path.is_file():
        return _open_checkpoint(path, threads)
    checkpoints = sorted(path.glob("*.safetensors"))
    if checkpoints and not (path / MANIFEST).is_file():
        raise BundleMissingFileError(f"{path}: not a bundle; for one of the checkpoints in it give --model {checkpoints[0]}")
    bundle = Bundle.load(path)
    return OnnxEncoder(bundle, threads=threads).encode, bundle.head, bundle.input


def open_sketches(path: Path, threads: int, photos: tuple[Encode, InputSpec]) -> tuple[Encode, InputSpec]:
    """What encodes the sketches of a model that ``open_model`` has opened: `photos`, or a bundle's second encoder.

    Raises what ``Bundle.load`` raises.
    """
    bundle = Bundle.load(path) if path.is_dir() else None
    if bundle is None or bundle.sketch is None:
        return photos
    return OnnxEncoder(bundle.sketch, threads=threads).encode, bundle.sketch.input


def _open_checkpoint(path: Path, threads: int) -> tuple[Encode, Head, InputSpec]:
    import torch
    from safetensors import SafetensorError

    from training.checkpoint import load_model
    from training.heads import runtime_head

    torch.set_num_threads(threads)
    try:
        encoder, _, meta = load_model(path)
        return torch_encode(encoder), runtime_head(path), InputSpec.from_manifest(meta["input"])
    except FgsbirError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise BundleFormatError(
            f"{path}: not a checkpoint that this version reads ({reason}); give a .safetensors of training or a bundle folder"
        ) from error
