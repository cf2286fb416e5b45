// What generated pointwise kernels use; see codegen/pointwise.py.
#pragma once
#include "activations.cuh"
#include "division.cuh"
