"""The flags of trtexec: the table, the two dialects, and what values say."""

from pathlib import Path

import pytest

from miniinfer_cli.cli.foreign_flags import FOREIGN
from miniinfer_cli.cli.trtexec import values
from miniinfer_cli.cli.trtexec.arguments import ADDING_UP, Arguments
from miniinfer_cli.cli.trtexec.flags import FLAGS, GROUPS, REFUSED, UNHEEDED, Fate, help_page
from miniinfer_cli.cli.trtexec.options import Options, dialect_of, options_of
from miniinfer_cli.errors import UsageError
from tests.trtexec_page import PAGE, START, tables

# What each release knew; of these the first took away those that follow it, and so did the second.
GONE_IN_10 = (
    "batch maxBatch buildOnly deploy model output uff uffInput uffNHWC explicitBatch heuristic minTiming nativeInstanceNorm"
    " nvtxMode workspace"
)
GONE_IN_11 = (
    "fp16 bf16 fp8 int8 int4 best calib calibProfile minShapesCalib optShapesCalib maxShapesCalib layerPrecisions"
    " layerOutputTypes precisionConstraints restricted weightless"
)
NEW_IN_11 = "noCudaGraph noSpinWait includeDataTransfers loadRefOutputs accuracyAlgorithm accuracyThreshold refPair"


def asked(*words: str, environment: dict[str, str] | None = None) -> Options:
    arguments = Arguments.of(["--onnx=m.onnx", *words])
    assert not arguments.unknown
    return options_of(arguments, dialect_of(arguments, environment or {}))


@pytest.mark.parametrize("name", [*GONE_IN_10.split(), *GONE_IN_11.split(), *NEW_IN_11.split()])
def test_flags_of_all_versions_are_known(name):
    assert name in FLAGS


def test_every_flag_that_build_and_run_refuse_by_name_is_in_the_table():
    assert [n for f in FOREIGN if f.tool == "trtexec" for n in f.names if n.removeprefix("--") not in FLAGS] == []


def test_no_flag_stands_twice_and_each_is_on_the_help_page():
    rows = [*(f for group in GROUPS.values() for f in group), *UNHEEDED, *REFUSED]
    assert len(rows) == len(FLAGS)
    page = help_page()
    assert [f.name for f in rows if f"--{f.name}" not in page] == []
    assert {f.fate for f in UNHEEDED} == {Fate.UNHEEDED} and {f.fate for f in REFUSED} == {Fate.REFUSED}
    assert set(ADDING_UP) <= set(FLAGS)


def test_the_page_of_the_documentation_is_up_to_date():
    assert PAGE.read_text().partition(START)[2] == tables(), "run python -m tests.trtexec_page"


@pytest.mark.parametrize(
    ("words", "environment", "number", "bare"),
    [
        ([], {}, "101600", False),
        ([], {"MINIINFER_TRTEXEC": "11"}, "110100", True),
        ([], {"MINIINFER_TRTEXEC": "11.1"}, "110100", True),
        ([], {"MINIINFER_TRTEXEC": "10"}, "101600", False),
        (["--noSpinWait"], {}, "110100", True),
        (["--includeDataTransfers"], {}, "110100", True),
        (["--noCudaGraph"], {}, "110100", True),
    ],
)
def test_the_dialect(words, environment, number, bare):
    found = dialect_of(Arguments.of(words), environment)
    assert (found.number, found.bare) == (number, bare)


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([], {}, (True, False, False)),
        (["--useCudaGraph", "--useSpinWait", "--noDataTransfers"], {}, (False, True, True)),
        ([], {"MINIINFER_TRTEXEC": "11"}, (False, True, True)),
        (["--includeDataTransfers"], {}, (True, True, True)),
        (["--noCudaGraph"], {}, (False, False, True)),
        (["--noSpinWait"], {}, (False, True, False)),
        (["--noDataTransfers=false"], {}, (False, False, False)),
    ],
)
def test_transfers_graphs_and_spinning(words, environment, expected):
    options = asked(*words, environment=environment)
    assert (options.transfers, options.graph, options.spin) == expected


