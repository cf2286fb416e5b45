"""Which release of ONNX Runtime the tests have: what they compare with changes from one to the next."""

import onnxruntime

WRITTEN_AGAINST = (1, 32)
"""The release that tests of its own operators are written against; `make floors` has the lowest that is allowed."""
OLDER = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < WRITTEN_AGAINST
