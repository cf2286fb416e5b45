"""Pictures of docs/: the roofline of a report as a file by itself, from what ``profile --json`` wrote.

    python -m tests.docs_pictures RESULT.json docs/pictures/NAME.svg

The lines are those of the report, its colours those of its style, light and dark; links to the table of nodes are left out.
"""

import json
import re
import sys
from importlib import resources
from pathlib import Path

from miniinfer_cli.report.document import read_result
from miniinfer_cli.report.roofline_chart import roofline_chart


def standalone(html: str, style: str) -> str:
    """The first SVG within ``html``, with those rules of ``style`` that are of it, on a ground of its own."""
    found = re.search(r"<svg (.*?)>(.*)</svg>", html, re.DOTALL)
    if found is None:
        raise ValueError("there is no picture in it")
    about, drawn = found.groups()
    drawn = re.sub(r"<a href=[^>]*? (class=[^>]*)>", r"<g \1>", drawn).replace("</a>", "</g>")
    colours = re.findall(r"^(?::root \{.*?^\}|@media \(prefers-color-scheme: dark\) \{.*?^\})", style, re.DOTALL | re.MULTILINE)
    rules = [line for line in style.splitlines() if line.startswith(("svg ", ".roofline "))]
    css = re.sub(r"\s*\n\s*", " ", "\n".join([*colours, *rules]))
    ground = '<rect width="100%" height="100%" fill="var(--card)"></rect>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {about}><style>{css}</style>{ground}{drawn}</svg>\n'


def main(result: Path, picture: Path) -> None:
    html = roofline_chart(read_result(json.loads(result.read_text())))
    if html is None:
        raise SystemExit(f"{result}: nothing is known of its nodes")
    style = resources.files("miniinfer_cli.report").joinpath("assets/page.css").read_text()
    picture.write_text(standalone(str(html), style))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
