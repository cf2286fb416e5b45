// Convolutions of 8-bit integers, channels last, and what follows them up to the integers that leave, by the tensor cores of sm_80.
//
// A block of 256 threads makes 128 pixels x MI_FEATURES. Of the windows of these pixels, and of the weights, slices of 64 bytes
// (along taps and channels) come into shared memory three ahead. What lies outside the image is the zero point. The sums leave by
// way of shared memory, where y = sum * scale[feature] + bias[feature], then the residual, bounds, and rounding follow.
// MI_X: i8 or u8; MI_FEATURES: 64 or 128; the macros of integer_ending.cuh.
#include "integer_ending.cuh"
#include "integer_mma.cuh"

#define MI_PIXELS 128
#define MI_BYTES 64                // of a slice
#define MI_PITCH (MI_BYTES + 16)   // of a row in shared memory: eight rows begin in different banks
#define MI_AHEAD 4                 // slices there are
#define MI_SLICE_NBYTES ((MI_PIXELS + MI_FEATURES) * MI_PITCH)
#define MI_SUM_PITCH (MI_FEATURES + 4)
#define MI_COLUMNS (MI_FEATURES / 2)  // of a warp, which has 32 pixels

// Sixteen bytes along the channels of one place of an image, and where the next slice is.
struct Along {
  int channel, down, across, depth;
  MI_DEVICE void start(int at, const Window& w) {
    depth = at;
    int tap = at / w.channels;
    channel = at % w.channels;
    down = tap / w.taps_across;
    across = tap % w.taps_across;
  }
  MI_DEVICE void advance(const Window& w) {
    depth += MI_BYTES;
    channel += MI_BYTES;
    while (channel >= w.channels) {
      channel -= w.channels;
      if (++across == w.taps_across) {
        across = 0;
        down++;
      }
    }
  }
};

extern "C" __global__ void __launch_bounds__(256, 2) integer_conv(
    const MI_X* x, const i8* w, const float* scales, const float* biases, const MI_R* residual, MI_Y* y, int pixels, Window window,
    Ending ending) {
  MI_SHARED(u8, shared);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int pixel0 = blockIdx.x * MI_PIXELS, feature0 = blockIdx.y * MI_FEATURES;
  const int length = window.taps_down * window.taps_across * window.channels;
  const int row = thread / 4, column = thread % 4 * 16;

  // The pixels whose windows this thread fetches: where they begin in the image.
  int first_down[2], first_across[2];
  const MI_X* image[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    int pixel = pixel0 + row + i * 64;
    int across = pixel % window.out_width, rest = pixel / window.out_width;
    int down = rest % window.out_height, number = rest / window.out_height;
    first_down[i] = pixel < pixels ? down * window.stride_down - window.above : -(1 << 28);
    first_across[i] = across * window.stride_across - window.left;
    image[i] = x + (long long)(pixel < pixels ? number : 0) * window.height * window.width * window.channels;
  }
  const u32 fill = (u32)(window.zero & 255) * 0x01010101u;
  Along along;
  along.start(column, window);

  auto fetch = [&](int slice) {
    u8* to = shared + slice % MI_AHEAD * MI_SLICE_NBYTES;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int down = first_down[i] + along.down * window.gap_down, across = first_across[i] + along.across * window.gap_across;
      bool there = (u32)down < (u32)window.height && (u32)across < (u32)window.width && along.depth < length;
      u8* at = to + (row + i * 64) * MI_PITCH + column;
      if (there || !fill) {
        const MI_X* from = image[i] + ((long long)down * window.width + across) * window.channels + along.channel;
        copy_async(at, there ? (const void*)from : (const void*)x, there);
      } else {
        u32* words = reinterpret_cast<u32*>(at);
        words[0] = words[1] = words[2] = words[3] = fill;
      }
    }
#pragma unroll
    for (int i = 0; i < MI_FEATURES / 64; i++) {
      int feature = feature0 + row + i * 64;
      bool there = feature < window.features && along.depth < length;
      const i8* from = w + (long long)(there ? feature : 0) * length + (there ? along.depth : 0);
      copy_async(to + (MI_PIXELS + row + i * 64) * MI_PITCH + column, from, there);
    }
    along.advance(window);
  };

  int sums[2][MI_COLUMNS / 8][4] = {};
  const int slices = (length + MI_BYTES - 1) / MI_BYTES;
  const int warp_pixel = warp / 2 * 32, warp_feature = warp % 2 * MI_COLUMNS;
