"""The built wheel holds all that a report is made of."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.report.made import Page, profile

ROOT = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
REPORT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import miniinfer_cli.report.page as page
assert page.__file__.startswith(sys.argv[1]), page.__file__
sys.stdout.write(page.page_of(json.load(sys.stdin)))
"""


def test_a_report_is_made_from_the_wheel(tmp_path):
    for name in ("engine_format", "miniinfer_cli", "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).symlink_to(ROOT / name)
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    wheel = tmp_path / "dist" / built.stdout.split()[-1]
    with zipfile.ZipFile(wheel) as archive:
        licences = [n for n in archive.namelist() if ".dist-info/licenses/" in n]
    assert len(licences) == 2 and any("uplot" in n for n in licences)
    command = [sys.executable, "-c", REPORT, str(wheel)]
    made = subprocess.run(command, input=json.dumps(profile()), capture_output=True, text=True, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "graph-section" in Page(made.stdout).sections
