"""The flags of trtexec, of versions 8.6 to 11, and what becomes of each here. A table; ``options.py`` reads what they say."""

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What becomes of a flag."""

    DONE = "done"
    UNHEEDED = "taken, with a warning that says why it changes nothing"
    REFUSED = "refused, with the reason"


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as it is typed, without its dashes. ``value`` is what its value is called; "" where it takes none.

    ``text``: what it does; of an unheeded or refused one, why.
    """

    name: str
    value: str
    text: str
    fate: Fate = Fate.DONE


def _group(*rows: tuple[str, str, str], fate: Fate = Fate.DONE) -> tuple[Flag, ...]:
    return tuple(Flag(name, value, text, fate) for names, value, text in rows for name in names.split())


_SHAPES = "name:1x3x224x224,..."
_SCALES = "nothing is calibrated here: --calib has scales that miniinfer build --int8 --calibrate FOLDER, or TensorRT, found"
_MEMORY = "memory is planned before the first inference, and no pool bounds it"
_TUNED = "a build times no tactics: miniinfer tune PLAN does (docs/tuning.md)"
_NO_DLA = "there is no DLA here: plans run on GPUs and CPUs"
_ONLY_ONNX = "only ONNX models are built: convert it first"
_HELD = "a plan holds its weights: build it anew for others"

MODEL = _group(("onnx", "FILE", "The ONNX model to build."))
BUILD = _group(
    ("saveEngine", "FILE", "Write the plan to this file."),
    ("loadEngine", "FILE", "Open this plan; nothing is built."),
    ("minShapes", _SHAPES, "The smallest sizes of inputs; names may stand in quotes; name:scalar; * is every other input."),
    ("optShapes", _SHAPES, "The sizes to build for, and those of the inference unless --shapes says others."),
    ("maxShapes", _SHAPES, "The largest sizes of inputs."),
    ("fp16", "", "Permit f16: f32 is stored in it but for what would lose too much (docs/precision.md)."),
    ("bf16", "", "Permit bf16, in the same way."),
    ("int8", "", "Multiply 8-bit integers by the scales of --calib; a model that holds QuantizeLinear needs no flag."),
    ("fp8", "", "Multiply 8-bit floats (E4M3) by the scales of --calib; the same. --fp16 and --bf16 are for the rest."),
    ("best", "", "Build in all of these, with --calib in 8 bits with and without 16, and take the fastest that is right enough."),
    ("calib", "FILE", "The scales of --int8 or --fp8: TensorRT's file, or one of miniinfer build --calibration-cache FILE."),
    ("noTF32", "", "Compute f32 products in f32, not in TF32, on a GPU."),
    ("stronglyTyped", "", "Keep the element types of the model."),
    ("layerPrecisions", "layer:type,...", "With --fp16, --bf16, --int8, --fp8 or --best, keep layers of type fp32 in f32."),
    ("precisionConstraints", "none|prefer|obey", "Whether --layerPrecisions holds; for none it does not."),
    ("inputIOFormats", "type:chw,...", "The element types of the inputs in their order, or one for all: fp32, fp16, bf16."),
    ("outputIOFormats", "type:chw,...", "The element types of the outputs, in the same way."),
    ("builderOptimizationLevel", "0..5", "0 to 2 are build --opt-level 0 to 2, 3 (default) is 2, and 4 and 5 are 3."),
    ("profilingVerbosity", "layer_names_only|detailed|none", "What --exportLayerInfo holds: names, all (default), nothing."),
    ("plugins staticPlugins dynamicPlugins", "MODULE", "Import this Python module, which defines operations (docs/plugins.md)."),
    ("timingCacheFile", "FILE", "Take from this file of miniinfer tune the tactics that were found best on this GPU."),
    ("buildOnly skipInference", "", "Build, and measure nothing."),
    ("getPlanVersionOnly", "", "With --loadEngine, tell who built the plan, and end."),
)  # fmt: skip
INFERENCE = _group(
    ("shapes", _SHAPES, "The sizes of inputs in the inference; of the plan, too, where no other flag bounds them."),
    ("batch", "N", "Set the first dimension that all inputs share, where it is free."),
    ("loadInputs", "name:FILE,...", "Read inputs from files: raw bytes, .npy, .npz, .pb. Others get random values."),
    ("iterations", "N", "Run at least so many inferences (10)."),
    ("warmUp", "MS", "Warm up for so many milliseconds (200)."),
    ("duration", "S", "Run for at least so many seconds (3)."),
    ("infStreams streams", "N", "Run on so many contexts at once (1)."),
    ("exposeDMA", "", "Copies and computation take turns."),
    ("noDataTransfers", "", "Leave copies to and from the GPU out."),
    ("includeDataTransfers", "", "Measure them: the default but in version 11."),
    ("useSpinWait", "", "Wait for the GPU spinning."),
    ("noSpinWait", "", "Let the driver choose how to wait: the default but in version 11."),
    ("useCudaGraph", "", "Capture an inference as a CUDA graph, and replay it."),
    ("noCudaGraph", "", "Launch kernel by kernel: the default but in version 11."),
    ("timeDeserialize", "", "With --loadEngine, tell how long opening takes, and end."),
    ("separateProfileRun", "", "Report the times of whole inferences beside those of layers."),
)  # fmt: skip
REPORTING = _group(
    ("verbose", "", "Tell more: lines with [V]."),
    ("avgRuns", "N", "Tell the mean of each N inferences (10)."),
    ("percentile", "P,...", "The percentiles to report (90,95,99)."),
    ("dumpProfile", "", "Print the time of each layer."),
    ("dumpLayerInfo", "", "Print the layers."),
    ("dumpOutput", "", "Print what the last inference computed."),
    ("exportTimes", "FILE", "Write the times of every inference as JSON."),
    ("exportProfile", "FILE", "Write the times of layers as JSON."),
    ("exportLayerInfo", "FILE", "Write the layers, inputs and outputs as JSON."),
    ("exportOutput", "FILE", "Write what an inference computed as JSON."),
    ("exportSummary", "FILE", "Write the summary as JSON; trtexec has no such flag."),
)
SYSTEM = _group(
    ("device", "N", "The GPU to run on; cpu for none. By default the first GPU, or the CPU where there is none."),
    ("help", "", "Show this page."),
)

