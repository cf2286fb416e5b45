// d[token][feature] = finish(sum over k of x[token][k] weights[feature][k]) for a few tokens, as when one is decoded at a time.
//
// Each weight is read once, 16 bytes a thread, into rings of the warps; the first MI_STAGES steps of each are under way before the
// block's turn. Weights are the 16 rows of matrix instructions, tokens their 8 columns, so a sum over k needs no shuffles, and eight
// tokens take what one does. A block makes MI_STRIP features over a part of k, of which its warps take steps in turns; a cluster
// has MI_PARTS parts, whose sums the first block finishes, always in one order.
//
// MI_FORM says how weights lie. A lane (group g = lane / 4, place t = lane % 4) multiplies, for each tile of 16 features:
//   0: [k, features] of MI_W, rows `pitch` elements apart. A step is 16 of k; k = 4t .. 4t + 3 of features 8g + 2j, 8g + 2j + 1 of 64.
//      Rows are copied in pieces of MI_STRIP features, 64, 128 or 256: memory likes those best that are long.
//   1: [features, k] likewise; MI_STRIP is 16. A step is 256 of k; of each 32, k = 8t .. 8t + 7 of features g and g + 8.
//   2: numbers of 4 bits, packed by 64 features (MI_STRIP), by 16 of k (a step has four of these), by lanes: word j has k = 4t .. 4t + 3
//      of features 16j + g and 16j + 8 + g (nibbles.cuh). MI_SUBS groups of k in a step have a scale of type MI_S each; where that is
//      one, 2^`together` steps may share it. A nibble is MI_MIDDLE more than its number, or, where MI_ZEROS, with the bits of
//      Nibbles<MI_W> as much more as `zeros` has. Scales and zeros lie by 64 features, by `groups` of k, then by g, j and row.
// MI_W: f16 or bf16, what is multiplied. MI_T: of x and the norm, the same, or f32, which is three numbers of bf16 (columns of their
// own) so that nothing is lost. MI_D: of the result.
//
// MI_NORM: 1 where rows are normalized first, by the root of their mean square; 2 by mean and variance; MI_SHIFTED: and a shift is added.
// MI_HALVES: 2 where an element is made of two sums, of features that lie `features` apart: each other warp has the second. MI_BODY: a
// function that finishes an element; MI_FINISH(s, second, x0, x1, x2, x3, y): its call, of operands as in product.cu.
#include "mma.cuh"
#include "pointwise.cuh"
#include "sm90/copies.cuh"
#include "sm90/nibbles.cuh"
#include "sm90/turns.cuh"

constexpr int THREADS = 32 * MI_WARPS, ALONG = MI_WARPS / MI_HALVES;          // warps that share k
constexpr int PLANES = sizeof(MI_T) == 4 ? 3 : 1, COLUMNS = PLANES * MI_TOKENS;
constexpr int STEP = MI_FORM == 0 ? 16 : MI_FORM == 1 ? 256 : 64;             // of k
constexpr int ACROSS = MI_FORM == 0 ? MI_STRIP / 8 : 32;                      // lanes that copy a row of weights
constexpr int LOADS = MI_FORM == 0 ? MI_STRIP / 16 : MI_FORM == 1 ? 16 : 4;   // of a lane
constexpr int TILES = MI_STRIP / 16;
constexpr int SCALES_NBYTES = MI_FORM == 2 ? MI_SUBS * 64 * (int)sizeof(MI_S) : 0, ZEROS_NBYTES = MI_FORM == 2 && MI_ZEROS ? MI_SUBS * 128 : 0;
constexpr int STAGE_NBYTES = LOADS * 512 + SCALES_NBYTES + ZEROS_NBYTES, RING_NBYTES = MI_WARPS * MI_STAGES * STAGE_NBYTES;
constexpr int ELEMENTS = MI_TOKENS * MI_STRIP;                                // that the block finishes
constexpr int SUMS_NBYTES = MI_WARPS * COLUMNS * MI_STRIP * 4, WORK_NBYTES = RING_NBYTES > SUMS_NBYTES ? RING_NBYTES : SUMS_NBYTES;
constexpr int PARTS_NBYTES = (MI_PARTS - 1) * MI_HALVES * ELEMENTS * 4, TOTALS_NBYTES = MI_NORM ? 8 * (MI_WARPS + MI_TOKENS) : 0;
constexpr int AT_PARTS = WORK_NBYTES, AT_TOTALS = AT_PARTS + PARTS_NBYTES;
constexpr int AT_BARRIER = AT_TOTALS + TOTALS_NBYTES, AT_ROWS = (AT_BARRIER + (MI_PARTS > 1 ? 8 : 0) + 15) / 16 * 16;
constexpr int UNITS = (ELEMENTS + THREADS - 1) / THREADS;
static_assert(COLUMNS <= 8, "a matrix instruction has eight columns");
static_assert(MI_FORM == 0 || MI_STRIP == (MI_FORM == 1 ? 16 : 64), "features that lie together");

