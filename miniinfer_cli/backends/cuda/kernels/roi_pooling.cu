// RoiAlign and MaxRoiPool: a thread for each element of y [regions, channels, bins high, bins wide].
#include "conversions.cuh"

typedef computed<MI_T> C;

// Coordinates are computed in f64, as the reference does: how many samples a bin has depends on their last bits.
struct Span {
  double start, length, step;
  int per_bin, size;
};
MI_DEVICE Span span_of(C from, C to, int bins, int size, int ratio, bool at_least_one) {
  Span s;
  s.start = (double)from;
  s.length = (double)to - (double)from;
  if (at_least_one && !(s.length > 1)) s.length = 1;
  double wanted = ceil(s.length / bins);
  s.per_bin = ratio > 0 ? ratio : wanted > 0 && wanted < 1e9 ? (int)wanted : 0;
  s.size = size;
  s.step = (double)bins * (s.per_bin > 0 ? s.per_bin : 1);
  return s;
}

// A sample's neighbours and weights; false where it lies outside and weighs nothing.
MI_DEVICE bool sample_at(const Span& s, i64 number, int* low, int* high, double* low_weight, double* high_weight) {
  double place = s.start + ((double)number + 0.5) * s.length / s.step;
  if (!(place >= -1 && place <= s.size)) return false;
  place = place < 0 ? 0 : place > s.size - 1 ? s.size - 1 : place;
  *low = (int)place;
  *high = *low + 1 < s.size ? *low + 1 : s.size - 1;
  *high_weight = place - *low;
  *low_weight = 1 - *high_weight;
  return true;
}

// Those samples of a bin that may lie inside: [*from, *to). A region far larger than the image has few of its many there.
MI_DEVICE void samples_inside(const Span& s, int bin, int* from, int* to) {
  double first = s.start + (double)bin * s.per_bin * s.length / s.step, gap = s.length / s.step;
  *from = 0;
  *to = s.per_bin;
  if (!(gap > 0)) return;
  double low = floor((-1 - first) / gap) - 2, high = ceil((s.size - first) / gap) + 2;
  if (low > 0) *from = low < s.per_bin ? (int)low : s.per_bin;
  if (high < s.per_bin) *to = high > 0 ? (int)high : 0;
}

MI_DEVICE C larger(C a, C b) { return a > b || a != a ? a : b; }

extern "C" __global__ void roi_align(const MI_T* x, const MI_T* rois, const i64* images, MI_T* y, index_t count, int n,
                                     int channels, int height, int width, int bins_high, int bins_wide, C scale, int ratio,
                                     int half, int maximum) {
  for (index_t g = mi_first(); g < count; g += mi_step()) {
    index_t lead = g / bins_wide, plane = lead / bins_high, region = plane / channels;
    int column = (int)(g - lead * bins_wide), row = (int)(lead - plane * bins_high), channel = (int)(plane - region * channels);
    i64 image = images[region];
    if (image < 0) image += n;
    C shift = half ? (C)0.5 : (C)0, corner[4];
    for (int i = 0; i < 4; i++) {
      C scaled = widen(rois[region * 4 + i]) * scale;
      corner[i] = scaled - shift;
    }
    Span down = span_of(corner[1], corner[3], bins_high, height, ratio, !half);
    Span across = span_of(corner[0], corner[2], bins_wide, width, ratio, !half);
    C result = 0;
    if (image >= 0 && image < n && down.per_bin > 0 && across.per_bin > 0) {
      const MI_T* source = x + ((index_t)image * channels + channel) * height * width;
      int r0, r1, c0, c1;
      samples_inside(down, row, &r0, &r1);
      samples_inside(across, column, &c0, &c1);
      // A sample outside takes part in a maximum as a zero.
      bool any = maximum && (r1 - r0 < down.per_bin || c1 - c0 < across.per_bin);
      C best = 0, sum = 0;
      for (int i = r0; i < r1; i++) {
        int top, bottom;
        double top_weight, bottom_weight;
        bool inside = sample_at(down, (i64)row * down.per_bin + i, &top, &bottom, &top_weight, &bottom_weight);
        C line = 0;
        for (int j = c0; j < c1; j++) {
          int left, right;
          double left_weight, right_weight;
          bool there = inside && sample_at(across, (i64)column * across.per_bin + j, &left, &right, &left_weight, &right_weight);
          if (!there) {
            best = any ? larger(best, 0) : 0;
            any = true;
            continue;
          }
          const MI_T *upper = source + (index_t)top * width, *lower = source + (index_t)bottom * width;
          C a = widen(upper[left]), b = widen(upper[right]), c = widen(lower[left]), d = widen(lower[right]);
          if (maximum) {
            a *= (C)(top_weight * left_weight);
            b *= (C)(top_weight * right_weight);
            c *= (C)(bottom_weight * left_weight);
            d *= (C)(bottom_weight * right_weight);
            C most = larger(larger(a, b), larger(c, d));
            best = any ? larger(best, most) : most;
            any = true;
          } else {
            line += (C)top_weight * (a * (C)left_weight + b * (C)right_weight) +
                    (C)bottom_weight * (c * (C)left_weight + d * (C)right_weight);
          }
        }
        sum += line;
      }
      result = maximum ? best : sum / ((C)down.per_bin * (C)across.per_bin);
    }
    y[g] = narrow<MI_T>(result);
  }
}

