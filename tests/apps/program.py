"""One program on made inputs: ``python program.py NAME``, over whatever ``onnxruntime`` is in this process.

It prints JSON: ``over``, the package that ``onnxruntime`` is; ``results``, of each input; ``seconds``, the processor's time of
each call behind the first; ``first_s``, that of the process up to its first result. Nothing of miniinfer's is imported here.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

COUNT = 20
WORDS = ("invoice", "Total 42", "Hello", "miniinfer", "2026-11-30", "QUEUE", "north", "pay now", "exit", "Zebra 9")


def picture(text: str, size: tuple[int, int], seed: int, *, font_size: int = 28, noise: int = 12) -> Any:
    """Text on a light ground with some noise."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(c) for c in rng.integers(200, 255, 3)))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(font_size)
    place = (int(rng.integers(4, 20)), int(rng.integers(2, max(size[1] - 2 * font_size, 4))))
    draw.text(place, text, fill=tuple(int(c) for c in rng.integers(0, 90, 3)), font=font)
    pixels = np.asarray(image).astype(np.int16) + rng.integers(-noise, noise + 1, (size[1], size[0], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def magika() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """What kind of file these bytes are."""
    from magika import Magika

    known = Magika()

    def identify(contents: bytes) -> Any:
        found = known.identify_bytes(contents)
        return [str(found.output.label), {"near": float(found.score)}]

    return identify, contents()


def contents() -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    lines = {
        "python": "import os\n\n\ndef f{n}(a, b):\n    return os.path.join(a, str(b))\n\n",
        "json": '{{"name": "item {n}", "price": {n}.5, "tags": ["a", "b"]}}\n',
        "html": "<html><head><title>{n}</title></head><body><p class='x'>text</p></body></html>\n",
        "c": "#include <stdio.h>\nint main{n}(void) {{ printf(\"%d\\n\", {n}); return 0; }}\n",
        "shell": "#!/bin/sh\nset -e\nfor f in *.txt; do echo \"$f\" {n}; done\n",
        "csv": "id,name,value\n{n},alpha,1.5\n{n},beta,2.5\n",
        "markdown": "# Title {n}\n\n- one\n- two\n\n```python\nx = {n}\n```\n",
        "sql": "SELECT a, b FROM t{n} WHERE id = {n} ORDER BY a;\n",
    }  # fmt: skip
    for number in range(COUNT - 4):
        text = list(lines.values())[number % len(lines)]
        yield "".join(text.format(n=n) for n in range(2 + 9 * number)).encode()
    yield png(picture("x", (64, 64), 0))
    yield rng.integers(0, 256, 5000).astype(np.uint8).tobytes()
    yield b"PK\x03\x04" + rng.integers(0, 256, 800).astype(np.uint8).tobytes()
    yield b"plain words that mean little. " * 40


def rapidocr() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """The lines of a picture: text, and where it is."""
    from rapidocr_onnxruntime import RapidOCR

    reader = RapidOCR()

    def read(image: Any) -> Any:
        lines, _ = reader(image)
        return [[text, {"box": np.asarray(box).tolist()}, {"near": float(score)}] for box, text, score in lines or ()]

    return read, (np.asarray(picture(WORDS[i % 10] + f" {i}", (320, 96), i)) for i in range(COUNT))


def silero() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """Where in a sound somebody speaks."""
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    torch.set_num_threads(1)
    model = load_silero_vad(onnx=True)

    def find(sound: Any) -> Any:
        model.reset_states()
        chunk = [{"near": float(model(sound[i : i + 512], 16000))} for i in range(0, 512 * 8, 512)]
        return [get_speech_timestamps(sound, model, sampling_rate=16000, threshold=0.3), chunk]

    return find, (torch.from_numpy(sound(i)) for i in range(COUNT))


def sound(seed: int) -> Any:
    """A second and a half: a voice's harmonics through moving formants, in syllables, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(24000) / 16000
    pitch = 110 + 60 * rng.random() + 20 * np.sin(2 * np.pi * (1 + rng.random()) * t)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    formants = [
        (500 + 200 * np.sin(2 * np.pi * 3 * t + seed), 90),
        (1500 + 400 * np.cos(2 * np.pi * 2 * t), 140),
        (2500 + 0 * t, 200),
    ]
    voice = np.zeros_like(t)
    for k in range(1, 30):
        gain = sum(np.exp(-(((k * pitch - f) / w) ** 2)) for f, w in formants) + 0.02 / k
        voice += gain * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * t + rng.random()), 0, 1) * ((t > 0.3) & (t < 1.2))
    return (0.3 * voice * syllables + 0.003 * rng.normal(size=t.size)).astype(np.float32)


def nudenet() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """Parts of bodies in a picture, and where they are."""
    from nudenet import NudeDetector

    detector = NudeDetector()

    def detect(image: Any) -> Any:
        return [[d["class"], {"box": list(d["box"])}, {"near": float(d["score"])}] for d in detector.detect(image)]

    return detect, (face(i) for i in range(COUNT))


def face(seed: int) -> Any:
    """A face and shoulders, drawn."""
    from PIL import Image, ImageDraw, ImageFilter

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (400, 400), tuple(int(c) for c in rng.integers(80, 230, 3)))
    draw = ImageDraw.Draw(image)
    x, y, r = int(rng.integers(150, 250)), int(rng.integers(110, 170)), int(rng.integers(50, 80))
    skin = (224, 172, 140)
    draw.ellipse((x - 2 * r, y + r, x + 2 * r, y + 5 * r), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
    draw.rectangle((x - r // 3, y + r // 2, x + r // 3, y + 3 * r // 2), fill=skin)
    draw.ellipse((x - r, y - int(1.3 * r), x + r, y + int(1.3 * r)), fill=skin)
    draw.chord((x - r, y - int(1.4 * r), x + r, y + r // 3), 180, 360, fill=(60, 40, 30))
    for side in (-1, 1):
        e = x + side * r // 2
        draw.ellipse((e - r // 6, y - r // 10, e + r // 6, y + r // 10), fill="white")
        draw.ellipse((e - r // 14, y - r // 12, e + r // 14, y + r // 12), fill="black")
    draw.polygon((x, y, x - r // 8, y + r // 2, x + r // 8, y + r // 2), fill=(200, 150, 120))
    draw.chord((x - r // 3, y + r // 2, x + r // 3, y + r), 0, 180, fill=(190, 60, 70))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(2)))[:, :, ::-1].copy()


def ddddocr() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """The characters of a captcha."""
    import ddddocr as package

    reader = package.DdddOcr(show_ad=False)
    return reader.classification, (png(picture(letters(i), (160, 60), i, noise=25)) for i in range(COUNT))


def ddddocr_boxes() -> tuple[Callable[[Any], Any], Iterator[Any]]:
    """Where in a picture something is to be clicked."""
    import ddddocr as package

    finder = package.DdddOcr(det=True, ocr=False, show_ad=False)

    def find(contents: bytes) -> Any:
        return sorted([{"box": list(box)} for box in finder.detection(contents)], key=str)

    return find, (png(picture("  ".join(letters(i)), (300, 160), i, font_size=40)) for i in range(COUNT))


def letters(seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("abcdefhkmnprstwxyz23456789"), 5))


PROGRAMS = {f.__name__: f for f in (magika, rapidocr, silero, nudenet, ddddocr, ddddocr_boxes)}


def one_thread() -> None:
    """Every session computes with one thread, whichever package it is of: threads that wait for work would be counted as well."""
    import onnxruntime

    make = onnxruntime.InferenceSession.__init__

    def made(self: Any, model: Any, sess_options: Any = None, *more: Any, **named: Any) -> None:
        options = sess_options if sess_options is not None else onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        make(self, model, options, *more, **named)

    onnxruntime.InferenceSession.__init__ = made


def main(name: str) -> None:
    one_thread()
    compute, inputs = PROGRAMS[name]()
    results, seconds, first_s = [], [], 0.0
    for number, item in enumerate(inputs):
        started = time.process_time()
        results.append(compute(item))
        if number:
            seconds.append(time.process_time() - started)
        else:
            first_s = time.process_time()
    over = sys.modules["onnxruntime"].__name__
    print(json.dumps({"over": over, "results": results, "seconds": seconds, "first_s": first_s}, default=str))


if __name__ == "__main__":
    main(sys.argv[1])