MI_BODY

MI_DEVICE void eight(float (&to)[8], const MI_T* from) {
  __align__(16) MI_T read[8];
#pragma unroll
  for (int i = 0; i < (int)(sizeof(read) / 16); i++) reinterpret_cast<uint4*>(read)[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
  for (int i = 0; i < 8; i++) to[i] = widen(read[i]);
}

extern "C" __global__ void __launch_bounds__(THREADS) row_product(
    const u8* weights, const u8* scales, const u8* zeros, const MI_T* x, MI_D* d, const MI_X0* x0, const MI_X1* x1, const MI_X2* x2,
    const MI_X3* x3, Longs<4> rows, const MI_T* scale, const MI_T* shift, float epsilon, long long ldx, long long ldd,
    long long pitch, int features, int k, int steps, int groups, int together) {
  let_next_begin();
  MI_TILES(room);
  int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  int half = warp % MI_HALVES, turn = warp / MI_HALVES;  // which sum is the warp's, and its place among those that share it
  int part = MI_PARTS > 1 ? (int)cluster_rank() : 0, share = (steps + MI_PARTS - 1) / MI_PARTS;
  int first = part * share, mine = steps - first < share ? steps - first : share;
  int strip = (int)(blockIdx.x / MI_PARTS), feature0 = strip * MI_STRIP;
  unsigned char* ring = room + warp * MI_STAGES * STAGE_NBYTES;
#if MI_FORM == 2
  long long tile = strip + half * (features / MI_STRIP);
  const u8* own_weights = weights + (tile * steps + first) * (LOADS * 512) + lane * 16;
  const u8* own_scales = scales + tile * groups * (64 * (int)sizeof(MI_S)) + lane * 16;
  const u8* own_zeros = zeros + tile * groups * 128 + lane * 16;
#else
  const u8* own_weights = weights + (MI_FORM == 0 ? first * STEP * pitch + half * features + feature0
                                                  : (half * features + feature0) * pitch + first * STEP) * 2;
#endif

  // Step `first + i` of k, as the warp's copies into a stage.
  auto load = [&](int i, int stage) {
    unsigned char* to = ring + stage * STAGE_NBYTES;
    if (i < mine) {
#if MI_FORM == 2
#pragma unroll
      for (int l = 0; l < LOADS; l++) copy_async(to + l * 512 + lane * 16, own_weights + (i * LOADS + l) * 512, true);
      int about = MI_SUBS > 1 ? (first + i) * MI_SUBS : (first + i) >> together;
#pragma unroll
      for (int l = 0; l < SCALES_NBYTES; l += 512)
        if (l + lane * 16 < SCALES_NBYTES) copy_async(to + LOADS * 512 + l + lane * 16, own_scales + about * (64 * (int)sizeof(MI_S)) + l, true);
      if (lane * 16 < ZEROS_NBYTES) copy_async(to + LOADS * 512 + SCALES_NBYTES + lane * 16, own_zeros + about * 128, true);
#else
      int piece = lane % ACROSS, down = lane / ACROSS;
#pragma unroll
      for (int l = 0; l < LOADS; l++) {
        int row = l * (32 / ACROSS) + down;
        int at_k = MI_FORM == 0 ? (first + i) * STEP + row : (first + i) * STEP + 8 * piece;
        bool there = at_k < k && feature0 + (MI_FORM == 0 ? 8 * piece : row) < features;
        long long from = MI_FORM == 0 ? (i * STEP + row) * pitch + 8 * piece : row * pitch + i * STEP + 8 * piece;
        int place = MI_FORM == 0 ? piece ^ row / 4 * 2 : piece ^ row % 2 * 4;  // other banks for what is read at one time
        copy_async(to + row * (ACROSS * 16) + place * 16, there ? own_weights + from * 2 : weights, there);
      }
#endif
    }
    close_copies();
  };
#pragma unroll 1
  for (int s = 0; s < MI_STAGES; s++) load(turn + s * ALONG, s);
#if MI_PARTS > 1
  u32 barrier = shared_address(room) + AT_BARRIER;
  if (part == 0 && thread == 0) {
    make_barrier(barrier, 1);
    fence_barriers();
    arrive_expecting(barrier, PARTS_NBYTES);
  }
  come_to_cluster();
#endif
  await_turn();

  // What finishes the elements is read while the weights come.
  MI_X0 v0;
  MI_X1 v1;
  MI_X2 v2;
  MI_X3 v3;
  auto load_operands = [&](int token, int feature) {
    if (MI_OPERANDS > 0) v0 = x0[token * rows.d[0] + (MI_STEP0 ? feature : 0)];
    if (MI_OPERANDS > 1) v1 = x1[token * rows.d[1] + (MI_STEP1 ? feature : 0)];
    if (MI_OPERANDS > 2) v2 = x2[token * rows.d[2] + (MI_STEP2 ? feature : 0)];
    if (MI_OPERANDS > 3) v3 = x3[token * rows.d[3] + (MI_STEP3 ? feature : 0)];
  };
  if (part == 0 && thread < ELEMENTS && feature0 + thread % MI_STRIP < features)
    load_operands(thread / MI_STRIP, feature0 + thread % MI_STRIP);

  // The block's part of the rows, as columns of halves.
  int width = share * STEP + 8;  // and other banks for the next column
  u16* columns = reinterpret_cast<u16*>(room + AT_ROWS);
#if MI_NORM
  constexpr bool ALONE = MI_TOKENS == 1;  // the whole block has one row, else each warp has some
  constexpr int TEAM = ALONE ? THREADS : 32;
  int member = ALONE ? thread : lane;
  float* totals = reinterpret_cast<float*>(room + AT_TOTALS);
  float2* scalings = reinterpret_cast<float2*>(totals + 2 * MI_WARPS);
  float2 scaling;  // what is taken off a row, and what the rest is multiplied by
#pragma unroll 1
  for (int m = ALONE ? 0 : warp; m < MI_TOKENS; m += ALONE ? 1 : MI_WARPS) {
    scaling = {0.0f, 0.0f};
#pragma unroll
    for (int pass = MI_NORM == 2 ? 0 : 1; pass < 2; pass++) {
      float sum = 0;
#pragma unroll 1
      for (int i = member * 8; i < k; i += TEAM * 8) {
        float v[8];
        eight(v, x + m * ldx + i);
#pragma unroll
        for (int e = 0; e < 8; e++) sum += pass ? (v[e] - scaling.x) * (v[e] - scaling.x) : v[e];
      }
#pragma unroll
      for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
      if (ALONE) {
        if (lane == 0) totals[pass * MI_WARPS + warp] = sum;
        __syncthreads();
        sum = 0;
#pragma unroll
        for (int w = 0; w < MI_WARPS; w++) sum += totals[pass * MI_WARPS + w];
      }
      if (pass) scaling.y = 1 / sqrtf(sum / k + epsilon);
      else scaling.x = sum / k;
    }
    if (!ALONE && lane == 0) scalings[m] = scaling;
  }
  if (!ALONE) __syncthreads();
#endif
#pragma unroll 1
  for (int m = 0; m < MI_TOKENS; m++) {
#if MI_NORM
    if (!ALONE) scaling = scalings[m];
#endif
#pragma unroll 1
    for (int i = thread * 8; i < mine * STEP; i += THREADS * 8) {
      int at = first * STEP + i;
      float v[8] = {};
      if (at < k) {
        eight(v, x + m * ldx + at);
#if MI_NORM
        float by[8], plus[8] = {};
        eight(by, scale + at);
        if (MI_SHIFTED) eight(plus, shift + at);
#pragma unroll
        for (int e = 0; e < 8; e++) v[e] = (v[e] - scaling.x) * scaling.y * by[e] + plus[e];
#endif
      }
      __align__(16) u16 made[PLANES][8];
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (PLANES == 3) {
          u16 parts[3];
          three_of(v[e], parts);
#pragma unroll
          for (int p = 0; p < PLANES; p++) made[p][e] = parts[p];
        } else {
          made[0][e] = narrow<MI_W>(v[e]).bits;
        }
      }
#pragma unroll
      for (int p = 0; p < PLANES; p++) *reinterpret_cast<uint4*>(columns + (m * PLANES + p) * width + i) = *reinterpret_cast<uint4*>(made[p]);
    }
  }
  __syncthreads();

  float sums[TILES][4];
#pragma unroll
  for (int j = 0; j < TILES; j++)
#pragma unroll
    for (int e = 0; e < 4; e++) sums[j][e] = 0;
  const u16* column = columns + (g < COLUMNS ? g : 0) * width + (MI_FORM == 1 ? 8 : 4) * t;
  auto factors = [&](u32 (&b)[2], int at) {
    uint2 read = *reinterpret_cast<const uint2*>(column + at);
    b[0] = g < COLUMNS ? read.x : 0;
    b[1] = g < COLUMNS ? read.y : 0;
  };
  int stage = 0;
#pragma unroll 1
  for (int i = turn; i < mine; i += ALONG) {
    await_copies<MI_STAGES - 1>();
    __syncwarp();
    const unsigned char* from = ring + stage * STAGE_NBYTES;
#if MI_FORM == 0
    u32 b[2];
    factors(b, i * STEP);
#pragma unroll
    for (int strip64 = 0; strip64 < TILES / 4; strip64++) {
      u32 w[4][4];
#pragma unroll
      for (int l = 0; l < 4; l++)
        *reinterpret_cast<uint4*>(w[l]) = *reinterpret_cast<const uint4*>(from + (4 * t + l) * (ACROSS * 16) + (8 * strip64 + (g ^ 2 * t)) * 16);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32 a[4] = {lower_halves(w[0][j], w[1][j]), upper_halves(w[0][j], w[1][j]), lower_halves(w[2][j], w[3][j]), upper_halves(w[2][j], w[3][j])};
        mma(sums[4 * strip64 + j], a, b, (MI_W*)nullptr);
      }
    }
#elif MI_FORM == 1
    float others[4] = {};
#pragma unroll
    for (int m = 0; m < STEP / 32; m++) {
      u32 b[2][2];
      factors(b[0], i * STEP + 32 * m);
      factors(b[1], i * STEP + 32 * m + 4);
      const uint4* own = reinterpret_cast<const uint4*>(from) + (4 * m + t ^ g % 2 * 4);
      uint4 even = own[g * 32], odd = own[(g + 8) * 32];
      u32 a[2][4] = {{even.x, odd.x, even.y, odd.y}, {even.z, odd.z, even.w, odd.w}};
      mma(sums[0], a[0], b[0], (MI_W*)nullptr);
      mma(others, a[1], b[1], (MI_W*)nullptr);
    }
#pragma unroll
    for (int e = 0; e < 4; e++) sums[0][e] += others[e];
#else
#pragma unroll
    for (int sub = 0; sub < MI_SUBS; sub++) {
      float parts[TILES][4] = {};
      u32 less_by[2 * TILES];
#pragma unroll
      for (int n = 0; n < 2 * TILES; n++) {
        u32 bits = MI_ZEROS ? reinterpret_cast<const u16*>(from + LOADS * 512 + SCALES_NBYTES)[64 * sub + 8 * g + n] : 0;
        less_by[n] = MI_ZEROS ? bits | bits << 16 : Nibbles<MI_W>::BITS + MI_MIDDLE * 0x00010001u;
      }
#pragma unroll
      for (int l = sub * LOADS / MI_SUBS; l < (sub + 1) * LOADS / MI_SUBS; l++) {
        u32 b[2], w[4];
        factors(b, i * STEP + 16 * l);
        *reinterpret_cast<uint4*>(w) = reinterpret_cast<const uint4*>(from)[l * 32 + lane];
#pragma unroll
        for (int j = 0; j < TILES; j++) {
          u32 a[4];
          spread<MI_W>(a, w[j], less_by[2 * j], less_by[2 * j + 1]);
          mma(parts[j], a, b, (MI_W*)nullptr);
        }
      }
      const MI_S* by = reinterpret_cast<const MI_S*>(from + LOADS * 512) + 64 * sub + 8 * g;
#pragma unroll
      for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) sums[j][e] = fmaf(parts[j][e], widen(by[2 * j + e / 2]), sums[j][e]);
    }
