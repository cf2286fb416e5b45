"""The flags that ``polygraphy run`` has for the runner."""

from typing import Any

from polygraphy.tools.args import ModelArgs, OnnxLoadArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseRunnerArgs
from polygraphy.tools.script import make_invocable


def argument_groups() -> list[Any]:
    """What the entry point gives: one group of flags."""
    return [MiniinferRunnerArgs()]


class MiniinferRunnerArgs(BaseRunnerArgs):
    """miniinfer Inference: running inference with miniinfer."""

    def get_name_opt_impl(self) -> tuple[str, str]:
        """The runner's name, and its flag."""
        return "miniinfer", "miniinfer"

    def add_parser_args_impl(self) -> None:
        """The flags of the group."""
        self.group.add_argument(
            "--miniinfer-device", help="Where miniinfer runs: auto, cpu or cuda:N. Defaults to auto", default=None
        )
        self.group.add_argument(
            "--miniinfer-precision", help="Store the model in f16 or bf16", choices=("f16", "bf16"), default=None
        )
        self.group.add_argument(
            "--miniinfer-opt-level", help="How far miniinfer optimizes: 0 to 3. Defaults to 2", type=int, default=None
        )

    def parse_impl(self, args: Any) -> None:
        """Reads the flags."""
        self.device = args_util.get(args, "miniinfer_device")
        self.options = {
            name: value
            for name in ("precision", "opt_level")
            if (value := args_util.get(args, f"miniinfer_{name}")) is not None
        }  # fmt: skip

    def add_to_script_impl(self, script: Any) -> None:
        """A runner of the model, or of what Polygraphy's own flags make of it."""
        model = self.arg_groups[ModelArgs].path
        if self.arg_groups[OnnxLoadArgs].must_use_onnx_loader():
            model = self.arg_groups[OnnxLoadArgs].add_to_script(script, serialize_model=True)
        script.add_import(imports=["MiniinferRunner"], frm="miniinfer_cli.polygraphy_plugin.runner")
        script.add_runner(make_invocable("MiniinferRunner", model, device=self.device or "auto", options=self.options))
