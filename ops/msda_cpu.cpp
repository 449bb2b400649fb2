// Multi-scale deformable attention on CPUs (Deformable DETR, arXiv 2010.04159), forward and backward.
//
// A plain C interface without torch or Python headers: one library serves every version of both.
// detrex/ops/library.py loads it through ctypes; ops/build.py compiles it.
//
// All tensors are dense and row-major:
//   value (B, S, M, D), locations (B, Q, M, L, P, 2) as normalised (x, y), weights (B, Q, M, L, P), output (B, Q, M, D),
//   shapes (L, 2) as (height, width), whose cells are the S tokens in order.
//
// No two tasks write to the same place and every sum runs in a fixed order, so the bits of a result do not depend on the
// number of threads. Points are compared with the level's borders in floating point before they become indices: no
// location, NaN and infinite ones included, leads to an access outside the level. A location that is not finite makes the
// output of its query and head NaN, as in the PyTorch reference; a finite point outside contributes nothing.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#if defined(__GNUC__)
#define MSDA_INLINE __attribute__((always_inline)) inline
#else
#define MSDA_INLINE inline
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define MSDA_HAS_AVX2 1
#else
#define MSDA_HAS_AVX2 0
#endif

#ifndef MSDA_SOURCE
#define MSDA_SOURCE "unknown"
#endif
#ifndef MSDA_FLAGS
#define MSDA_FLAGS "unknown"
#endif

extern "C" struct MsdaSizes {
  int64_t batch, tokens, heads, dim, queries, levels, points;
};

// Where queries are: (B or 1, Q, L or 1, dims) as normalised (x, y), or as (x, y, width, height). Strides are in numbers, and 0
// where there is one for all.
extern "C" struct MsdaReference {
  const float* places;
  int64_t dims, image_stride, query_stride, level_stride;
};

// In ops/masks_cpu.cpp.
void exponentials_of_negatives(float* numbers, int64_t count, bool avx2);

namespace {

constexpr int64_t kMostSamples = 128;  // of a query and head that are placed here
constexpr int64_t kQueriesPerTask = 512;
constexpr int64_t kQueriesAhead = 6;  // whose samples are fetched: what one head reads is too far apart for the processor to guess

template <typename T>
struct Forward {
  MsdaSizes n;
  const int64_t* shapes;
  const T* value;
  const T* locations;
  const T* weights;
  T* output;
  int64_t stride;  // from a cell of a head to the next one, in channels
  // If not null, `locations` holds offsets from there, and `weights` logits; the latter are to be normalised.
  const MsdaReference* reference;
  bool avx2;
};

template <typename T>
struct Backward {
  MsdaSizes n;
  const int64_t* shapes;
  const T* value;
  const T* locations;
  const T* weights;
  const T* grad_output;
  T* grad_value;
  T* grad_locations;
  T* grad_weights;
};

// A cell beside a sampled point: its bilinear share and how that changes with the point's x and y, in cells.
template <typename T>
struct Corner {
  int64_t cell;
  T share, slope_x, slope_y;
};

// Writes the corners that lie inside the level and returns how many they are. (x, y) is in cells.
template <typename T>
MSDA_INLINE int corners_around(T x, T y, int64_t height, int64_t width, Corner<T>* corners) {
  if (!(x > -1 && y > -1 && x < static_cast<T>(width) && y < static_cast<T>(height))) return 0;  // NaN fails, too
  const T floor_x = std::floor(x), floor_y = std::floor(y);
  const int64_t left = static_cast<int64_t>(floor_x), top = static_cast<int64_t>(floor_y);
  const T right_share = x - floor_x, bottom_share = y - floor_y;
  int count = 0;
  for (int dy = 0; dy < 2; ++dy) {
    const int64_t row = top + dy;
    if (row < 0 || row >= height) continue;
    const T share_y = dy ? bottom_share : 1 - bottom_share;
    for (int dx = 0; dx < 2; ++dx) {
      const int64_t column = left + dx;
      if (column < 0 || column >= width) continue;
      const T share_x = dx ? right_share : 1 - right_share;
      corners[count++] = {row * width + column, share_x * share_y, dx ? share_y : -share_y, dy ? share_x : -share_x};
    }
  }
  return count;
}

// Zero where all are finite, NaN elsewhere.
template <typename T>
MSDA_INLINE T nan_unless_finite(T x, T y) {
  return (x - x) + (y - y);
}

template <typename T>
MSDA_INLINE void add_scaled(T* __restrict target, T factor, const T* __restrict source, int64_t dim) {
#pragma omp simd
  for (int64_t d = 0; d < dim; ++d) target[d] += factor * source[d];
}

template <typename T>
MSDA_INLINE T dot(const T* __restrict a, const T* __restrict b, int64_t dim) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < dim; ++d) sum += a[d] * b[d];
  return sum;
}