#endif
    __syncwarp();
    load(i + MI_STAGES * ALONG, stage);
    stage = stage + 1 < MI_STAGES ? stage + 1 : 0;
  }
  __syncthreads();  // the ring is read

  float* all = reinterpret_cast<float*>(room);  // by warps, columns and features
#pragma unroll
  for (int e = 0; e < 2; e++) {
    int to = 2 * t + e;
    if (to >= COLUMNS) continue;
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int feature = MI_FORM == 0 ? j / 4 * 64 + 8 * g + 2 * (j % 4) + r : 16 * j + 8 * r + g;
        all[(warp * COLUMNS + to) * MI_STRIP + feature] = sums[j][2 * r + e];
      }
  }
  __syncthreads();

  float own[UNITS][MI_HALVES];
#pragma unroll
  for (int unit = 0; unit < UNITS; unit++) {
    int element = unit * THREADS + thread, token = element / MI_STRIP, at = element % MI_STRIP;
#pragma unroll
    for (int h = 0; h < MI_HALVES; h++) {
      float sum = 0;
      if (element < ELEMENTS) {
#pragma unroll
        for (int w = h; w < MI_WARPS; w += MI_HALVES)
#pragma unroll
          for (int p = 0; p < PLANES; p++) sum += all[(w * COLUMNS + token * PLANES + p) * MI_STRIP + at];
      }
      own[unit][h] = sum;
    }
  }
