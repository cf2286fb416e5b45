"""``miniinfer report``: documents of results that were kept, as a page with pictures."""

from pathlib import Path
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.documents import read_document
from miniinfer_cli.cli.outputs import Output, Source, check_outputs
from miniinfer_cli.cli.pictures import write_report
from miniinfer_cli.cli.report import finite
from miniinfer_cli.errors import UsageError
from miniinfer_cli.report.comparison import is_comparison, read_comparison
from miniinfer_cli.report.document import read_result


@click.command("report")
@click.argument("result", type=flags.PATH)
@click.argument("other", type=flags.PATH, required=False)
@click.option("-o", "--output", type=flags.PATH, metavar="FILE.html", help="The page; by default RESULT with the ending .html.")
def command(result: Path, other: Path | None, output: Path | None) -> None:
    """Make a page with pictures from RESULT; with OTHER, of both side by side.

    Both are what run, profile, a sweep or a load wrote with --json; RESULT alone may be what compare wrote. The page is HTML,
    whole in itself: it asks nothing of any network.
    """
    target = result.with_suffix(".html") if output is None else output
    files = [result] if other is None else [result, other]
    check_outputs([Output("--output", target)], [Source(file, "a result") for file in files])
    documents = [_read(file, alone=other is None) for file in files]
    write_report(target, *documents)


def _read(path: Path, *, alone: bool) -> Any:
    hint = "give a file that miniinfer run or profile wrote with --json"
    found = read_document(path, hint)
    try:
        document = finite(found)
        if alone and is_comparison(document):
            read_comparison(document)
        else:
            read_result(document)  # says which file is wrong, where there are two
    except RecursionError:
        raise UsageError("is nested more deeply than any result", hint=hint).at(str(path)) from None
    except UsageError as error:
        raise error.at(str(path)) from None
    return document