// Channels that are summed in registers at a time. A type of the compiler, so that it need not find out that it can.
template <typename T>
struct Lanes {
  static constexpr int64_t count = 32 / sizeof(T);
  typedef T type __attribute__((vector_size(32)));
};

template <typename T>
MSDA_INLINE void load(typename Lanes<T>::type& lanes, const T* source) {
  std::memcpy(&lanes, source, sizeof lanes);
}

// Asks for numbers that will be read; they may lie beyond the end of a tensor.
template <typename T>
MSDA_INLINE void prefetch(const T* numbers, int64_t count) {
#if defined(__GNUC__)
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(numbers + i);
#else
  (void)numbers, (void)count;
#endif
}

// Adds what one query and head samples: for kBlocks vectors of channels, in registers, or for any number, in memory. Both
// add in the same order.
template <typename T, int kBlocks>
MSDA_INLINE void forward_query(const Forward<T>& p, const T* value, const T* location, const T* weight, T* output) {
  const MsdaSizes& n = p.n;
  constexpr int64_t width = Lanes<T>::count;
  typename Lanes<T>::type sums[kBlocks > 0 ? kBlocks : 1] = {};
  Corner<T> corners[4];
  for (int64_t level = 0; level < n.levels; ++level) {
    const int64_t rows = p.shapes[2 * level], columns = p.shapes[2 * level + 1];
    for (int64_t point = 0; point < n.points; ++point, ++weight, location += 2) {
      const T x = location[0] * columns - T(0.5), y = location[1] * rows - T(0.5);
      if constexpr (kBlocks > 0) {
        const T right = static_cast<T>(columns - 1), bottom = static_cast<T>(rows - 1);
        if (x >= 0 && y >= 0 && x < right && y < bottom) {  // all four corners are inside, as mostly
          const int64_t left = static_cast<int64_t>(x), top = static_cast<int64_t>(y);
          const T right_share = x - static_cast<T>(left), bottom_share = y - static_cast<T>(top);
          const T factors[4] = {*weight * ((1 - right_share) * (1 - bottom_share)), *weight * (right_share * (1 - bottom_share)),
                                *weight * ((1 - right_share) * bottom_share), *weight * (right_share * bottom_share)};
          const T* upper = value + (top * columns + left) * p.stride;
          const T* lower = upper + columns * p.stride;
          const T* cells[4] = {upper, upper + p.stride, lower, lower + p.stride};
          for (int i = 0; i < 4; ++i) {
            for (int block = 0; block < kBlocks; ++block) {
              typename Lanes<T>::type channels;
              load<T>(channels, cells[i] + block * width);
              sums[block] += factors[i] * channels;
            }
          }
          continue;
        }
      }
      const int count = corners_around(x, y, rows, columns, corners);
      for (int i = 0; i < count; ++i) {
        const T factor = *weight * corners[i].share;
        const T* cell = value + corners[i].cell * p.stride;
        if constexpr (kBlocks == 0) {
          add_scaled(output, factor, cell, n.dim);
        } else {
          for (int block = 0; block < kBlocks; ++block) {
            typename Lanes<T>::type channels;
            load<T>(channels, cell + block * width);
            sums[block] += factor * channels;
          }
        }
      }
      if (count > 0) continue;
      const T nothing = *weight * nan_unless_finite(x, y);
      if (nothing == 0) continue;
      if constexpr (kBlocks == 0) {
        for (int64_t d = 0; d < n.dim; ++d) output[d] += nothing;
      } else {
        for (int block = 0; block < kBlocks; ++block) sums[block] += nothing;
      }
    }
    value += rows * columns * p.stride;
  }
  if constexpr (kBlocks > 0) std::memcpy(output, sums, sizeof sums);
}

