// Loss, labels and confidence on the CPU: the functions that Python calls, the choice of
// instructions, and the threads. The walks are in loss.inc and labels.inc, compiled for each
// instruction set. Nothing of torch is linked: the arguments are pointers and strides.
#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "plan.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define X86 1
#endif

#define WIDTH 4
namespace fullconv::baseline {
#include "walks.inc"
}
#undef WIDTH

#ifdef X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define WIDTH 8
namespace fullconv::avx2 {
#include "walks.inc"
}
#undef WIDTH
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define WIDTH 16
namespace fullconv::avx512 {
#include "walks.inc"
}
#undef WIDTH
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace fullconv {
namespace {

constexpr int64_t kLongestColumnGap = 64;  // pixels; a tile of the loss has room for at least one
constexpr size_t kOverrun = 16;            // vectors are loaded past the end of the weights

// Pixel p is interpolated at (p - offset) / stride, clamped to the outermost centers. A gap longer
// than `longest` is split.
Axis make_axis(double offset, double stride, int64_t cells, int64_t pixels, int64_t longest) {
    Axis axis{cells, pixels, {}, {}, {}, {}};
    axis.weight.reserve(size_t(pixels) + kOverrun);
    for (int64_t p = 0; p < pixels; p++) {
        const double u = std::clamp((double(p) - offset) / stride, 0.0, double(cells - 1));
        const int64_t first = std::min(int64_t(std::floor(u)), cells - 1);
        axis.weight.push_back(float(u - double(first)));
        const bool same = !axis.gaps.empty() && axis.gaps.back().first == first &&
                          axis.gaps.back().count < longest;
        if (same)
            axis.gaps.back().count++;
        else
            axis.gaps.push_back({first, std::min(first + 1, cells - 1), p, 1, 0});
    }
    for (Gap& gap : axis.gaps) {
        gap.slot = int64_t(axis.near.size());
        for (int64_t i = 0; i < (gap.count + 7) / 8 * 8; i++) {
            const bool there = i < gap.count;
            const float far = there ? axis.weight[size_t(gap.start + i)] : 0.f;
            axis.far.push_back(far);
            axis.near.push_back(there ? 1.f - far : 0.f);
        }
    }
    axis.weight.resize(size_t(pixels) + kOverrun, 0.f);
    return axis;
}

const Walks* walks_named(int level) {
#ifdef X86
    if (level == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &avx512::walks;
    if (level == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &avx2::walks;
#endif
    return level == 0 ? &baseline::walks : nullptr;
}

int best_level() {
    for (int level = 2; level > 0; level--)
        if (walks_named(level)) return level;
    return 0;
}

int level_in_use = -1;

const Walks& walks() {
    if (level_in_use < 0) level_in_use = best_level();
    return *walks_named(level_in_use);
}

struct Room {
    explicit Room(int64_t floats) : memory(new (std::nothrow) float[size_t(floats)]()) {}
    std::unique_ptr<float[]> memory;
};

Scores scores_of(const float* values, const int64_t* shape, const int64_t* strides,
                 const double* grid, const int64_t* size) {
    Scores s{values, {strides[0], strides[1], strides[2], strides[3]}, shape[1], {}, {}};
    s.rows = make_axis(grid[0], grid[1], shape[2], size[0], size[0]);
    s.columns = make_axis(grid[0], grid[1], shape[3], size[1], kLongestColumnGap);
    return s;
}

enum Status : int { done = 0, no_memory = 1, not_finite = 2, stray_id = 3 };

// Processes every gap of rows of every image. Two neighboring gaps add to the same row of the
// gradient, so the even ones run first and then the odd ones: no two threads add to the same cell,
// and the order of additions does not depend on the number of threads.
int run_loss(const Loss& job, int64_t batch, int threads, double* sums) {
    const Walks& how = walks();
    const int64_t gaps = int64_t(job.scores.rows.gaps.size());
    const int64_t room_size = how.loss_room(job);
    std::vector<Sums> parts(size_t(batch * gaps));
    bool short_of_memory = false;
#pragma omp parallel num_threads(threads)
    {
        Room room(room_size);
        if (!room.memory) {
#pragma omp atomic write
            short_of_memory = true;
        }
#pragma omp barrier
        for (int64_t odd = 0; odd < 2; odd++) {
            const int64_t each = (gaps + 1 - odd) / 2;
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < batch * each; i++) {
                const int64_t image = i / each, gap = i % each * 2 + odd;
                if (!short_of_memory)
                    parts[size_t(image * gaps + gap)] = how.loss(
                        job, image, job.scores.rows.gaps[size_t(gap)], room.memory.get());
            }
        }
    }
    if (short_of_memory) return no_memory;
    sums[0] = sums[1] = 0;
    int status = done;
    for (const Sums& part : parts) {
        sums[0] += part.loss;
        sums[1] += part.weight;
        if (!part.finite && status == done) status = not_finite;
        if (!part.in_range) status = stray_id;
    }
    return status;
}

int run_labels(const Labels& job, int64_t batch, int threads) {
    const Walks& how = walks();
    const int64_t gaps = int64_t(job.scores.rows.gaps.size());
    const int64_t room_size = how.labels_room(job);
    // Neighboring gaps share a row of cells: a thread processes several in sequence.
    const int64_t chunks = std::min<int64_t>(gaps, std::max<int64_t>(1, 4 * threads / batch));
    int status = done;
#pragma omp parallel num_threads(threads)
    {
        Room room(room_size);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < batch * chunks; i++) {
            const int64_t image = i / chunks, chunk = i % chunks;
            const int64_t from = gaps * chunk / chunks, to = gaps * (chunk + 1) / chunks;
            int now = no_memory;
            if (room.memory)
                now = how.labels(job, image, from, to, room.memory.get()) ? done : not_finite;
            if (now != done) {
#pragma omp atomic write
                status = now;
            }
        }
    }
    return status;
}

}  // namespace
}  // namespace fullconv

