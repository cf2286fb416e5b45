// Conv and ConvTranspose of floats: MI_T, MI_ACTIVATION, MI_TRANSPOSED, MI_PIXELS_FIRST, MI_VEC (0: one element a thread).
#include "epilogue.cuh"
#include "convolution.cuh"

typedef computed<MI_T> real;

// y = activation(total + bias + z); bias and z may be null.
struct FloatIo {
  typedef real acc;
  const MI_T* px;
  const MI_T* pw;
  const MI_T* bias;
  const MI_T* z;
  MI_T* y;
  MI_DEVICE real x(index_t at) const { return widen(px[at]); }
  MI_DEVICE real w(index_t at, int) const { return widen(pw[at]); }
  MI_DEVICE void x4(index_t at, bool there, real* to) const { load4(px + at, there, to); }
  MI_DEVICE void w4(index_t at, bool there, real* to) const { load4(pw + at, there, to); }
  MI_DEVICE void load4(const MI_T* from, bool there, real* to) const {
    Pack<MI_T, 4> pack = {};
    if (there) pack = *reinterpret_cast<const Pack<MI_T, 4>*>(from);
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = widen(pack.d[i]);
  }
  MI_DEVICE MI_T finish(real total, int feature, real residual) const {
    if (bias) total += widen(bias[feature]);
    return narrow<MI_T>(epilogue::MI_ACTIVATION(total + residual));
  }
  MI_DEVICE void store(index_t at, int feature, real total) const { y[at] = finish(total, feature, z ? widen(z[at]) : real(0)); }
  MI_DEVICE void store4(index_t at, int feature, const real* total) const {
    real residual[4];
    load4(z + at, z != nullptr, residual);
    Pack<MI_T, 4> pack;
#pragma unroll
    for (int i = 0; i < 4; i++) pack.d[i] = finish(total[i], feature + i, residual[i]);
    *reinterpret_cast<Pack<MI_T, 4>*>(y + at) = pack;
  }
};

#if MI_VEC
extern "C" __global__ void __launch_bounds__(CONV_THREADS)
conv_tiled(const MI_T* x, const MI_T* w, const MI_T* bias, const MI_T* z, MI_T* y, ConvSizes sizes, ConvStrides strides,
           int pixel_tiles, int feature_tiles) {
  conv_tile<MI_TRANSPOSED, MI_PIXELS_FIRST, MI_VEC>(FloatIo{x, w, bias, z, y}, sizes, strides, pixel_tiles, feature_tiles);
}
#else
extern "C" __global__ void conv_direct(const MI_T* x, const MI_T* w, const MI_T* bias, const MI_T* z, MI_T* y, ConvSizes sizes,
                                       ConvStrides strides, index_t count) {
  conv_elements<MI_TRANSPOSED, MI_PIXELS_FIRST>(FloatIo{x, w, bias, z, y}, sizes, strides, count);
}
#endif
