"""Does a plan give the numbers of the model it was built from? Behind ``build --verify``."""

from miniinfer_cli.verification.comparison import TOLERANCES, OutputError, compare
from miniinfer_cli.verification.report import SizeResult, Verification
from miniinfer_cli.verification.trials import expect_shapes
from miniinfer_cli.verification.verify import verify_plan

__all__ = ["TOLERANCES", "OutputError", "SizeResult", "Verification", "compare", "expect_shapes", "verify_plan"]