// Locations from offsets in cells, or in parts of a box, and weights from logits, of one query and head.
MSDA_INLINE void place_samples(const Forward<float>& p, const float* place, const float* offsets, const float* logits,
                               float* locations, float* weights) {
  const MsdaReference& reference = *p.reference;
  const int64_t count = p.n.levels * p.n.points;
  float largest = logits[0];
  for (int64_t i = 0; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  for (int64_t i = 0; i < count; ++i) weights[i] = logits[i] - largest;
  const int64_t padded = (count + 7) / 8 * 8;
  for (int64_t i = count; i < padded; ++i) weights[i] = 0;
  exponentials_of_negatives(weights, padded, p.avx2);
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += weights[i];
  for (int64_t i = 0; i < count; ++i) weights[i] /= sum;
  for (int64_t level = 0; level < p.n.levels; ++level, place += reference.level_stride) {
    const float rows = static_cast<float>(p.shapes[2 * level]), columns = static_cast<float>(p.shapes[2 * level + 1]);
    for (int64_t point = 0; point < p.n.points; ++point, offsets += 2, locations += 2) {
      if (reference.dims == 2) {
        locations[0] = place[0] + offsets[0] / columns;
        locations[1] = place[1] + offsets[1] / rows;
      } else {
        const float points = static_cast<float>(p.n.points);
        locations[0] = place[0] + offsets[0] / points * place[2] * 0.5f;
        locations[1] = place[1] + offsets[1] / points * place[3] * 0.5f;
      }
    }
  }
}

// A task is one (image, head) and a block of queries.
template <typename T, int kBlocks>
MSDA_INLINE void forward_queries(const Forward<T>& p, int64_t task) {
  const MsdaSizes& n = p.n;
  const int64_t blocks = (n.queries + kQueriesPerTask - 1) / kQueriesPerTask;
  const int64_t first = task % blocks * kQueriesPerTask, last = std::min(first + kQueriesPerTask, n.queries);
  const int64_t head = task / blocks % n.heads, image = task / blocks / n.heads;
  const int64_t cells = p.stride == n.dim ? (image * n.heads + head) * n.tokens : image * n.tokens * n.heads + head;
  const T* value = p.value + cells * n.dim;
  for (int64_t query = first; query < last; ++query) {
    const int64_t row = (image * n.queries + query) * n.heads + head, samples = row * n.levels * n.points;
    T* output = p.output + row * n.dim;
    const int64_t samples_ahead = samples + kQueriesAhead * n.heads * n.levels * n.points;
    prefetch(p.locations + 2 * samples_ahead, 2 * n.levels * n.points);
    prefetch(p.weights + samples_ahead, n.levels * n.points);
    if constexpr (kBlocks == 0) std::fill(output, output + n.dim, T(0));
    const T *locations = p.locations + 2 * samples, *weights = p.weights + samples;
    if constexpr (std::is_same_v<T, float>) {
      float placed[2 * kMostSamples], normalised[kMostSamples];
      if (p.reference != nullptr) {
        const float* place = p.reference->places + image * p.reference->image_stride + query * p.reference->query_stride;
        place_samples(p, place, locations, weights, placed, normalised);
        forward_query<T, kBlocks>(p, value, placed, normalised, output);
        continue;
      }
    }
    forward_query<T, kBlocks>(p, value, locations, weights, output);
  }
}

template <typename T>
MSDA_INLINE void forward_task(const Forward<T>& p, int64_t task) {
  constexpr int64_t width = Lanes<T>::count;
  if (p.n.dim == 4 * width)
    forward_queries<T, 4>(p, task);  // 32 channels of float, the usual number
  else if (p.n.dim == 2 * width)
    forward_queries<T, 2>(p, task);
  else
    forward_queries<T, 0>(p, task);
}

// What four cells of one query's channels have in common with the gradient of its output, and their part of it. `grads` are
// the latter's channels: kBlocks vectors in registers, or none, and then `grad_output` is read.
template <typename T, int kBlocks>
MSDA_INLINE T backward_cell(const typename Lanes<T>::type* grads, const T* grad_output, T factor, const T* cell, T* grad_cell,
                            int64_t dim) {
  if constexpr (kBlocks == 0) {
    add_scaled(grad_cell, factor, grad_output, dim);
    return dot(grad_output, cell, dim);
  } else {
    constexpr int64_t width = Lanes<T>::count;
    typename Lanes<T>::type products = {};
    for (int block = 0; block < kBlocks; ++block) {
      typename Lanes<T>::type channels, sums;
      load<T>(channels, cell + block * width);
      products += grads[block] * channels;
      load<T>(sums, grad_cell + block * width);
      sums += factor * grads[block];
      std::memcpy(grad_cell + block * width, &sums, sizeof sums);
    }
    for (int64_t half = width / 2; half > 0; half /= 2)  // by pairs, which do not wait for one another
      for (int64_t lane = 0; lane < half; ++lane) products[lane] += products[lane + half];
    return products[0];
  }
}

// All queries of one image and head. `value` and `grad_value` are its cells, `stride` channels apart.
template <typename T, int kBlocks>
MSDA_INLINE void backward_queries(const Backward<T>& p, int64_t image, int64_t head, const T* value, T* grad_value,
                                  int64_t stride) {
  const MsdaSizes& n = p.n;
  constexpr int64_t width_of_lanes = Lanes<T>::count;
  typename Lanes<T>::type grads[kBlocks > 0 ? kBlocks : 1] = {};
  Corner<T> corners[4];
  for (int64_t query = 0; query < n.queries; ++query) {
    const int64_t row = (image * n.queries + query) * n.heads + head;
    const T* grad_output = p.grad_output + row * n.dim;
    for (int block = 0; block < kBlocks; ++block) load<T>(grads[block], grad_output + block * width_of_lanes);
    int64_t sample = row * n.levels * n.points, start = 0;
    const int64_t ahead = sample + kQueriesAhead * n.heads * n.levels * n.points;
    prefetch(p.locations + 2 * ahead, 2 * n.levels * n.points);
    prefetch(p.weights + ahead, n.levels * n.points);
    for (int64_t level = 0; level < n.levels; ++level) {
      const int64_t height = p.shapes[2 * level], width = p.shapes[2 * level + 1];
      for (int64_t point = 0; point < n.points; ++point, ++sample) {
        const T weight = p.weights[sample];
        const T x = p.locations[2 * sample] * width - T(0.5), y = p.locations[2 * sample + 1] * height - T(0.5);
        const int count = corners_around(x, y, height, width, corners);
        const T nothing = nan_unless_finite(x, y);
        T grad_weight = nothing, grad_x = nothing, grad_y = nothing;
        for (int i = 0; i < count; ++i) {
          const int64_t cell = (start + corners[i].cell) * stride;
          const T product = backward_cell<T, kBlocks>(grads, grad_output, weight * corners[i].share, value + cell,
                                                      grad_value + cell, n.dim);
          grad_weight += corners[i].share * product;
          grad_x += corners[i].slope_x * product;
          grad_y += corners[i].slope_y * product;
        }
        p.grad_weights[sample] = grad_weight;
        p.grad_locations[2 * sample] = weight * width * grad_x;
        p.grad_locations[2 * sample + 1] = weight * height * grad_y;
      }
      start += height * width;
    }
  }
}

// A task is one (image, head): the only one that adds to that head's part of the value's gradient. With many queries it works
// on copies whose cells follow one another, for the reason given at values_by_head.
template <typename T>
MSDA_INLINE void backward_task(const Backward<T>& p, int64_t task) {
  const MsdaSizes& n = p.n;
  const int64_t head = task % n.heads, image = task / n.heads;
  const int64_t start = (image * n.tokens * n.heads + head) * n.dim, numbers = n.tokens * n.dim;
  const T* value = p.value + start;
  T* grad_value = p.grad_value + start;
  int64_t stride = n.heads * n.dim;
  T* copy = nullptr;
  if (n.heads > 1 && n.queries >= n.tokens / 2) copy = static_cast<T*>(std::malloc(2 * sizeof(T) * numbers));
  if (copy != nullptr) {
    for (int64_t cell = 0; cell < n.tokens; ++cell) {
      std::memcpy(copy + cell * n.dim, value + cell * stride, sizeof(T) * n.dim);
      std::memcpy(copy + numbers + cell * n.dim, grad_value + cell * stride, sizeof(T) * n.dim);
    }
    value = copy;
    grad_value = copy + numbers;
    stride = n.dim;
  }
  constexpr int64_t width = Lanes<T>::count;
  if (n.dim == 4 * width)
    backward_queries<T, 4>(p, image, head, value, grad_value, stride);  // 32 channels of float, the usual number
  else
    backward_queries<T, 0>(p, image, head, value, grad_value, stride);
  if (copy != nullptr)
    for (int64_t cell = 0; cell < n.tokens; ++cell)
      std::memcpy(p.grad_value + start + cell * n.heads * n.dim, grad_value + cell * n.dim, sizeof(T) * n.dim);
  std::free(copy);
}

template <typename T>
void run_task(const Forward<T>& problem, int64_t task) {
  forward_task(problem, task);
}

template <typename T>
void run_task(const Backward<T>& problem, int64_t task) {
  backward_task(problem, task);
}

#if MSDA_HAS_AVX2
template <typename T>
__attribute__((target("avx2,fma"))) void run_task_avx2(const Forward<T>& problem, int64_t task) {
  forward_task(problem, task);
}

template <typename T>
__attribute__((target("avx2,fma"))) void run_task_avx2(const Backward<T>& problem, int64_t task) {
  backward_task(problem, task);
}
#endif

bool has_avx2() {
#if MSDA_HAS_AVX2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

template <typename Problem>
void run(const Problem& problem, int64_t tasks, int threads, int baseline) {
  void (*task_runner)(const Problem&, int64_t) = run_task;
#if MSDA_HAS_AVX2
  if (!baseline && has_avx2()) task_runner = run_task_avx2;
#else
  (void)baseline;
#endif
  (void)threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && tasks > 1)
  for (int64_t task = 0; task < tasks; ++task) task_runner(problem, task);
}

// Values by head, (B, M, S, D). The cells of one head of (B, S, M, D) are far apart in memory, by a power of two mostly, so
// that they share few of a cache's places. Null where memory does not suffice.
template <typename T>
T* values_by_head(const Forward<T>& p, int threads) {
  const MsdaSizes& n = p.n;
  T* copy = static_cast<T*>(std::malloc(sizeof(T) * n.batch * n.tokens * n.heads * n.dim));
  if (copy == nullptr) return nullptr;
  (void)threads;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t token = 0; token < n.batch * n.tokens; ++token) {
    const int64_t image = token / n.tokens, cell = token % n.tokens;
    for (int64_t head = 0; head < n.heads; ++head)
      std::memcpy(copy + ((image * n.heads + head) * n.tokens + cell) * n.dim, p.value + (token * n.heads + head) * n.dim,
                  sizeof(T) * n.dim);
  }
  return copy;
}

