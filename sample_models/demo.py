"""``make demo``: build the digits network into a plan, run it on the held-out images, check what it recognised.

    python -m sample_models.demo

Exit code 0 when at least LEAST_ACCURACY of the images are recognised, 1 when not, and a command's own code when it fails.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
LEAST_ACCURACY = 0.97
SHOWN = 6
SHADES = " .:-=+*#%@"


def demo(model: Path, data: Path, folder: Path) -> int:
    """Build ``model`` into ``folder``, run it on the images of ``data`` (.npz: image, label) and print how many were right."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, logits = folder / f"{model.stem}.plan", folder / f"{model.stem}_logits.npz"
    for arguments in (
        ["build", model, "-o", plan],
        ["run", plan, "--input", f"image={_shown(data)}", "--iterations", "100", "--duration", "0", "--output", logits],
    ):
        code = run_command([_shown(item) if isinstance(item, Path) else item for item in arguments])
        if code:
            return code
    with np.load(data) as held_out, np.load(logits) as answers:
        images, labels, found = held_out["image"], held_out["label"], answers["logits"].argmax(axis=1)
    print("\n".join(_pictures(images[:SHOWN, 0])))
    print("".join(f"  it is {answer}".ljust(18) for answer in found[:SHOWN]))
    right = int(np.sum(found == labels))
    accuracy = right / len(labels)
    print(f"\nAccuracy: {right} of {len(labels)} held-out images recognised ({accuracy:.2%}; required: {LEAST_ACCURACY:.0%})")
    return 0 if accuracy >= LEAST_ACCURACY else 1


def run_command(arguments: list[str]) -> int:
    """Run one miniinfer command as a user would; its exit code."""
    print(f"$ miniinfer {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "miniinfer_cli", *arguments], check=False).returncode
    print(flush=True)
    return code


def _pictures(images: np.ndarray) -> list[str]:
    """Lines of text with the images [n, 8, 8] side by side, two characters a pixel."""
    shades = np.array(list(SHADES))[(images * (len(SHADES) - 1)).round().astype(int)]
    return ["  ".join("".join(2 * pixel for pixel in row) for row in line) for line in shades.swapaxes(0, 1)]


def _shown(path: Path) -> str:
    """The path as one would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(demo(FOLDER / "digits.onnx", FOLDER / "digits_test.npz", FOLDER / "generated"))
