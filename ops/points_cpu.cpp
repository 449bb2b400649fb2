// Reading maps and masks at points on CPUs, for mask losses (PointRend, arXiv 1912.08193).
//
// A plain C interface like that of msda_cpu.cpp, in the same library. All tensors are dense and row-major:
//   maps (M, D, H, W), points (M, K, 2) as normalised (x, y), values (M, D, K). D is 1 where it is not given.
//
// Values are bilinear and zero outside. A task is one map or mask: no two write to the same place, and every sum runs in a
// fixed order, so the bits of a result do not depend on the number of threads. Points are clamped to a border of zeros
// before they become indices: none, NaN and infinite ones included, leads to an access outside.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__GNUC__)
#define POINTS_INLINE __attribute__((always_inline)) inline
#else
#define POINTS_INLINE inline
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define POINTS_HAS_AVX2 1
#else
#define POINTS_HAS_AVX2 0
#endif

namespace {

constexpr int64_t kBlock = 256;       // points whose places are computed together
constexpr int64_t kMaskStep = 7;      // pixels from one byte of a packed mask to the next
constexpr int kBuckets = 1 << 12;     // by which the smallest values are found: sign, exponent and three bits more
constexpr int kBucketShift = 32 - 12;

// Where points of a block lie on a frame of zeros around a map: the cell above and to the left, and the shares of the
// cells below and to the right.
struct Places {
  int32_t cell[kBlock];
  float right[kBlock], below[kBlock];
};

POINTS_INLINE float clamped(float value, float most) {
  value = value > 0 ? value : 0;  // NaN becomes 0
  return value < most ? value : most;
}

// The frame is one cell wider above and on the left, and two below and on the right: `stride` is W + 3.
POINTS_INLINE void locate(const float* __restrict points, int64_t count, int64_t height, int64_t width, Places& places) {
  const float fw = static_cast<float>(width), fh = static_cast<float>(height);
  const int32_t stride = static_cast<int32_t>(width) + 3;
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) {
    const float x = clamped(points[2 * k] * fw + 0.5f, fw + 1), y = clamped(points[2 * k + 1] * fh + 0.5f, fh + 1);
    const int32_t column = static_cast<int32_t>(x), row = static_cast<int32_t>(y);
    places.cell[k] = row * stride + column;
    places.right[k] = x - static_cast<float>(column);
    places.below[k] = y - static_cast<float>(row);
  }
}

int64_t framed_size(int64_t height, int64_t width) { return (height + 3) * (width + 3); }

void frame(const float* map, int64_t height, int64_t width, float* framed) {
  std::fill(framed, framed + framed_size(height, width), 0.0f);
  for (int64_t row = 0; row < height; ++row)
    std::memcpy(framed + (row + 1) * (width + 3) + 1, map + row * width, width * sizeof(float));
}

POINTS_INLINE void read(const float* __restrict framed, int64_t stride, const Places& places, int64_t count,
                        float* __restrict values) {
  for (int64_t k = 0; k < count; ++k) {
    const float* upper = framed + places.cell[k];
    const float* lower = upper + stride;
    const float above = upper[0] + places.right[k] * (upper[1] - upper[0]);
    const float below = lower[0] + places.right[k] * (lower[1] - lower[0]);
    values[k] = above + places.below[k] * (below - above);
  }
}

// Random numbers: the finaliser of MurmurHash3, which spreads every bit of a number over all others, of (key, number).
POINTS_INLINE uint32_t mixed(uint32_t h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// Uniform in [0, 1): 24 bits.
POINTS_INLINE void draw(uint32_t key, uint32_t first, int64_t count, float* __restrict values) {
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t bits = mixed(mixed(first + static_cast<uint32_t>(k)) ^ key);
    values[k] = static_cast<float>(static_cast<int32_t>(bits >> 8)) * (1.0f / (1 << 24));
  }
}

