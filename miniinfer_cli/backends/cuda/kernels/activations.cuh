// Activation functions of f32 and f64, by the formulas of ops/activation.py.
#pragma once
#include "arithmetic.cuh"

namespace math {

// x / y for y >= 1, where the fast division is right within 2 units in the last place; 0 where y is infinite or nearly.
MI_DEVICE float ratio(float x, float y) { return __fdividef(x, y); }
MI_DEVICE double ratio(double x, double y) { return x / y; }

template <class T> MI_DEVICE T relu(T x) { return maximum(x, (T)0); }
template <class T> MI_DEVICE T leaky_relu(T x, T slope) { return x < (T)0 ? multiply(x, slope) : x; }
template <class F> MI_DEVICE F elu(F x, F alpha) { return x < (F)0 ? expm1(x) * alpha : x; }
// At 0 the exponential holds, which tells where alpha is not finite.
template <class F> MI_DEVICE F selu(F x, F alpha, F gamma) { return (x > (F)0 ? x : expm1(x) * alpha) * gamma; }
template <class F> MI_DEVICE F celu(F x, F alpha) { return relu(x) + minimum(expm1(x / alpha) * alpha, (F)0); }
template <class F> MI_DEVICE F sigmoid(F x) { return ratio((F)1, (F)1 + exp(-x)); }
template <class F> MI_DEVICE F clamp01(F x) { return minimum(maximum(x, (F)0), (F)1); }
template <class F> MI_DEVICE F hard_sigmoid(F x, F alpha, F beta) { return clamp01(x * alpha + beta); }
template <class F> MI_DEVICE F hard_swish(F x) { return clamp01(x * (F)(1.0 / 6) + (F)0.5) * x; }
template <class F> MI_DEVICE F softplus(F x) { return relu(x) + log1p(exp(-absolute(x))); }
template <class F> MI_DEVICE F softsign(F x) { return x / ((F)1 + absolute(x)); }
template <class F> MI_DEVICE F swish(F x, F alpha) { return ratio(x, (F)1 + exp(-(x * alpha))); }
template <class F> MI_DEVICE F gelu(F x) { return (erf(x * (F)0.7071067811865476) + (F)1) * (F)0.5 * x; }
template <class F> MI_DEVICE F gelu_tanh(F x) {  // (1 + tanh(z)) / 2 is sigmoid(2 z)
  F z = ((F)0.044715 * x * x + (F)1) * x * (F)0.7978845608028654;
  return ratio(x, (F)1 + exp((F)-2 * z));
}
template <class F> MI_DEVICE F mish(F x) {  // the factor is 1 from 20 on, in f64 too
  F e = exp(minimum(x, (F)20)), n = e * (e + (F)2);
  return n / (n + (F)2) * x;
}
template <class T> MI_DEVICE T shrink(T x, T bias, T limit) {
  return x < -limit ? x + bias : x > limit ? x - bias : (T)0;
}

}  // namespace math
