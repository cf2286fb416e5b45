// What gates channels behind the second product of squeeze-and-excitation, by its name: MI_GATE.
#pragma once
#include "activations.cuh"

namespace gate {
template <class C> MI_DEVICE C sigmoid(C x, C, C) { return math::sigmoid(x); }
template <class C> MI_DEVICE C hard_sigmoid(C x, C alpha, C beta) { return math::hard_sigmoid(x, alpha, beta); }
}  // namespace gate