template <typename T>
void forward(Forward<T> p, int threads, int baseline) {
  const int64_t blocks = (p.n.queries + kQueriesPerTask - 1) / kQueriesPerTask;
  T* copy = nullptr;
  if (p.n.heads > 1 && p.n.queries >= p.n.tokens / 2) copy = values_by_head(p, threads);  // as in encoders
  if (copy != nullptr) {
    p.value = copy;
    p.stride = p.n.dim;
  }
  run(p, p.n.batch * p.n.heads * blocks, threads, baseline);
  std::free(copy);
}

// The gradient of the value is added to, those of locations and weights are written.
template <typename T>
void backward(const Backward<T>& p, int threads, int baseline) {
  run(p, p.n.batch * p.n.heads, threads, baseline);
}

}  // namespace

extern "C" {

// Digest of the source that the library was built from; the loader compares it with the source beside the package.
const char* msda_source() { return MSDA_SOURCE; }

const char* msda_flags() { return MSDA_FLAGS; }

const char* msda_instructions() { return has_avx2() ? "AVX2 and FMA" : "baseline"; }

int msda_has_openmp() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

// `baseline` other than 0 keeps to the instructions of the oldest machine that the library runs on.
#define MSDA_DEFINE(NAME, T)                                                                                          \
  void msda_forward_##NAME(const MsdaSizes* sizes, const int64_t* shapes, const T* value, const T* locations,         \
                           const T* weights, T* output, int threads, int baseline) {                                  \
    forward(Forward<T>{*sizes, shapes, value, locations, weights, output, sizes->heads * sizes->dim, nullptr, false},    \
            threads, baseline);                                                                                       \
  }                                                                                                                   \
  void msda_backward_##NAME(const MsdaSizes* sizes, const int64_t* shapes, const T* value, const T* locations,        \
                            const T* weights, const T* grad_output, T* grad_value, T* grad_locations,                 \
                            T* grad_weights, int threads, int baseline) {                                             \
    backward(Backward<T>{*sizes, shapes, value, locations, weights, grad_output, grad_value, grad_locations,          \
                         grad_weights},                                                                               \
             threads, baseline);                                                                                      \
  }

// The same from what the layers before it give: offsets (B, Q, M, L, P, 2) from where queries are, in cells or in parts of half
// a box, and logits (B, Q, M, L, P) of the weights, whose softmax is taken. At most msda_most_samples of L * P.
void msda_attend_float32(const MsdaSizes* sizes, const int64_t* shapes, const float* value, const MsdaReference* reference,
                         const float* offsets, const float* logits, float* output, int threads, int baseline) {
  const bool avx2 = !baseline && has_avx2();
  forward(Forward<float>{*sizes, shapes, value, offsets, logits, output, sizes->heads * sizes->dim, reference, avx2},
          threads, baseline);
}

int64_t msda_most_samples() { return kMostSamples; }

MSDA_DEFINE(float32, float)
MSDA_DEFINE(float64, double)

}  // extern "C"
