"""What a tuned plan keeps of what it held before."""

import dataclasses

import pytest

from engine_format.targets import StoredKernel, TacticRecord, TargetGpu, TargetSection
from miniinfer_cli.devices.tuning import _with_older
from tests.emulation.engine import plan_of

GPU = TargetGpu("one", 132, 50 << 20)
OLDER = TargetSection(
    "sm_90",
    {"nvrtc": "13.0", "cudnn": "9.19"},
    kernels=(StoredKernel("a", "1", b"a"), StoredKernel("b", "2", b"b")),
    gpu=GPU,
    records=(TacticRecord("batch 8", "rows", "r", kernels=(0,)), TacticRecord("batch 1", "cudnn", "cudnn 9.19", kernels=(1,))),
)


@pytest.mark.parametrize(
    ("libraries", "signatures"),
    [
        ({"nvrtc": "13.0"}, ["batch 1", "batch 64", "batch 8"]),  # no tactic of cuDNN was found this time
        ({"nvrtc": "13.0", "cudnn": "9.19"}, ["batch 1", "batch 64", "batch 8"]),
        ({"nvrtc": "13.0", "cudnn": "9.20"}, ["batch 64"]),
    ],
)
def test_records_for_other_sizes_stay_unless_a_library_changed(libraries: dict[str, str], signatures: list[str]):
    new = TargetSection(
        "sm_90",
        libraries,
        kernels=(StoredKernel("b", "2", b"b"), StoredKernel("c", "3", b"c")),
        gpu=GPU,
        records=(TacticRecord("batch 64", "c", "r", kernels=(1,)),),
    )
    plan = dataclasses.replace(plan_of("graph main(x: f32[2]) {\n y = Neg(x)\n return y\n}"), targets=(OLDER,))
    made = _with_older(new, plan)
    assert [r.signature for r in made.records] == signatures
    launched = {r.signature: [made.kernels[n].name for n in r.kernels] for r in made.records}
    wanted = {"batch 1": ["b"], "batch 8": ["a"], "batch 64": ["c"]}
    assert launched == {s: wanted[s] for s in signatures}
    assert dict(made.libraries) == ({**OLDER.libraries, **libraries} if len(signatures) > 1 else libraries)
