"""``miniinfer template``: what another server wants to have of a plan, as files."""

import shutil
from pathlib import Path

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.flag_values import FiniteRange
from miniinfer_cli.cli.outputs import opened_for_writing
from miniinfer_cli.errors import UsageError, unwritable
from miniinfer_cli.integrations.triton import MODEL, TritonOptions, config_of
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.server.sources import is_name, name_of


@click.command("template")
@click.argument("server", type=click.Choice(["triton"]))
@flags.plan_argument
@click.option("-o", "--output", type=flags.PATH, required=True, metavar="FOLDER", help="Triton's model repository.")
@click.option("--name", help="What clients call the model; by default as the file of the plan.")
@click.option("--max-batch", type=click.IntRange(1), metavar="N", help="Rows of a batch; by default as the plan says.")
@click.option(
    *flags.MAX_DELAY,
    "max_delay",
    type=FiniteRange(0),
    default=2.0,
    show_default=True,
    metavar="MS",
    help="That requests wait for others.",
)
@click.option(
    "--instances", type=click.IntRange(1), default=1, show_default=True, help="So many, each with an engine of its own."
)
def command(
    server: str, plan: Path, output: Path, name: str | None, max_batch: int | None, max_delay: float, instances: int
) -> None:
    """Write what SERVER wants to have of PLAN: for triton FOLDER/NAME/config.pbtxt, and 1/model.py with the plan beside it.

    Triton's Python backend needs miniinfer installed in its environment. Files that are there are replaced.
    """
    chosen = name_of(plan) if name is None else name
    if not is_name(chosen):
        raise UsageError(f"--name: {chosen!r} is no name of a model", hint="take letters, digits, _, . and -")
    with open_plan(plan) as opened:
        text = config_of(opened, TritonOptions(chosen, max_batch, max_delay, instances))
        version = output / chosen / "1"
        try:
            version.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, version) from None
        with opened_for_writing(output / chosen / "config.pbtxt") as file:
            file.write(text.encode())
        with opened_for_writing(version / "model.py") as file:
            file.write(MODEL.encode())
        target = version / "model.plan"
        if not (target.exists() and target.samefile(plan)):
            with plan.open("rb") as source, opened_for_writing(target) as file:
                shutil.copyfileobj(source, file, 4 << 20)
    click.echo(f"{output / chosen}: config.pbtxt, 1/model.py, 1/model.plan")
