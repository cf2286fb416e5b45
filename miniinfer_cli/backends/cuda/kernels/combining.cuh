// What a scattered update does to the element in its place: MI_REDUCTION 1 adds, 2 multiplies, 3 takes the larger, 4 the smaller.
// Narrow floats are combined in f32 and rounded by who stores them.
#pragma once
#include "arithmetic.cuh"

MI_DEVICE computed<MI_T> combine(computed<MI_T> old, computed<MI_T> update) {
#if MI_REDUCTION == 1
  return math::add(old, update);
#elif MI_REDUCTION == 2
  return math::multiply(old, update);
#elif MI_REDUCTION == 3
  return math::maximum(old, update);
#else
  return math::minimum(old, update);
#endif
}