def test_defaults_and_other_values():
    options = asked()
    assert (options.iterations, options.warmup_ms, options.duration_s, options.averages) == (10, 200, 3, 10)
    assert (options.percentiles, options.streams, options.device, options.level) == ((90, 95, 99), 1, "auto", 2)
    assert (options.overlap, options.tf32, options.precision, options.reports_whole) == (True, True, None, True)
    options = asked("--exposeDMA", "--noTF32", "--bf16", "--device=1", "--dumpProfile", "--builderOptimizationLevel=5")
    assert (options.overlap, options.tf32, options.precision, options.device) == (False, False, "bf16", "cuda:1")
    assert (options.level, options.profiles, options.reports_whole) == (3, True, False)
    assert asked("--dumpProfile", "--separateProfileRun").reports_whole


def test_what_is_said_of_flags_that_do_nothing_or_stand_twice():
    words = ["--workspace=1", "--noDataTransfers=false", "--iterations=3", "--iterations=4", "--fp16", "--bf16", "-v"]
    arguments = Arguments.of(words)
    assert [told.partition(" ")[0] for told in arguments.warnings()] == [
        *("--workspace", "--noDataTransfers=false", "--iterations", "--bf16"),
    ]
    assert arguments.text("iterations") == "4" and arguments.on("verbose")
    twice = Arguments.of(["--loadInputs=a:1.bin", "--loadInputs=b:2.bin"])
    assert twice.warnings() == []
    assert values.files("loadInputs", twice.entries("loadInputs")) == (("a", Path("1.bin")), ("b", Path("2.bin")))
    assert Arguments.of(["--layerPrecisions=a:fp32"]).warnings() == [
        "--layerPrecisions changes nothing without --fp16, --bf16, --int8, --fp8 or --best"
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x:1x3x224x224", {"x": (1, 3, 224, 224)}),
        ("x:1x3,y:scalar", {"x": (1, 3), "y": ()}),
        ("'a,b':1x2,'input:0':3", {"a,b": (1, 2), "input:0": (3,)}),
        (r"\'input:0\':3x4", {"input:0": (3, 4)}),
        ("input:0:2x4", {"input:0": (2, 4)}),
        ("*:8x4", {"*": (8, 4)}),
        ("x:0x4", {"x": (0, 4)}),
        ("", {}),
    ],
)
def test_shapes(text, found):
    assert values.shapes("shapes", text) == found


@pytest.mark.parametrize("text", ["x", "x:", ":1x2", "x:1x", "x:1*2", "x:ax2", "x:1x2,x:3", "x:9999999999x9999999999x99", "x:１"])
def test_what_is_no_shape(text):
    with pytest.raises(UsageError) as raised:
        values.shapes("minShapes", text)
    assert raised.value.message.startswith("--minShapes: ") and raised.value.hint


def test_a_star_stands_for_inputs_with_no_entry_of_their_own_and_of_its_rank():
    inputs = {"a": 2, "b": 2, "c": 3, "d": None}
    assert values.spread({"*": (8, 4), "b": (1, 4)}, inputs) == {"b": (1, 4), "a": (8, 4), "d": (8, 4)}
    assert values.spread({"b": (1, 4)}, inputs) == {"b": (1, 4)}


def test_types_layers_and_pools():
    assert values.io_types("inputIOFormats", "fp16:chw,int32:chw,fp32") == ("f16", None, "f32")
    assert values.kept_layers("layerPrecisions", "a:fp32,'b:c':fp32,/head/*:fp32,d:fp16,*:fp16") == ("a", "b:c", "/head")
    for good in ("4096", "workspace:4096", "workspace:0.5G,dlaSRAM:1M", "workspace:12MiB"):
        values.pool_sizes("memPoolSize", good)
