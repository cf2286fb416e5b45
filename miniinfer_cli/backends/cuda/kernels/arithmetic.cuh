// Arithmetic that means the same for every type a kernel computes in: integers wrap around and divide by zero to 0, the
// larger and the smaller of floats is NaN when one of them is, as numpy has it.
#pragma once
#include "conversions.cuh"

namespace math {

#define MI_MATH(name, single, wide)                              \
  MI_DEVICE float name(float x) { return ::single(x); }          \
  MI_DEVICE double name(double x) { return ::wide(x); }
MI_MATH(acos, acosf, acos)
MI_MATH(acosh, acoshf, acosh)
MI_MATH(asin, asinf, asin)
MI_MATH(asinh, asinhf, asinh)
MI_MATH(atan, atanf, atan)
MI_MATH(atanh, atanhf, atanh)
MI_MATH(ceil, ceilf, ceil)
MI_MATH(cos, cosf, cos)
MI_MATH(cosh, coshf, cosh)
MI_MATH(erf, erff, erf)
MI_MATH(exp, expf, exp)
MI_MATH(expm1, expm1f, expm1)
MI_MATH(floor, floorf, floor)
MI_MATH(log, logf, log)
MI_MATH(log1p, log1pf, log1p)
MI_MATH(rint, rintf, rint)
MI_MATH(sin, sinf, sin)
MI_MATH(sinh, sinhf, sinh)
MI_MATH(sqrt, sqrtf, sqrt)
MI_MATH(tan, tanf, tan)
MI_MATH(tanh, tanhf, tanh)
MI_MATH(absolute, fabsf, fabs)
#undef MI_MATH

// Signed overflow is undefined in C++; unsigned arithmetic of at least 32 bits wraps.
template <int BYTES> struct Wrapping { typedef u32 type; };
template <> struct Wrapping<8> { typedef u64 type; };
template <class T> using wrapping = typename Wrapping<sizeof(T)>::type;

template <class T> MI_DEVICE T add(T a, T b) { return (T)((wrapping<T>)a + (wrapping<T>)b); }
template <class T> MI_DEVICE T subtract(T a, T b) { return (T)((wrapping<T>)a - (wrapping<T>)b); }
template <class T> MI_DEVICE T multiply(T a, T b) { return (T)((wrapping<T>)a * (wrapping<T>)b); }
template <class T> MI_DEVICE T negate(T x) { return (T)((wrapping<T>)0 - (wrapping<T>)x); }
template <class T> MI_DEVICE T absolute(T x) { return x < (T)0 ? negate(x) : x; }
template <class T> MI_DEVICE T sign(T x) { return (T)((x > (T)0) - (x < (T)0)); }
template <class T> MI_DEVICE T maximum(T a, T b) { return a > b ? a : b; }
template <class T> MI_DEVICE T minimum(T a, T b) { return a < b ? a : b; }

template <class T> MI_DEVICE bool is_minus_one(T x) { return (T)-1 < (T)0 && x == (T)-1; }
template <class T> MI_DEVICE T divide(T a, T b) {  // the least number over -1 is itself
  return b == (T)0 ? (T)0 : is_minus_one(b) ? negate(a) : (T)(a / b);
}
template <class T> MI_DEVICE T remainder(T a, T b) { return b == (T)0 || is_minus_one(b) ? (T)0 : (T)(a % b); }
template <class T> MI_DEVICE T modulo(T a, T b) {
  T r = remainder(a, b);
  return r != (T)0 && (r < (T)0) != (b < (T)0) ? (T)(r + b) : r;
}

#define MI_ARITHMETIC(F)                                         \
  MI_DEVICE F add(F a, F b) { return a + b; }                    \
  MI_DEVICE F subtract(F a, F b) { return a - b; }               \
  MI_DEVICE F multiply(F a, F b) { return a * b; }               \
  MI_DEVICE F divide(F a, F b) { return a / b; }                 \
  MI_DEVICE F negate(F x) { return -x; }                         \
  MI_DEVICE F reciprocal(F x) { return (F)1 / x; }               \
  MI_DEVICE F sign(F x) { return x != x ? x : (F)((x > (F)0) - (x < (F)0)); }
MI_ARITHMETIC(float)
MI_ARITHMETIC(double)
#undef MI_ARITHMETIC

MI_DEVICE double maximum(double a, double b) { return a >= b || a != a ? a : b; }
MI_DEVICE double minimum(double a, double b) { return a <= b || a != a ? a : b; }
#ifdef MI_EMULATED
MI_DEVICE float maximum(float a, float b) { return a >= b || a != a ? a : b; }
MI_DEVICE float minimum(float a, float b) { return a <= b || a != a ? a : b; }
#else
MI_DEVICE float maximum(float a, float b) { float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
MI_DEVICE float minimum(float a, float b) { float r; asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
#endif

MI_DEVICE float remainder(float a, float b) { return ::fmodf(a, b); }
MI_DEVICE double remainder(double a, double b) { return ::fmod(a, b); }
template <class F> MI_DEVICE F float_modulo(F a, F b) {
  F r = remainder(a, b);
  if (b == (F)0) return r;  // NaN
  if (r == (F)0) return b < (F)0 ? -(F)0 : (F)0;
  return (b < (F)0) != (r < (F)0) ? r + b : r;
}
MI_DEVICE float modulo(float a, float b) { return float_modulo(a, b); }
MI_DEVICE double modulo(double a, double b) { return float_modulo(a, b); }

MI_DEVICE float power(float x, float y) { return ::powf(x, y); }
MI_DEVICE float power(float x, double y) { return (float)::pow((double)x, y); }
MI_DEVICE double power(double x, double y) { return ::pow(x, y); }
template <class T> MI_DEVICE T truncated_power(double x, double y) { return convert<T>(::trunc(::pow(x, y))); }
template <class T> MI_DEVICE T integer_power(T x, T y) {
  T r = (T)1;
  for (wrapping<T> n = y < (T)0 ? (wrapping<T>)0 : (wrapping<T>)y; n; n >>= 1) {
    if (n & 1u) r = multiply(r, x);
    x = multiply(x, x);
  }
  return r;
}
template <class T> MI_DEVICE bool is_shift(T y) { return !(y < (T)0) && y < (T)(sizeof(T) * 8); }
template <class T> MI_DEVICE T shift_left(T x, T y) { return is_shift(y) ? (T)((wrapping<T>)x << (int)y) : (T)0; }
template <class T> MI_DEVICE T shift_right(T x, T y) { return is_shift(y) ? (T)(x >> (int)y) : x < (T)0 ? (T)-1 : (T)0; }

}  // namespace math
