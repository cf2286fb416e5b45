// Results of interpolation in the type of an output: whole numbers of 8 bits and more saturate, of smaller ones the low bits
// stay, as the CPU's references have it.
#pragma once
#include "conversions.cuh"

// `whole` in the range of an integer type, of which `least` is the smallest value and `past` the first beyond the largest;
// any other type has neither and is rounded to.
template <class T, bool SATURATES, class C> MI_DEVICE T finished(C whole, C least, C past) {
  if constexpr (SATURATES) {
    if (!(whole > least)) return (T)least;
    return whole >= past ? (T)((T)(past / 2) - 1 + (T)(past / 2)) : (T)whole;
  } else {
    return narrow<T>(convert<computed<T>>(whole));
  }
}
