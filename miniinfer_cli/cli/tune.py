"""``miniinfer tune``: which tactics are fastest on this GPU, found by timing them, and kept in the plan."""

from dataclasses import replace
from pathlib import Path

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.outputs import Output, check_outputs
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.cli.sources import key_source, sources
from miniinfer_cli.cli.tuning import describe_tuning, tune_and_report, tuning_flags
from miniinfer_cli.devices.models import expect_gpu_named
from miniinfer_cli.devices.tuning import TuningOptions
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.runtime.trust import key_in_environment


@click.command("tune")
@flags.plan_argument
@click.option("-o", "--output", type=flags.PATH, help="Where the tuned plan goes. Default: PLAN itself.")
@tuning_flags("fast")
@click.option("--device", default="auto", show_default=True, metavar="auto|cuda:N", help="The GPU to time on.")
@click.option(
    "--sign-key", type=flags.PATH,
    help="Sign what is put into the plan with the key in this file, which run is given by --trust-key; by default your own.",
)  # fmt: skip
@flags.trust_key_flag
@flags.plugin_flag
@flags.limit_flag
@flags.report_flags("the report")
def command(
    plan: Path, output: Path | None, tuning: TuningOptions, device: str, sign_key: Path | None, trust_key: Path | None,
    plugins: tuple[str, ...], limits: dict[str, int], printer: Printer, json_file: Path | None,
) -> None:  # fmt: skip
    """Time on a GPU which tactics are fastest for PLAN, and keep them in it.

    Ctrl-C ends the search and keeps what was found.
    """
    written_to = output if output is not None and output != plan else None
    outputs = [Output("--output", written_to, seekable=True), Output("--json", json_file, json=True)]
    outputs.append(Output("--timing-cache", tuning.timing_cache, seekable=True))
    check_outputs(outputs, [*sources(plan, plugins=plugins), *key_source(sign_key), *key_source(trust_key)])
    expect_gpu_named(device)
    load_plugins(plugins)
    settings = DeviceOptions(trust_key=trust_key or key_in_environment(), limits=limits, **cache_options())
    written = tune_and_report(printer, plan, output, device, replace(tuning, sign_key=sign_key), settings)
    printer.line(f"Plan: {plan} is as it was" if written.path is None else f"Plan: {written.path}")
    if json_file is not None:
        plan_written = None if written.path is None else str(written.path)
        write_json(json_file, {"plan": str(plan), "output": plan_written, **describe_tuning(written)})
    if written.tuned.interrupted:
        raise KeyboardInterrupt
