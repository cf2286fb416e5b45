"""Flags of other tools: what each is here, in a sentence. A table; ``unknown.py`` looks things up in it.

A sentence says how things are, and the way here where there is one. ``docs/coming-from-trtexec.md`` shows the same table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """Flags of ``tool``, as they are typed there, and what they come to here."""

    tool: str
    names: tuple[str, ...]
    way: str


def _of(tool: str, *rows: tuple[str, str]) -> tuple[Foreign, ...]:
    return tuple(Foreign(tool, tuple(names.split()), way) for names, way in rows)


_TYPES = "build --fp16 or --bf16 stores f32 in 16 bits, and --keep-fp32 keeps nodes in f32 (docs/precision.md)"
_VERIFIED = "build --verify compares the plan with ONNX Runtime, within tolerances of its own"
_COMPARED = "miniinfer compare saved.npz PLAN compares outputs, with --rtol and --atol; build --verify does with ONNX Runtime"
_MEMORY = "memory is planned before the first inference; run --memory-limit bounds it, profile shows it"
_SIDE_BY_SIDE = "run enqueues an inference before the last has ended already; --no-overlap waits for each"
_PLUGINS = "--plugin takes a Python module that defines the operation (docs/plugins.md); a .so cannot be loaded"
_TUNING = "tune times what there is: build --tune fast or full, or miniinfer tune PLAN (docs/tuning.md)"
_LOAD = "profile --qps R sends so many requests a second, by chance (docs/load.md)"
_TIMING_CACHE = "tune --timing-cache FILE reads and writes one, and run --timing-cache FILE takes from it"

FOREIGN: tuple[Foreign, ...] = (
    *_of(
        "trtexec",
        ("--onnx", "the model is the argument of build: miniinfer build MODEL"),
        ("--saveEngine", "build writes the plan: miniinfer build MODEL --output FILE"),
        ("--loadEngine", "the plan is the argument: miniinfer run PLAN"),
        ("--buildOnly --skipInference", "build only builds; run and profile measure"),
        ("--fp16", "here it is build --fp16"),
        ("--bf16", "here it is build --bf16"),
        ("--fp8", "here it is build --fp8 --calibrate FOLDER (docs/precision.md); a model that is quantized needs no flag"),
        ("--int8", "here it is build --int8 --calibrate FOLDER (docs/precision.md); a model that is quantized needs no flag"),
        ("--int4", "build --weight-only int4 stores weights of matrix products so; a model that is quantized needs no flag"),
        ("--best", "here it is build --best, with --calibrate FOLDER for int8 and fp8"),
        ("--stronglyTyped", "every plan is: element types are the model's own, but with build --fp16 or --bf16"),
        ("--calib", "here it is build --int8 (or --fp8) --calibration-cache FILE, which reads TensorRT's files"),
        ("--calibProfile", "build --int8 calibrates with the sizes of the samples of --calibrate"),
        ("--layerPrecisions --layerOutputTypes --precisionConstraints", "build --keep-fp32 NODE keeps nodes in f32 where the"
         " build is --fp16 or --bf16, --keep-float NODE where it is --int8 or --fp8"),
        ("--noTF32", "build --no-tf32 keeps products of f32 in f32"),
        ("--minShapes", "here it is build --min-shapes"),
        ("--optShapes", "here it is build --opt-shapes"),
        ("--maxShapes", "here it is build --max-shapes"),
        ("--batch --maxBatch", "the batch is a dimension: run --batch 8 sets it, build --shapes fixes it"),
        ("--explicitBatch", "the batch is always a dimension of the model: leave the flag out"),
        ("--inputIOFormats --outputIOFormats", "inputs and outputs are dense, row by row; build --io-dtype sets their types"),
        ("--loadInputs", "here it is run --input name=file, once for each input"),
        ("--warmUp", "here it is run --warmup, in milliseconds as well"),
        ("--sleepTime --idleTime", "run has no pause between inferences; profile --qps R sends requests that come by chance"),
        ("--infStreams", "here it is run --streams"),
        ("--threads", "each stream of --streams has a thread of its own already"),
        ("--avgRuns", "here it is run --avg-runs"),
        ("--useCudaGraph", "CUDA graphs are on already; --no-cuda-graph turns them off"),
        ("--noCudaGraph", "here it is run --no-cuda-graph"),
        ("--useSpinWait", "here it is run --spin-wait"),
        ("--noSpinWait", "spinning is off until --spin-wait; --blocking-sync sleeps"),
        ("--noDataTransfers", "here it is run --no-data-transfers"),
        ("--includeDataTransfers", "transfers are measured already; --no-data-transfers leaves them out"),
        ("--exposeDMA", "run --no-overlap makes copies and computation take turns"),
        ("--exportTimes", "here it is run --export-times"),
        ("--exportOutput", "run --output saves the outputs as .npz"),
        ("--dumpOutput --dumpRawBindingsToFile", "run --output saves the outputs as .npz, --top-k prints the largest entries"),
        ("--dumpProfile", "miniinfer profile PLAN times each node"),
        ("--exportProfile", "here it is profile --export-profile, and profile --json for medians"),
        ("--separateProfileRun", "profile always times the nodes in a run of their own"),
        ("--dumpLayerInfo", "inspect --graph prints the graph of a plan"),
        ("--exportLayerInfo", "here it is inspect --json"),
        ("--profilingVerbosity", "plans keep all names: inspect --graph"),
        ("--verbose", "build --verbose lists every pass; inspect --graph prints the graph"),
        ("--timingCacheFile", _TIMING_CACHE),
        ("--memPoolSize --workspace", _MEMORY),
        ("--builderOptimizationLevel", "here it is build --opt-level, 0 to 3"),
        ("--tacticSources", "run --disable-tactic KEY keeps every node from a tactic: --disable-tactic cublaslt"),
        ("--avgTiming --minTiming --noBuilderCache --maxAuxStreams", _TUNING),
        ("--heuristic --tilingOptimizationLevel --l2LimitForTiling", _TUNING),
        ("--preview --sparsity", "there is nothing here that it would turn on: leave it out"),
        ("--plugins --staticPlugins --dynamicPlugins --setPluginsToSerialize", _PLUGINS),
        ("--versionCompatible --hardwareCompatibilityLevel", "every plan opens everywhere; build --arch adds kernels"),
        ("--refit --stripWeights --weightless", "a plan holds its weights: build it anew for others"),
        ("--useDLACore --allowGPUFallback --safe", "there is no DLA and no safe runtime here: plans run on GPUs and CPUs"),
        ("--nvtxMode", "run --nvtx names every step to profilers"),
        ("--timeDeserialize", "run prints how long the weights took"),
        ("--getPlanVersionOnly", "miniinfer inspect PLAN says who built it"),
        ("--loadRefOutputs --accuracyThreshold --accuracyAlgorithm", _COMPARED),
        ("--markDebug --markUnfusedTensorsAsDebugTensors", "build --mark-output returns what a node computes"),
        ("--deploy --uff --uffInput", "only ONNX models are built: convert it first"),
    ),
    *_of(
        "polygraphy",
        ("--trt --trt-legacy", "a plan is what runs here: miniinfer run PLAN"),
        ("--onnxrt --pluginref", _VERIFIED),
        ("--trt-min-shapes", "here it is build --min-shapes name:1x3x224x224"),
        ("--trt-opt-shapes", "here it is build --opt-shapes name:1x3x224x224"),
        ("--trt-max-shapes", "here it is build --max-shapes name:1x3x224x224"),
        ("--input-shapes", "here it is run --shapes name:1x3x224x224"),
        ("--val-range --int-min --int-max --float-min --float-max",
         "random floats are in [-1, 1), integers 0 or 1, by --seed; others come from a file: run --input name=file"),
        ("--data-loader-script --data-loader-func-name", "run --input name=file takes .npy, .npz, .pb and raw bytes"),
        ("--save-engine", "here it is build --output"),
        ("--save-outputs --save-results", "run --output saves the outputs as .npz"),
        ("--save-inputs", "random inputs are made anew from --seed, and are the same each time"),
        ("--load-outputs --load-results --check-error-stat --atol --rtol --validate --fail-fast", _COMPARED),
        ("--onnx-outputs --trt-outputs", "here it is build --mark-output"),
        ("--model-type --display-as", "the file itself says what it is"),
        ("--warm-up", "here it is run --warmup, in milliseconds"),
        ("--tf32", "TF32 is on already; build --no-tf32 turns it off"),
        ("--pool-limit --memory-pool-limit", _MEMORY),
        ("--load-timing-cache --save-timing-cache --load-tactics --save-tactics", _TIMING_CACHE),
        ("--show", "inspect --graph prints the graph, --json everything"),
    ),
    *_of(
        "benchmark_app",
        ("-m --path_to_model --model", "the plan is the argument, miniinfer run PLAN, and miniinfer build MODEL makes it"),
        ("-d --target_device", "run --device cpu, cuda:N or auto"),
        ("-i --paths_to_input", "here it is run --input name=file"),
        ("-niter --number_iterations", "here it is run --iterations"),
        ("-t --time", "here it is run --duration, in seconds"),
        ("-nireq --number_infer_requests", "each stream has two inferences under way on a GPU; run --streams for more"),
        ("-nstreams --number_streams", "here it is run --streams"),
        ("-nthreads --number_threads", "here it is run --threads"),
        ("-hint --perf_hint", "latency is what run measures with one stream; --streams raises the throughput"),
        ("-api --api_type", _SIDE_BY_SIDE),
        ("-b --batch_size", "here it is run --batch"),
        ("-shape -data_shape", "here it is run --shapes name:1x3x224x224"),
        ("-layout -ip -op -iop -il -ol -mean_values -scale_values -imean -iscale",
         "inputs are taken as the model has them: prepare the file of run --input"),
        ("-infer_precision", _TYPES),
        ("-report_type -report_folder -json_stats", "here it is run --json, and --export-times for each inference"),
        ("-pc -pcsort -pcseq --perf_counts", "miniinfer profile PLAN times each node"),
        ("-exec_graph_path", "here it is inspect --graph"),
        ("-latency_percentile", "here it is run --percentile"),
        ("-inference_only", "here it is run --no-data-transfers"),
        ("-cdir --cache_dir", "compiled kernels are kept in the folder of $MINIINFER_CACHE"),
        ("-c -l --extensions", _PLUGINS),
        ("-max_irate", _LOAD),
        ("-load_config -dump_config -pin -nthr -mfp -progress", "there is nothing to set: leave it out"),
    ),
    *_of(
        "perf_analyzer",
        ("-u --service-kind --shared-memory --model-repository --triton-server-directory",
         "there is no server: the plan runs in this process"),
        ("-x --model-version", "a plan has no versions: inspect shows its digest"),
        ("--concurrency-range", "profile --streams 1,2,4,8 measures so many contexts at once each"),
        ("--request-rate-range --request-distribution", _LOAD),
        ("--request-intervals", "profile --qps R draws when requests come, by --seed; intervals of a file are not read"),
        ("-p --measurement-interval", "here it is run --duration, in seconds"),
        ("--measurement-mode", "run measures at least --iterations inferences and --duration seconds"),
        ("--measurement-request-count --request-count --max-trials", "run --iterations N --duration 0 measures exactly N"),
        ("-s --stability-percentage", "run says when compute times vary by more than 2.5 %"),
        ("--latency-threshold --binary-search", "profile --latency-budget MS finds the best of several --streams within it"),
        ("--warmup-request-count", "here it is run --warmup, in milliseconds"),
        ("--shape", "here it is run --shapes name:1x3x224x224"),
        ("--input-data", "here it is run --input name=file; without it, random values by --seed"),
        ("-z --zero-input --string-data --string-length", "give the values by file: run --input name=file"),
        ("-a --async --sync --streaming", _SIDE_BY_SIDE),
        ("--max-threads", "each stream of --streams has a thread of its own"),
        ("-f --latency-report-file --verbose-csv", "here it is run --json"),
        ("--profile-export-file", "here it is run --export-times"),
        ("--collect-metrics", "run --json has the state of the GPU under gpu_state"),
        ("-v", "build --verbose lists every pass; inspect --graph prints the graph"),
    ),
)  # fmt: skip


def _key(name: str) -> str:
    """How a flag is looked up that is not in the table as it was typed: however many dashes, in whatever case."""
    return name.strip("-").replace("-", "").replace("_", "").lower()


_BY_NAME = {name: foreign for foreign in FOREIGN for name in foreign.names}
_BY_KEY = {_key(name): foreign for foreign in reversed(FOREIGN) for name in foreign.names}


def way_of(flag: str) -> str:
    """The sentence on a flag of another tool; empty for one that is in no table."""
    found = _BY_NAME.get(flag) or _BY_KEY.get(_key(flag))
    return "" if found is None else found.way


def tool_of(flag: str) -> str:
    """The tool that spells a flag so; empty for one that none does."""
    found = _BY_NAME.get(flag)
    return "" if found is None else found.tool