#if MI_PARTS > 1
  await_cluster();  // the first block has made its barrier
  float* parts = reinterpret_cast<float*>(room + AT_PARTS);
  if (part > 0) {
#pragma unroll
    for (int unit = 0; unit < UNITS; unit++) {
      int element = unit * THREADS + thread;
      if (element >= ELEMENTS) continue;
#pragma unroll
      for (int h = 0; h < MI_HALVES; h++)
        send_to_block(address_in_block(shared_address(parts + ((part - 1) * MI_HALVES + h) * ELEMENTS + element), 0), own[unit][h],
                      address_in_block(barrier, 0));
    }
    return;
  }
  await_in_cluster(barrier, 0);
#pragma unroll
  for (int unit = 0; unit < UNITS; unit++) {
    int element = unit * THREADS + thread;
    if (element >= ELEMENTS) continue;
#pragma unroll
    for (int p = 0; p < MI_PARTS - 1; p++)
#pragma unroll
      for (int h = 0; h < MI_HALVES; h++) own[unit][h] += parts[(p * MI_HALVES + h) * ELEMENTS + element];
  }
#endif
#pragma unroll
  for (int unit = 0; unit < UNITS; unit++) {
    int element = unit * THREADS + thread, token = element / MI_STRIP, feature = feature0 + element % MI_STRIP;
    if (element >= ELEMENTS || feature >= features) continue;
    if (unit) load_operands(token, feature);
    MI_D y;
    MI_FINISH(own[unit][0], own[unit][MI_HALVES - 1], v0, v1, v2, v3, y)
    d[token * ldd + feature] = y;
  }
}
