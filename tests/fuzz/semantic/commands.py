"""Command lines: any flags of any command with any words, over files that are there and files that are not."""

import random
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from miniinfer_cli.cli import flag_values
from miniinfer_cli.cli.commands import cli
from miniinfer_cli.cli.trtexec.flags import FLAGS
from tests.fuzz.semantic import seeds

_WORDS = (
    "", "-", "--", "x", "y", "m.onnx", "m.plan", "nosuch", "x.npy", "out", ".", "..", "/dev/null", "/dev/full", "x=x.npy", "x=",
    "=", "x:1x4", "x:", ":1", "x:0", "x:-1x4", "x:1x4,y:2", "x:9999999999999999999x4", "0", "1", "2", "-1", "3.5", "nan", "inf",
    "1e400", "9" * 30, "cpu", "cuda", "cuda:0", "cuda:99", "auto", "sm_90", "sm_1", "fold_constants", "all", "käse", "a b",
    "x" * 300, "90,99", "101", ",", "@m.onnx", "x:2x4", "batch:2", "json", "onnx", "os", "1 2", "\t",
)  # fmt: skip
_VALUES = ("x:3x4x5", "'x':3x4", "*:1x4", "x:scalar", "x:x.npy", "fp16:chw", "a:fp32", "workspace:64M", "obey", "detailed", "5")
# What a word may make as long as it likes; a case ends with these.
_SHORT = ("--iterations", "1", "--duration", "0", "--warmup", "0")
_SHORT_PAIRS = ("--pairs", "2", "--duration", "0.001", "--warmup", "0")
_LASTING = {"iterations", "duration", "warmup", "streams", "pairs"}
# Commands that get a plan to read: not `serve`, which would not end.
_OF_PLANS = {"run", "profile", "inspect", "tune", "compare", "template", "report"}
# What commands are of; those that are not here read a plan.
_OPERANDS: dict[str, Sequence[Sequence[str]]] = {
    "build": (("m.onnx",),), "inspect": (("m.onnx",), ("m.plan",)), "compare": (("m.plan", "m.plan"),), "devices": ((),),
    "template": (("triton", "m.plan", "-o", "out"),), "completion": (("bash",), ("zsh",), ("fish",)),
    "report": (("run.json",), ("run.json", "run.json")),
}  # fmt: skip
# What flags of a type take, of models whose input is x [3,4,5].
_TAKEN: dict[type[click.ParamType], Sequence[str]] = {
    flag_values.ShapesParam: ("x:3x4x5", "*:3x4x5", "x:1x4"),
    flag_values.InputParam: ("x=x.npy",),
    flag_values.PercentilesParam: ("90,99", "50"),
    flag_values.BytesParam: ("2G", "500000000"),
    flag_values.TacticParam: ("y=gemm", "*=gemm"),
    flag_values.TypeParam: ("f16", "f32", "x:f16"),
    flag_values.SizesParam: ("batch=1,8",),
    flag_values.CountsParam: ("1", "1,2"),
    flag_values.LimitParam: ("function_nodes=9",),
    click.Path: ("out.json", "out", "m.plan", "x.npy"),
}


def commands_on_files(rng: random.Random, folder: Path) -> list[list[str]]:
    """A random command line, behind the commands that make what it reads."""
    words = _command_line(rng, folder)
    before = [["build", "m.onnx", "-q"]] if words[0] in _OF_PLANS or "--loadEngine=m.plan" in words else []
    if words[0] == "report":
        before.append(["run", "m.plan", "-q", "--json", "run.json", *_SHORT])
    return [*before, words]


def _command_line(rng: random.Random, folder: Path) -> list[str]:
    """The arguments; ``folder``, where they are to run, gets the files that they may name."""
    seed = rng.choice([s for s in seeds.suite_models() if s.name in _SIMPLE])
    (folder / "m.onnx").write_bytes(seed.data)
    np.save(folder / "x.npy", np.zeros((3, 4, 5), np.float32))
    context = click.Context(cli)
    name = rng.choice(cli.list_commands(context)) if rng.random() < 0.97 else rng.choice(_WORDS)
    command = cli.get_command(context, name) if name in cli.list_commands(context) else None
    if name == "trtexec":
        return [name, *_words_of_trtexec(rng)]
    words = [name]
    flags = [p for p in command.params if isinstance(p, click.Option)] if command is not None else []
    if rng.random() < 0.95:
        words += rng.choice(_OPERANDS.get(name, (("m.plan",),)))
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        if rng.random() < (0.05 if flags else 0.3):
            words.append(rng.choice(_WORDS))
            continue
        if not flags:
            continue
        flag = rng.choice(flags)
        words.append(rng.choice(flag.opts))
        if not flag.is_flag and rng.random() < 0.97:
            words.append(rng.choice(("0", "1", "2", "-1", "x", "1e9999")) if flag.name in _LASTING else _word_for(rng, flag))
    if name == "compare":  # which takes 20 s unasked
        return [*words, *_SHORT_PAIRS]
    return [*words, *_SHORT] if name in ("run", "profile") and rng.random() < 0.97 and "--duration" not in words else words


def _words_of_trtexec(rng: random.Random) -> list[str]:
    """Flags that trtexec has, with values or with none, and words."""
    words = [rng.choice(("--onnx=m.onnx", "--onnx=m.onnx", "--loadEngine=m.plan", rng.choice(_WORDS)))]
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        name = rng.choice([*FLAGS, "frobnicate"])
        if name in ("duration", "iterations", "warmUp", "infStreams", "streams"):
            words.append(f"--{name}={rng.choice(('0', '1', '2', '-1', 'x', '1e9999'))}")
        elif name.startswith(("export", "save")):
            words.append(f"--{name}={rng.choice(('out.json', 'm.plan', 'm.onnx', '.', '', '-', 'no/such'))}")
        else:
            words.append(rng.choice((f"--{name}", f"--{name}={rng.choice(_WORDS)}", f"--{name}={rng.choice(_VALUES)}")))
    return [*words, "--iterations=1", "--duration=0", "--warmUp=0"]


def _word_for(rng: random.Random, flag: click.Option) -> str:
    """Mostly one that the flag takes."""
    if rng.random() < 0.25:
        return rng.choice(_WORDS)
    kind = flag.type
    if isinstance(kind, click.Choice):
        return rng.choice([str(c) for c in kind.choices])
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        return str(rng.choice((kind.min or 0, (kind.min or 0) + 1, kind.max or 3)))
    if type(kind) in _TAKEN:
        return rng.choice(_TAKEN[type(kind)])
    return rng.choice([*(flag.metavar or "").split("|"), "x", "cpu"])  # a metavar names choices, or is an example


_SIMPLE = (
    "test_relu",
    "test_add",
    "test_gemm_default_no_bias",
    "test_matmul_2d",
    "test_softmax_axis_1",
    "test_split_equal_parts_1d_opset18",
)
