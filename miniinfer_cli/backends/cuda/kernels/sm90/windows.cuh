// Where the windows of a convolution lie, for maps that are im2col.
#pragma once

// Chunks of a tap, and taps across; then, along the width and the height, from where to where a filter's corner goes in which steps,
// how far its taps lie apart, and how many corners there are.
struct Windows { int chunks, across, steps[2], lower[2], spread[2], corners[2]; };