// Halves away from zero; far beyond any image the value no longer matters.
MI_DEVICE i64 whole(C x) {
  C rounded = trunc(x + (signbit(x) ? (C)-0.5 : (C)0.5));
  return rounded > (C)1e12 ? (i64)1e12 : rounded > (C)-1e12 ? (i64)rounded : (i64)-1e12;
}
MI_DEVICE i64 floor_divide(i64 a, i64 b) { return a / b - (a % b != 0 && a < 0); }  // b > 0
MI_DEVICE int within(i64 place, int size) { return place < 0 ? 0 : place > size ? size : (int)place; }

extern "C" __global__ void max_roi_pool(const MI_T* x, const MI_T* rois, MI_T* y, index_t count, int n, int channels, int height,
                                        int width, int bins_high, int bins_wide, C scale) {
  for (index_t g = mi_first(); g < count; g += mi_step()) {
    index_t lead = g / bins_wide, plane = lead / bins_high, region = plane / channels;
    int column = (int)(g - lead * bins_wide), row = (int)(lead - plane * bins_high), channel = (int)(plane - region * channels);
    const MI_T* roi = rois + region * 5;
    C number = widen(roi[0]);
    i64 image = number > -(C)n - 1 && number < (C)n ? (i64)number : -n - 1;
    if (image < 0) image += n;
    i64 x1 = whole(widen(roi[1]) * scale), y1 = whole(widen(roi[2]) * scale);
    i64 x2 = whole(widen(roi[3]) * scale), y2 = whole(widen(roi[4]) * scale);
    i64 high = y2 - y1 + 1 > 1 ? y2 - y1 + 1 : 1, wide = x2 - x1 + 1 > 1 ? x2 - x1 + 1 : 1;
    int top = within(y1 + floor_divide(row * high, bins_high), height);
    int bottom = within(y1 - floor_divide(-(row + 1) * high, bins_high), height);
    int left = within(x1 + floor_divide(column * wide, bins_wide), width);
    int right = within(x1 - floor_divide(-(column + 1) * wide, bins_wide), width);
    MI_T result = narrow<MI_T>((C)0);
    if (image >= 0 && bottom > top && right > left) {
      const MI_T* source = x + ((index_t)image * channels + channel) * height * width;
      C best = widen(source[(index_t)top * width + left]);
      for (int i = top; i < bottom; i++)
        for (int j = left; j < right; j++) best = larger(best, widen(source[(index_t)i * width + j]));
      result = narrow<MI_T>(best);
    }
    y[g] = result;
  }
}
