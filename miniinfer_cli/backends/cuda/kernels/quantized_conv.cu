// ConvInteger and QLinearConv: products of 8-bit integers less their zero points, summed in 32 bits that wrap around.
// MI_X, MI_W; MI_Y (i32 for plain totals); MI_X_SCALE, MI_W_SCALE, MI_Y_SCALE where the totals are requantized; MI_PIXELS_FIRST;
// MI_VEC (0: one element a thread).
#include "convolution.cuh"

struct QuantizedIo {
  typedef u32 acc;  // wraps around where a signed type would overflow
  const MI_X* px;
  const MI_W* pw;
  const MI_X* x_zero;  // zero points may be null
  const MI_W* w_zero;
  int w_zero_step;  // 1 where each feature has a zero point of its own, else 0
  MI_Y* y;
#ifdef MI_Y_SCALE
  const MI_X_SCALE* x_scale;
  const MI_W_SCALE* w_scale;
  int w_scale_step;
  const MI_Y_SCALE* y_scale;
  const MI_Y* y_zero;
  const i32* bias;
#endif
  MI_DEVICE u32 x(index_t at) const { return (u32)((i32)px[at] - (x_zero ? (i32)*x_zero : 0)); }
  MI_DEVICE u32 w(index_t at, int feature) const { return (u32)((i32)pw[at] - (w_zero ? (i32)w_zero[feature * w_zero_step] : 0)); }
  MI_DEVICE void x4(index_t, bool, u32*) const {}
  MI_DEVICE void w4(index_t, bool, u32*) const {}
  MI_DEVICE void store4(index_t, int, const u32*) const {}
  MI_DEVICE void store(index_t at, int feature, u32 total) const {
#ifdef MI_Y_SCALE
    if (bias) total += (u32)bias[feature];
    float scale = __fdiv_rn(__fmul_rn(widen(*x_scale), widen(w_scale[feature * w_scale_step])), widen(*y_scale));
    float scaled = rintf(__fmul_rn((float)(i32)total, scale)) + (y_zero ? (float)*y_zero : 0.0f);
    float least = (MI_Y)-1 < (MI_Y)0 ? -128.0f : 0.0f;
    y[at] = (MI_Y)(int)fminf(fmaxf(scaled, least), least + 255.0f);
#else
    y[at] = (MI_Y)total;
#endif
  }
};

#ifdef MI_Y_SCALE
#define MI_OPERANDS                                                                                     \
  const MI_X *x, const MI_W *w, const MI_X *x_zero, const MI_W *w_zero, int w_zero_step, MI_Y *y,       \
      const MI_X_SCALE *x_scale, const MI_W_SCALE *w_scale, int w_scale_step, const MI_Y_SCALE *y_scale, \
      const MI_Y *y_zero, const i32 *bias
#define MI_IO QuantizedIo{x, w, x_zero, w_zero, w_zero_step, y, x_scale, w_scale, w_scale_step, y_scale, y_zero, bias}
#else
#define MI_OPERANDS const MI_X *x, const MI_W *w, const MI_X *x_zero, const MI_W *w_zero, int w_zero_step, MI_Y *y
#define MI_IO QuantizedIo{x, w, x_zero, w_zero, w_zero_step, y}
#endif

#if MI_VEC
extern "C" __global__ void __launch_bounds__(CONV_THREADS)
quantized_conv_tiled(MI_OPERANDS, ConvSizes sizes, ConvStrides strides, int pixel_tiles, int feature_tiles) {
  conv_tile<false, MI_PIXELS_FIRST, 1>(MI_IO, sizes, strides, pixel_tiles, feature_tiles);
}
#else
extern "C" __global__ void quantized_conv_direct(MI_OPERANDS, ConvSizes sizes, ConvStrides strides, index_t count) {
  conv_elements<false, MI_PIXELS_FIRST>(MI_IO, sizes, strides, count);
}
#endif