#pragma unroll
  for (int slice = 0; slice < MI_AHEAD - 1; slice++) {
    if (slice < slices) fetch(slice);
    close_copies();
  }
  for (int slice = 0; slice < slices; slice++) {
    await_copies<MI_AHEAD - 2>();
    __syncthreads();
    if (slice + MI_AHEAD - 1 < slices) fetch(slice + MI_AHEAD - 1);
    close_copies();
    const u8* windows = shared + slice % MI_AHEAD * MI_SLICE_NBYTES;
    const u8* weights = windows + MI_PIXELS * MI_PITCH;
#pragma unroll
    for (int k = 0; k < MI_BYTES; k += 32) {
      u32 a[2][4];
#pragma unroll
      for (int i = 0; i < 2; i++) load_rows(a[i], windows + (warp_pixel + i * 16) * MI_PITCH + k, MI_PITCH);
#pragma unroll
      for (int j = 0; j < MI_COLUMNS / 16; j++) {
        u32 b[4];
        load_rows(b, weights + (warp_feature + j * 16) * MI_PITCH + k, MI_PITCH);
#pragma unroll
        for (int i = 0; i < 2; i++) {
          integer_mma(sums[i][2 * j], a[i], b[0], b[2], (const MI_X*)nullptr);
          integer_mma(sums[i][2 * j + 1], a[i], b[1], b[3], (const MI_X*)nullptr);
        }
      }
    }
  }
  await_copies<0>();
  __syncthreads();

  float* tile = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int j = 0; j < MI_COLUMNS / 8; j++) {
    int feature = warp_feature + j * 8 + lane % 4 * 2;
#pragma unroll
    for (int e = 0; e < 2; e++) {
      bool there = feature0 + feature + e < window.features;
      float scale = there ? scales[feature0 + feature + e] : 0.0f, bias = there ? biases[feature0 + feature + e] : 0.0f;
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
          tile[(warp_pixel + i * 16 + half * 8 + lane / 4) * MI_SUM_PITCH + feature + e] =
              __fmaf_rn((float)sums[i][j][half * 2 + e], scale, bias);
    }
  }
  __syncthreads();

  // Four features a thread, so that neighbours read and write neighbours.
  for (int pack = thread; pack < MI_PIXELS * (MI_FEATURES / 4); pack += 256) {
    int place = pack / (MI_FEATURES / 4), feature = feature0 + pack % (MI_FEATURES / 4) * 4;
    int pixel = pixel0 + place;
    if (pixel >= pixels || feature >= window.features) continue;
    Pack<float, 4> from = *reinterpret_cast<const Pack<float, 4>*>(tile + place * MI_SUM_PITCH + (feature - feature0));
    long long at = (long long)pixel * window.features + feature;
    int count = window.features - feature < 4 ? window.features - feature : 4;
    bool whole = window.features % 4 == 0;
    Pack<MI_R, 4> added = {};
    if (residual) {
      if (whole)
        added = *reinterpret_cast<const Pack<MI_R, 4>*>(residual + at);
      else
        for (int e = 0; e < count; e++) added.d[e] = residual[at + e];
    }
    Pack<MI_Y, 4> made = {};
#pragma unroll
    for (int e = 0; e < 4; e++) made.d[e] = ended(from.d[e], residual ? (float)widen(added.d[e]) : ending.residual_zero, ending);
    if (whole)
      *reinterpret_cast<Pack<MI_Y, 4>*>(y + at) = made;
    else
      for (int e = 0; e < count; e++) y[at + e] = made.d[e];
  }
}
