"""One run of ``miniinfer trtexec``, phase by phase: what is asked for, the plan, the inferences, the reports."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from miniinfer_cli import __version__
from miniinfer_cli.cli.layering import layered
from miniinfer_cli.cli.measuring import Bench, Measured
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.outputs import Source as Read
from miniinfer_cli.cli.sources import cache_source, model_sources, sources
from miniinfer_cli.cli.trtexec.arguments import Arguments
from miniinfer_cli.cli.trtexec.banners import print_device, print_options
from miniinfer_cli.cli.trtexec.engines import Source, build, existing, facts_of, opened, tell_version
from miniinfer_cli.cli.trtexec.exports import export
from miniinfer_cli.cli.trtexec.flags import help_page
from miniinfer_cli.cli.trtexec.layers import LayerTimes, layers_to_json, print_layers, print_profile, profile_to_json, times_of
from miniinfer_cli.cli.trtexec.log import Log, number
from miniinfer_cli.cli.trtexec.options import Dialect, Options, options_of
from miniinfer_cli.cli.trtexec.outputs import outputs_to_json, print_outputs
from miniinfer_cli.cli.trtexec.performance import Rows, Watch, print_summary, print_trace, times_to_json
from miniinfer_cli.devices.facts import rows_of

SUMMARY_VERSION = 1
"""Of what --exportSummary writes; a key that goes or changes its meaning makes it one more."""


def run(words: Sequence[str], arguments: Arguments, dialect: Dialect, log: Log) -> bool:
    """Does what the command line says; False, told, where a word of it is no flag. Raises MiniinferError for all other faults."""
    if arguments.on("help") or not words:
        log.plain(help_page())
        return True
    if arguments.unknown:
        log.plain(help_page())
        for told in arguments.words_on_unknown():
            log.error(told)
        return False
    options = options_of(arguments, dialect)
    log.verbose = options.verbose
    for told in arguments.warnings():
        log.warning(told)
    _expect_writable(options)
    if options.version_only and options.load is not None:  # options_of sees to the latter
        tell_version(log, options.load)
        return True
    print_options(log, options)
    print_device(log, rows_of(options.device))
    log.info(f"TensorRT version: {dialect.release} (miniinfer {__version__} in its place)")
    source = _source(log, options)
    if options.skip and not options.tells_layers:
        log.info("Skipped inference phase since --skipInference is added.")
        _export_summary(words, options, source, None, None, None)
        return True
    with opened(log, options, source) as (bench, seconds):
        if options.skip or options.time_opening:
            _tell_layers(log, options, bench)
            log.info("Skipped inference phase.")
            _export_summary(words, options, source, seconds, None, None)
        else:
            _infer(log, words, options, source, bench, seconds)
    return True


def _source(log: Log, options: Options) -> Source:
    if options.load is not None:
        if options.onnx is not None:
            log.warning("--onnx is left aside: --loadEngine gives the plan")
        return existing(options.load)
    assert options.onnx is not None  # options_of sees to it
    return build(log, options, options.onnx)


def _infer(log: Log, words: Sequence[str], options: Options, source: Source, bench: Bench, seconds: float) -> None:
    log.info("Starting inference")
    watch = Watch()
    measured = bench.measure(watch)
    samples = measured.samples
    log.info(f"Warmup completed {max(watch.counts.get('warm-up', 0), 1)} queries over {number(watch.warmup_ms)} ms")
    log.info(f"Timing trace has {len(samples.latency_ms)} queries over {number(samples.walltime_s)} s")
    rows = Rows.of(measured, options.percentiles)
    if options.reports_whole:
        print_trace(log, samples, options.averages)
        print_summary(log, rows, [*measured.summary.hints, *measured.conditions.flags])
    else:
        log.info("The times of whole inferences stand beside those of layers only with --separateProfileRun")
    profile: tuple[list[LayerTimes], int] | None = None
    if options.profiles:
        found = layered(bench, watch, ceilings=False)
        profile = times_of(found), len(found.rounds)
        if options.dump_profile:
            print_profile(log, *profile)
    _tell_layers(log, options, bench)
    outputs: dict[str, Any] | None = None
    if options.dump_output or options.exports.output is not None:
        with bench.engine.create_context() as context:
            outputs = context.run(bench.feeds)
        if options.dump_output:
            print_outputs(log, outputs)
    exports = options.exports
    if exports.times is not None:
        export(exports.times, times_to_json(samples))
    if exports.profile is not None and profile is not None:
        export(exports.profile, profile_to_json(*profile))
    if exports.output is not None and outputs is not None:
        export(exports.output, outputs_to_json(outputs))
    _export_summary(words, options, source, seconds, rows, measured)


def _tell_layers(log: Log, options: Options, bench: Bench) -> None:
    if not options.tells_layers:
        return
    layers = layers_to_json(bench, options.verbosity)
    if options.dump_layers:
        print_layers(log, layers)
    if options.exports.layers is not None:
        export(options.exports.layers, layers)


def _export_summary(
    words: Sequence[str], options: Options, source: Source, seconds: float | None, rows: Rows | None, measured: Measured | None
) -> None:
    if options.exports.summary is None:
        return
    head = {"schema_version": SUMMARY_VERSION, "kind": "trtexec", "command": list(words), "dialect": options.dialect.release}
    figures: Mapping[str, Any] = {} if rows is None else rows.to_json()
    result = None if measured is None else measured.to_json("run")
    export(options.exports.summary, {**head, "engine": facts_of(source, seconds), **figures, "result": result})


def _expect_writable(options: Options) -> None:
    """Raises UsageError for an output that cannot be written, or that is read: before anything takes time."""
    exports = options.exports
    written = [
        Output("--saveEngine", options.save, seekable=True),
        Output("--exportTimes", exports.times, json=True),
        Output("--exportProfile", exports.profile, json=True),
        Output("--exportLayerInfo", exports.layers, json=True),
        Output("--exportOutput", exports.output, json=True),
        Output("--exportSummary", exports.summary, json=True),
    ]
    check_outputs(written, _read(options))


def _read(options: Options) -> Iterator[Read]:
    more: dict[str, Any] = {"inputs": options.files, "plugins": options.plugins}
    if options.load is not None:
        yield from sources(options.load, **more)
    elif options.onnx is not None:
        yield from model_sources(options.onnx, **more)
    yield from cache_source(options.timing_cache)
