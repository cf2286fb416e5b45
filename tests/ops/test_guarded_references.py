"""Images and regular expressions from anywhere do no harm, and give what the operators say."""

import io
import time

import numpy as np
import PIL.Image
import pytest
from onnx import helper

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.limits import Limits
from miniinfer_cli.ops.interpreter import interpret
from tests.ops.test_onnx_reference import adapted, text

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[0, 0, 0], [90, 90, 90]]], np.uint8)
LOSSLESS = {"BMP": {}, "PNG": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}, "JPEG2000": {}}


def encoded(format, mode="RGB", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(COLOURS).convert(mode).save(file, format, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def decode(data, pixel_format="RGB", limits=None):
    node = helper.make_node("ImageDecoder", ["x"], ["y"], pixel_format=pixel_format)
    graph = adapted(node, [TensorType(DType.U8, (len(data),))], [TensorType(DType.U8)])
    graph.budget.limits = limits or graph.budget.limits
    return interpret(graph, [data])[0]


@pytest.mark.parametrize("format", LOSSLESS)
def test_the_formats_that_onnx_names(format):
    data = encoded(format, **LOSSLESS[format])
    np.testing.assert_array_equal(decode(data), COLOURS)
    np.testing.assert_array_equal(decode(data, "BGR"), COLOURS[:, :, ::-1])
    grey = decode(data, "Grayscale")
    assert grey.shape == (3, 2, 1) and grey[1, 1, 0] == 255 and grey[2, 1, 0] == 90


def test_jpeg_is_near():
    assert abs(decode(encoded("JPEG", quality=100, subsampling=0)).astype(int) - COLOURS).max() < 8


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "1"])
def test_other_modes_become_colour(mode):
    assert decode(encoded("PNG", mode)).shape == (3, 2, 3)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n"


@pytest.mark.parametrize("case", ["eps", "gif", "nothing", "noise", "cut"])
def test_what_is_no_such_image_is_empty(case, tmp_path, monkeypatch):
    data = {
        "eps": lambda: np.frombuffer(EPS, np.uint8),  # Pillow hands it to Ghostscript
        "gif": lambda: encoded("GIF"),
        "nothing": lambda: np.zeros(0, np.uint8),
        "noise": lambda: np.arange(200, dtype=np.uint8),
        "cut": lambda: encoded("PNG")[:-30],
    }[case]()
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for pixel_format, channels in (("RGB", 3), ("Grayscale", 1)):
        y = decode(data, pixel_format)
        assert (y.shape, y.dtype) == ((0, 0, channels), np.uint8)
    assert not (tmp_path / "started").exists()


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(ModelError, match="2 x 3: 6 pixels, the limit image_pixels is 5"):
        decode(encoded("PNG"), limits=Limits({"image_pixels": 5}))


def match(pattern, *strings):
    node = helper.make_node("RegexFullMatch", ["x"], ["y"], pattern=pattern)
    graph = adapted(node, [TensorType(DType.STR, (len(strings),))], [TensorType(DType.BOOL, (len(strings),))])
    return interpret(graph, [text(*strings)])[0].tolist()


def test_regular_expressions():
    assert match("a+b", "aab", "aabc", "", "ü") == [True, False, False, False]
    assert match("[^a]*ü?", "xyü", "a") == [True, False]
    assert match("", "", "a") == [True, False]


def test_no_pattern_takes_long():
    started = time.process_time()
    assert match("(a+)+$", "a" * 5000 + "!", "a" * 5000) == [False, True]
    assert time.process_time() - started < 2


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1"])
def test_what_re2_does_not_take_is_refused_by_name(pattern):
    with pytest.raises(ModelError, match=r"RegexFullMatch: the pattern .* is no regular expression of RE2"):
        match(pattern, "a")
