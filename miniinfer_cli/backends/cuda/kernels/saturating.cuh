// Floating-point results as integers.
#pragma once
#include "types.cuh"

// A whole number in the range of an integer type: `least` is its smallest value, `past` the first beyond its largest.
template <class T, class C> MI_DEVICE T saturated(C whole, C least, C past) {
  if (!(whole > least)) return (T)least;
  return whole >= past ? (T)((T)(past / 2) - 1 + (T)(past / 2)) : (T)whole;
}
