// The activation that a convolution of ours applies to its sums, of one argument: MI_ACTIVATION, by its name (problems.py).
#pragma once
#include "activations.cuh"

namespace epilogue {
template <class C> MI_DEVICE C none(C x) { return x; }
template <class C> MI_DEVICE C relu(C x) { return math::relu(x); }
template <class C> MI_DEVICE C relu6(C x) { return math::minimum(math::relu(x), C(6)); }
template <class C> MI_DEVICE C sigmoid(C x) { return math::sigmoid(x); }
template <class C> MI_DEVICE C tanh(C x) { return math::tanh(x); }
template <class C> MI_DEVICE C swish(C x) { return math::swish(x, C(1)); }
template <class C> MI_DEVICE C gelu(C x) { return math::gelu(x); }
template <class C> MI_DEVICE C gelu_tanh(C x) { return math::gelu_tanh(x); }
template <class C> MI_DEVICE C elu(C x) { return math::elu(x, C(1)); }
template <class C> MI_DEVICE C hard_swish(C x) { return math::hard_swish(x); }  // no library has it
}  // namespace epilogue
