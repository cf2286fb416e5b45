"""What a plan file is: its records, and how they are read and written. Opens plans on any machine; imports nothing of ours.

plan = read_plan("model.plan")
plan.inputs, plan.graph.nodes, plan.tensor_bytes(0)
write_plan(plan.with_target(section), "model.plan")
"""

from engine_format.dtypes import DType
from engine_format.errors import NotDurable, PlanError
from engine_format.plan import Plan
from engine_format.reader import read_plan
from engine_format.records import (
    UNBOUNDED,
    ArrayRecord,
    BindingRecord,
    BuildReport,
    DimensionRange,
    GraphRecord,
    MapSpec,
    NodeRecord,
    OptionalSpec,
    SequenceSpec,
    Tensor,
    TensorSpec,
    TypeSpec,
    ValueRecord,
)
from engine_format.stored import PlanFile, StoredTensor
from engine_format.targets import RecordChooser, StoredKernel, Tactic, TacticKind, TacticRecord, TargetGpu, TargetSection
from engine_format.writer import write_plan

__all__ = [
    "UNBOUNDED",
    "ArrayRecord",
    "BindingRecord",
    "BuildReport",
    "DType",
    "DimensionRange",
    "GraphRecord",
    "MapSpec",
    "NodeRecord",
    "NotDurable",
    "OptionalSpec",
    "Plan",
    "PlanError",
    "PlanFile",
    "RecordChooser",
    "SequenceSpec",
    "StoredKernel",
    "StoredTensor",
    "Tactic",
    "TacticKind",
    "TacticRecord",
    "TargetGpu",
    "TargetSection",
    "Tensor",
    "TensorSpec",
    "TypeSpec",
    "ValueRecord",
    "read_plan",
    "write_plan",
]  # fmt: skip
