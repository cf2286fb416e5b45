"""Operators whose class in ``onnx.reference`` would let a model, a plan or an input do harm: the same, guarded.

Images are decoded in the formats that ONNX names and in no other (Pillow would start programs for some); regular expressions
run on RE2, whose time is linear. The adapter alone imports this, when a node first runs; nothing else may load ``onnx``.
"""

import io
from typing import Any

import numpy as np
from onnx.reference.ops import load_op

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array
from miniinfer_cli.limits import IMAGE_PIXELS, Limits

_FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that ONNX ImageDecoder-20 lists; PPM stands for all portable ones."""

_CHANNELS = {"RGB": 3, "BGR": 3, "Grayscale": 1}


def _class(op: str) -> Any:
    return load_op("", op, version=None)


class ImageDecoder(_class("ImageDecoder")):  # type: ignore[misc]
    """[height, width, channels] of u8; no pixels at all where the bytes are no image, as the operator demands."""

    limits: Limits

    def _run(self, encoded: Array, pixel_format: str = "RGB") -> tuple[Array]:
        channels = _CHANNELS.get(pixel_format)
        if channels is None:
            raise ModelError(f"ImageDecoder pixel_format is {pixel_format!r}, expected one of {', '.join(_CHANNELS)}")
        import PIL.Image

        try:
            with PIL.Image.open(io.BytesIO(np.ascontiguousarray(encoded).tobytes()), formats=_FORMATS) as image:
                width, height = image.size
                too_large = width * height > self.limits.of(IMAGE_PIXELS)
                pixels = None if too_large else np.asarray(image.convert("RGB" if channels == 3 else "L"))
        except MemoryError:
            raise
        except Exception:  # a decoder of damaged data raises whatever it likes; the operator gives an empty image
            return (np.zeros((0, 0, channels), np.uint8),)
        if pixels is None:
            raise self.limits.refusal(IMAGE_PIXELS, f"ImageDecoder: an image of {width} x {height}", width * height)
        pixels = pixels.reshape(height, width, channels)
        return (np.ascontiguousarray(pixels[:, :, ::-1] if pixel_format == "BGR" else pixels),)


class RegexFullMatch(_class("RegexFullMatch")):  # type: ignore[misc]
    """bool of the shape of ``x``: whether the pattern, in RE2's syntax, matches the whole string."""

    def _run(self, x: Array, pattern: str | None = None) -> tuple[Array]:
        import re2

        options = re2.Options()
        options.log_errors = False
        try:
            matcher = re2.compile(pattern or "", options)
        except re2.error as error:
            text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            raise ModelError(f"RegexFullMatch: the pattern {pattern!r} is no regular expression of RE2: {text}") from None
        found = [matcher.fullmatch(str(item)) is not None for item in x.reshape(-1)]
        return (np.array(found, bool).reshape(x.shape),)


def guarded(limits: Limits) -> tuple[Any, ...]:
    """The classes, which stand for those of the same names, within these limits."""
    return (type("ImageDecoder", (ImageDecoder,), {"limits": limits}), RegexFullMatch)
