// The positions of the pixels of an axis between its cells, and the jobs of the two walks. Nothing
// here differs between processors.
//
// A "gap" is a run of neighboring pixels that are interpolated between the same two cells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fullconv {

struct Gap {
    int64_t first, second;  // cells; equal at the far end, where the weight of `second` is 0
    int64_t start, count;   // pixels
    int64_t slot;           // index of its first weight in `near` and `far`
};

struct Axis {
    int64_t cells, pixels;
    std::vector<Gap> gaps;
    std::vector<float> weight;     // per pixel, of the second cell; 1 minus it is that of the first
    std::vector<float> near, far;  // of the first and the second cell; each gap padded with zeros
};

enum class IdType : int32_t { uint8 = 0, int32 = 1, int64 = 2 };

// Scores (N, K, h, w) with strides in elements, and the two axes of the image.
struct Scores {
    const float* values;
    int64_t stride[4];
    int64_t classes;
    Axis rows, columns;
};

struct Loss {
    Scores scores;
    const void* target = nullptr;  // (N, H, W), contiguous
    IdType target_type = IdType::uint8;
    int64_t ignore_index = 0;
    const float* class_weights = nullptr;  // (K,) or null
    float label_smoothing = 0;
    float* gradient = nullptr;  // like the scores, initially zeros; null: not computed
    int64_t gradient_stride[4] = {};
    float* confidence = nullptr;  // (N, H, W): if not null, only this is computed
};

// The result of one gap between rows of cells.
struct Sums {
    double loss = 0, weight = 0;
    bool in_range = true, finite = true;
};

struct Labels {
    Scores scores;
    void* out;  // (N, H, W), contiguous
    bool wide;  // uint16 instead of uint8
};

// The walks for one instruction set. `room` is scratch memory, initially zeros; its size in floats
// is the result of `*_room`.
struct Walks {
    int64_t (*loss_room)(const Loss&);
    Sums (*loss)(const Loss&, int64_t image, const Gap& row_gap, float* room);
    int64_t (*labels_room)(const Labels&);
    // Gaps from..to of the rows; returns false if a score is not finite.
    bool (*labels)(const Labels&, int64_t image, int64_t from, int64_t to, float* room);
};

}  // namespace fullconv