#ifdef _WIN32
#define API extern "C" __declspec(dllexport)
#else
#define API extern "C" __attribute__((visibility("default")))
#endif

// Shapes are (N, K, h, w), strides in elements, a grid (offset, stride), a size (H, W).
API int fullconv_loss(const float* values, const int64_t* shape, const int64_t* strides,
                      const double* grid, const int64_t* size, const void* target, int target_type,
                      int64_t ignore_index, const float* class_weights, float label_smoothing,
                      float* gradient, const int64_t* gradient_strides, int threads,
                      double* sums) {
    using namespace fullconv;
    try {
        Loss job{scores_of(values, shape, strides, grid, size),
                 target,
                 IdType(target_type),
                 ignore_index,
                 class_weights,
                 label_smoothing,
                 gradient,
                 {},
                 nullptr};
        if (gradient) std::copy_n(gradient_strides, 4, job.gradient_stride);
        return run_loss(job, shape[0], threads, sums);
    } catch (const std::bad_alloc&) {
        return no_memory;
    }
}

API int fullconv_confidence(const float* values, const int64_t* shape, const int64_t* strides,
                            const double* grid, const int64_t* size, int threads, float* out) {
    using namespace fullconv;
    try {
        Loss job{scores_of(values, shape, strides, grid, size)};
        job.confidence = out;
        double sums[2];
        return run_loss(job, shape[0], threads, sums);
    } catch (const std::bad_alloc&) {
        return no_memory;
    }
}

API int fullconv_labels(const float* values, const int64_t* shape, const int64_t* strides,
                        const double* grid, const int64_t* size, int threads, void* out, int wide) {
    using namespace fullconv;
    try {
        const Labels job{scores_of(values, shape, strides, grid, size), out, wide != 0};
        return run_labels(job, shape[0], threads);
    } catch (const std::bad_alloc&) {
        return no_memory;
    }
}

// Sets the instructions (0 baseline, 1 AVX2, 2 AVX-512), or only queries them (-1). Returns those in
// use, or -1 if this processor does not have the requested ones.
API int fullconv_instructions(int level) {
    using namespace fullconv;
    if (level >= 0) {
        if (level > 2 || !walks_named(level)) return -1;
        level_in_use = level;
    }
    walks();
    return level_in_use;
}