POINTS_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Numbers of the `keep` smallest of non-negative values, NaN last. `numbers` has room for all of them.
void smallest(const float* values, int64_t count, int64_t keep, int32_t* numbers) {
  int32_t histogram[kBuckets] = {};
  for (int64_t k = 0; k < count; ++k) ++histogram[bits_of(values[k]) >> kBucketShift];
  uint32_t last = 0;  // the bucket of the last one that is kept
  int64_t before = 0;
  while (before + histogram[last] < keep) before += histogram[last++];
  int64_t chosen = 0, open = before;  // those of the last bucket come after those of the buckets before it
  for (int64_t k = 0; k < count; ++k) {
    const uint32_t bucket = bits_of(values[k]) >> kBucketShift;
    if (bucket < last) numbers[chosen++] = static_cast<int32_t>(k);
    if (bucket == last) numbers[open++] = static_cast<int32_t>(k);
  }
  const auto less = [values](int32_t a, int32_t b) { return bits_of(values[a]) < bits_of(values[b]); };
  if (keep < open) std::nth_element(numbers + before, numbers + keep, numbers + open, less);
}

struct Uncertain {
  const float* maps;
  float* points;
  int64_t height, width, candidates, keep, total;
  const int64_t* keys;  // one of every map
};

struct Read {
  const float* maps;
  const float* points;
  float* values;
  int64_t channels, height, width, count;
};

struct ReadBackward {
  const float* points;
  const float* grad_values;
  float* grad_maps;
  int64_t channels, height, width, count;
};

struct ReadMasks {
  const uint8_t* rows;
  const int64_t* index;
  const float* points;
  float* values;
  int64_t height, width, columns, count;
};

POINTS_INLINE void run_inline(const Uncertain& p, int64_t map) {
  thread_local std::vector<float> framed, candidates, certainty;
  thread_local std::vector<int32_t> numbers;
  framed.resize(framed_size(p.height, p.width));
  candidates.resize(2 * p.candidates);
  certainty.resize(p.candidates);
  numbers.resize(p.candidates);
  const uint32_t key = mixed(static_cast<uint32_t>(p.keys[map])) ^ static_cast<uint32_t>(p.keys[map] >> 32);
  frame(p.maps + map * p.height * p.width, p.height, p.width, framed.data());
  Places places;
  for (int64_t first = 0; first < p.candidates; first += kBlock) {
    const int64_t count = std::min(kBlock, p.candidates - first);
    float* points = candidates.data() + 2 * first;
    float* values = certainty.data() + first;
    draw(key, static_cast<uint32_t>(2 * first), 2 * count, points);
    locate(points, count, p.height, p.width, places);
    read(framed.data(), p.width + 3, places, count, values);
    for (int64_t k = 0; k < count; ++k) values[k] = std::fabs(values[k]);
  }
  smallest(certainty.data(), p.candidates, p.keep, numbers.data());
  float* chosen = p.points + map * p.total * 2;
  for (int64_t k = 0; k < p.keep; ++k) std::memcpy(chosen + 2 * k, candidates.data() + 2 * numbers[k], 2 * sizeof(float));
  draw(key, static_cast<uint32_t>(2 * p.candidates), 2 * (p.total - p.keep), chosen + 2 * p.keep);
}

POINTS_INLINE void run_inline(const Read& p, int64_t map) {
  thread_local std::vector<float> framed;
  framed.resize(framed_size(p.height, p.width));
  frame(p.maps + map * p.height * p.width, p.height, p.width, framed.data());
  Places places;
  for (int64_t first = 0; first < p.count; first += kBlock) {
    const int64_t count = std::min(kBlock, p.count - first);
    locate(p.points + 2 * (map / p.channels * p.count + first), count, p.height, p.width, places);
    read(framed.data(), p.width + 3, places, count, p.values + map * p.count + first);
  }
}

POINTS_INLINE void run_inline(const ReadBackward& p, int64_t map) {
  thread_local std::vector<float> framed;
  framed.assign(framed_size(p.height, p.width), 0.0f);
  const int64_t stride = p.width + 3;
  Places places;
  for (int64_t first = 0; first < p.count; first += kBlock) {
    const int64_t count = std::min(kBlock, p.count - first), start = map * p.count + first;
    locate(p.points + 2 * (map / p.channels * p.count + first), count, p.height, p.width, places);
    for (int64_t k = 0; k < count; ++k) {
      float* upper = framed.data() + places.cell[k];
      float* lower = upper + stride;
      const float grad = p.grad_values[start + k], below = grad * places.below[k], above = grad - below;
      const float above_right = above * places.right[k], below_right = below * places.right[k];
      upper[0] += above - above_right;
      upper[1] += above_right;
      lower[0] += below - below_right;
      lower[1] += below_right;
    }
  }
  for (int64_t row = 0; row < p.height; ++row)
    std::memcpy(p.grad_maps + (map * p.height + row) * p.width, framed.data() + (row + 1) * stride + 1,
                p.width * sizeof(float));
}

