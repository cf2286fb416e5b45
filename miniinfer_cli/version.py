"""The release, in one place: the package, the plans it writes and the distribution take it from here."""

VERSION = "0.1.0"

ONNXRUNTIME = "1.22.0"
"""The release of onnxruntime whose names ``miniinfer_cli.ort`` has: what programs that ask for its version are told."""