UNHEEDED = (
    *_group(
        ("explicitBatch", "", "the batch is always a dimension of the model"),
        ("maxBatch", "N", "every size that the model takes is possible, or what --maxShapes says"),
        ("memPoolSize workspace", "SIZE", _MEMORY),
        ("tacticSources", "LIST", "tactics are chosen by what is there; miniinfer run --disable-tactic keeps one away"),
        ("avgTiming minTiming tilingOptimizationLevel l2LimitForTiling", "N", _TUNED),
        ("heuristic noBuilderCache noCompilationCache errorOnTimingCacheMiss", "", _TUNED),
        ("maxAuxStreams", "N", "streams within an inference are miniinfer's to choose"),
        ("hardwareCompatibilityLevel", "WORD", "every plan opens on every GPU and CPU"),
        ("runtimePlatform", "WORD", "every plan opens on every platform"),
        ("versionCompatible", "", "a plan holds no code that one release alone could run"),
        ("excludeLeanRuntime", "", "a plan holds no runtime"),
        ("preview", "LIST", "there is nothing that it would turn on"),
        ("sparsity", "WORD", "there are no sparse kernels: weights are computed as they are"),
        ("nvtxVerbosity nvtxMode", "WORD", "steps have names where a profiler is attached, and none otherwise"),
        ("refit stripWeights stripAllWeights weightless", "", _HELD),
        ("allowGPUFallback", "", _NO_DLA),
        ("layerOutputTypes layerDeviceTypes", "LIST", "what a layer gives has the type that it computes in"),
        ("sleepTime idleTime", "MS", "there are no pauses between inferences"),
        ("threads", "", "each stream has a thread already"),
        ("persistentCacheRatio", "RATIO", "the cache is the hardware's to share out"),
        ("useManagedMemory", "", "inputs and outputs have memory of their own on the device"),
        ("allocationStrategy", "WORD", _MEMORY),
        ("weightStreamingBudget", "SIZE", "all weights are on the device"),
        ("allowWeightStreaming asyncFileReader", "", "weights are read by several threads, ahead of their use"),
        ("directIO", "", "inputs and outputs are what the model has, row by row"),
        ("nativeInstanceNorm", "", "InstanceNormalization is computed as such already"),
        ("pluginInstanceNorm", "", "InstanceNormalization is computed as such already"),
        ("dumpRefit", "", _HELD),
        ("dumpOptimizationProfile", "", "--exportLayerInfo holds the sizes of the inputs"),
        ("setPluginsToSerialize ignoreParsedPluginLibs", "", "a plan holds no plugins"),
        ("profile useProfile", "N", "a plan has one set of bounds"),
        ("consistency", "", "a plan is checked whenever it is opened"),
        ("tempdir", "DIR", "no temporary files are written"),
        ("tempfileControls", "LIST", "no temporary files are written"),
        ("remoteAutoTuningConfig cpuOnly", "", _TUNED),
        fate=Fate.UNHEEDED,
    ),
)  # fmt: skip
REFUSED = (
    *_group(
        ("calibProfile", "", _SCALES),
        ("minShapesCalib optShapesCalib maxShapesCalib", "", _SCALES),
        ("int4", "", "miniinfer build --weight-only int4 stores weights so"),
        ("useDLACore", "", _NO_DLA),
        ("safe restricted buildDLAStandalone", "", "there is no safe runtime here: plans run on GPUs and CPUs"),
        ("deploy model output uff uffInput uffNHWC", "", _ONLY_ONNX),
        ("loadRefOutputs accuracyAlgorithm accuracyThreshold refPair atol rtol", "",
         "miniinfer compare saved.npz PLAN compares outputs, with --rtol and --atol"),
        ("dumpRawBindingsToFile", "", "--exportOutput writes the outputs as JSON, miniinfer run --output as .npz"),
        ("markDebug markUnfusedTensorsAsDebugTensors saveDebugTensors saveAllDebugTensors", "",
         "miniinfer build --mark-output NODE returns what a node computes"),
        ("leanDLLPath useRuntime", "", "there is one runtime here: leave it out"),
        ("timeRefit", "", _HELD),
        ("tune dryRun continue", "", _TUNED),
        fate=Fate.REFUSED,
    ),
)  # fmt: skip

GROUPS = {
    "Model": MODEL, "Build": BUILD, "Inference": INFERENCE, "Reporting": REPORTING, "System": SYSTEM,
}  # fmt: skip
"""What is done, as --help shows it."""

FLAGS = {flag.name: flag for group in (*GROUPS.values(), UNHEEDED, REFUSED) for flag in group}
SHORT = {"h": "help", "v": "verbose", "d": "device"}


def help_page() -> str:
    """What --help prints."""
    lines = ["miniinfer trtexec --onnx=MODEL|--loadEngine=PLAN [--flag=value ...]", ""]
    for title, group in GROUPS.items():
        lines.append(f"=== {title} Options ===")
        lines += [f"  --{f.name}{f'={f.value}' if f.value else '':<32} {f.text}" for f in group]
        lines.append("")
    for title, group in (("Taken, and changing nothing", UNHEEDED), ("Refused", REFUSED)):
        reasons = dict.fromkeys(f.text for f in group)
        lines.append(f"=== {title} ===")
        lines += [f"  {' '.join(f'--{f.name}' for f in group if f.text == why)}: {why}" for why in reasons]
        lines.append("")
    return "\n".join(lines).rstrip()
