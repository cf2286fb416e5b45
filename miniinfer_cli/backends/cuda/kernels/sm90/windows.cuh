// The windows of a convolution as tokens, and chunks of weights for them or for rows as they lie.
//
// Windows are read by a map that is im2col: k is the channels of each tap, filled up to whole chunks. The map of their weights has taps
// as an axis of its own, so that zeros are read behind the channels of each. MI_WINDOWS: 1 where tokens are windows.
#pragma once
#include "sm90/copies.cuh"

// Chunks of a tap, and taps across; then, along the width and the height, from where to where a filter's corner goes in which steps,
// how far its taps lie apart, and how many corners there are.
struct Windows { int chunks, across, steps[2], lower[2], spread[2], corners[2]; };

// Where the filter's corner lies for a pixel of the results, counted through all images.
struct Corner {
  int x, y, image;
  MI_DEVICE Corner(const Windows& w, int pixel) {
    int line = pixel / w.corners[0];
    image = line / w.corners[1];
    x = w.lower[0] + (pixel - line * w.corners[0]) * w.steps[0];
    y = w.lower[1] + (line - image * w.corners[1]) * w.steps[1];
  }
};

// A chunk of the weights of features from ``row`` on, to the same place of so many blocks of a cluster.
template <int SHARING> MI_DEVICE void load_weights(u32 to, const TensorMap& weights, u32 barrier, int channel, int tap, int row) {
  const u32 all = (1u << SHARING) - 1;
#if MI_WINDOWS
  if (SHARING > 1) load_box_for(all, to, weights, barrier, channel, tap, row);
  else load_box(to, weights, barrier, channel, tap, row);
#else
  if (SHARING > 1) load_box_for(all, to, weights, barrier, channel, row);
  else load_box(to, weights, barrier, channel, row);
#endif
}
