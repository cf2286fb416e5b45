// What generated pointwise kernels use; see codegen/kernel.py.
#pragma once
#include "activations.cuh"
#include "division.cuh"
#include "turn.cuh"
