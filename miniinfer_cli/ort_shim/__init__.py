"""A folder that makes ``miniinfer_cli.ort`` the ``onnxruntime`` of the processes that have it on their path."""

from pathlib import Path

SITE = Path(__file__).parent / "site"
"""The folder: Python runs the ``sitecustomize`` in it when it starts."""