POINTS_INLINE void run_inline(const ReadMasks& p, int64_t mask) {
  const uint8_t* rows = p.rows + p.index[mask] * (p.height + 3) * p.columns;
  const float fw = static_cast<float>(p.width), fh = static_cast<float>(p.height);
  const int32_t columns = static_cast<int32_t>(p.columns);
  int32_t byte[kBlock], shift[kBlock];
  float right[kBlock], below[kBlock];
  for (int64_t first = 0; first < p.count; first += kBlock) {
    const int64_t count = std::min(kBlock, p.count - first), start = mask * p.count + first;
    const float* __restrict points = p.points + 2 * start;
#pragma omp simd
    for (int64_t k = 0; k < count; ++k) {
      const float x = clamped(points[2 * k] * fw + 0.5f, fw + 1), y = clamped(points[2 * k + 1] * fh + 0.5f, fh + 1);
      const int32_t column = static_cast<int32_t>(x), row = static_cast<int32_t>(y);
      const int32_t place = column / static_cast<int32_t>(kMaskStep);
      byte[k] = row * columns + place;
      shift[k] = place * static_cast<int32_t>(kMaskStep) + 6 - column;
      right[k] = x - static_cast<float>(column);
      below[k] = y - static_cast<float>(row);
    }
    float* __restrict values = p.values + start;
    for (int64_t k = 0; k < count; ++k) {
      const int upper = rows[byte[k]] >> shift[k], lower = rows[byte[k] + columns] >> shift[k];
      const float upper_left = static_cast<float>(upper >> 1 & 1), upper_right = static_cast<float>(upper & 1);
      const float lower_left = static_cast<float>(lower >> 1 & 1), lower_right = static_cast<float>(lower & 1);
      const float over = upper_left + right[k] * (upper_right - upper_left);
      const float under = lower_left + right[k] * (lower_right - lower_left);
      values[k] = over + below[k] * (under - over);
    }
  }
}

template <typename Problem>
void run_baseline(const Problem& problem, int64_t task) {
  run_inline(problem, task);
}

#if POINTS_HAS_AVX2
template <typename Problem>
__attribute__((target("avx2,fma"))) void run_avx2(const Problem& problem, int64_t task) {
  run_inline(problem, task);
}
#endif

template <typename Problem>
void run(const Problem& problem, int64_t tasks, int threads, int baseline) {
  void (*runner)(const Problem&, int64_t) = run_baseline<Problem>;
#if POINTS_HAS_AVX2
  if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) runner = run_avx2<Problem>;
#else
  (void)baseline;
#endif
  (void)threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && tasks > 1)
  for (int64_t task = 0; task < tasks; ++task) runner(problem, task);
}

}  // namespace

extern "C" {

// Points (M, total, 2) for maps: of `candidates` random ones the `keep` where the map is nearest to 0, then random ones.
// `keys` (M,) decide about the random numbers.
void points_uncertain(const float* maps, int64_t count, int64_t height, int64_t width, const int64_t* keys,
                      int64_t candidates, int64_t keep, int64_t total, float* points, int threads, int baseline) {
  run(Uncertain{maps, points, height, width, candidates, keep, total, keys}, count, threads, baseline);
}

void points_read(const float* maps, int64_t count, int64_t channels, int64_t height, int64_t width, const float* points,
                 int64_t each, float* values, int threads, int baseline) {
  run(Read{maps, points, values, channels, height, width, each}, count * channels, threads, baseline);
}

// The gradient of the maps is written.
void points_read_backward(const float* points, int64_t count, int64_t channels, int64_t height, int64_t width,
                          const float* grad_values, int64_t each, float* grad_maps, int threads, int baseline) {
  run(ReadBackward{points, grad_values, grad_maps, channels, height, width, each}, count * channels, threads, baseline);
}

// `rows` (N, H + 3, columns) are masks as detrex/structures/masks.py packs them; mask index[m] is read at points m.
void points_read_masks(const uint8_t* rows, const int64_t* index, int64_t count, int64_t height, int64_t width,
                       int64_t columns, const float* points, int64_t each, float* values, int threads, int baseline) {
  run(ReadMasks{rows, index, points, values, height, width, columns, each}, count, threads, baseline);
}

}  // extern "C"
