// Masks at output size as run-length encodings, in one pass on CPUs: resizing, comparing with zero, encoding.
//
// A plain C interface without torch or Python headers, in the library of ops/msda_cpu.cpp; detrex/ops/masks.py calls it.
// A mask never exists at output size: eight columns at a time, the cells of each row are resized to the columns, and
// these to the rows of pixels. Rows whose cells are all outside are passed over.
//
// Masks are dense and row-major (N, h, w). Each mask is one task, and its sums run in a fixed order, so the bits of a result
// do not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#if defined(__GNUC__)
#define MASKS_INLINE __attribute__((always_inline)) inline
#else
#define MASKS_INLINE inline
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define MASKS_HAS_AVX2 1
#else
#define MASKS_HAS_AVX2 0
#endif

// How the cells of one axis become pixels. A pixel is the sum of `taps` neighbouring cells, from `first` on, times `weights`
// (pixels, taps). `pixels_of` (cells, 2): the first pixel that a cell has a part in, and the one after the last.
extern "C" struct MaskAxis {
  int64_t cells, pixels, taps;
  const int32_t* first;
  const float* weights;
  const int32_t* pixels_of;
};

// `counts` is what pycocotools calls the compressed run-length encoding, without a zero at the end; free it by
// masks_release. `area` is in pixels, `probability` the sum of the sigmoid of the logits inside.
extern "C" struct MaskResult {
  char* counts;
  int64_t length, area;
  double probability;
};

namespace {

constexpr int64_t kColumns = 8;  // that are computed at a time

struct Problem {
  const float* masks;
  MaskAxis rows, columns;
  bool signed_weights;
  MaskResult* results;
};

// First and one past the last positive cell of each axis; none where they are equal.
struct Extent {
  int64_t top, bottom, left, right;
};

MASKS_INLINE Extent positive_extent(const float* mask, int64_t height, int64_t width) {
  Extent extent{height, 0, width, 0};
  for (int64_t y = 0; y < height; ++y) {
    const float* row = mask + y * width;
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t x = 0; x < width; ++x) largest = row[x] > largest ? row[x] : largest;
    if (!(largest > 0)) continue;
    extent.top = std::min(extent.top, y);
    extent.bottom = y + 1;
    for (int64_t x = 0; x < extent.left; ++x)
      if (row[x] > 0) extent.left = x;
    for (int64_t x = width; x > extent.right; --x)
      if (row[x - 1] > 0) extent.right = x;
  }
  return extent.top < extent.bottom ? extent : Extent{0, 0, 0, 0};
}

// Pixels that cells from `first` to before `last` have a part in, as [begin, end).
MASKS_INLINE void covered(const MaskAxis& axis, int64_t first, int64_t last, int64_t* begin, int64_t* end) {
  *begin = axis.pixels;
  *end = 0;
  for (int64_t cell = first; cell < last; ++cell) {
    if (axis.pixels_of[2 * cell] >= axis.pixels_of[2 * cell + 1]) continue;  // beyond the image
    *begin = std::min<int64_t>(*begin, axis.pixels_of[2 * cell]);
    *end = std::max<int64_t>(*end, axis.pixels_of[2 * cell + 1]);
  }
  if (*begin >= *end) *begin = *end = 0;
}

// Eight numbers. Types of the compiler, so that it need not find out that it can compute them together.
typedef float Floats __attribute__((vector_size(4 * kColumns)));
typedef int32_t Integers __attribute__((vector_size(4 * kColumns)));
typedef uint8_t Bytes __attribute__((vector_size(kColumns)));

// exp(x) for x <= 0, with a relative error below 2e-7: 2 to a whole number, times the polynomial of the rest.
MASKS_INLINE void exponential(Floats& x) {
  const Floats y = x > -87.0f ? x : x - x - 87.0f;
  const Integers whole = __builtin_convertvector(y * 1.44269504f - 0.5f, Integers);
  const Floats n = __builtin_convertvector(whole, Floats);
  const Floats r = (y - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  Floats sum = r * (1.0f / 720) + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Integers exponent = (whole + 127) << 23;
  Floats power;
  std::memcpy(&power, &exponent, sizeof power);
  x = sum * power;
}

// Adds the sigmoid of x to the totals where x > 0.
MASKS_INLINE void add_sigmoid(Floats& totals, const Floats& x) {
  Floats power = -x;
  exponential(power);
  const Floats sigmoid = 1.0f / (1.0f + power);
  totals += x > 0 ? sigmoid : x - x;
}

// As of COCO: numbers of five bits and a sign, as differences to the last but one.
void compress(const std::vector<int64_t>& bounds, int64_t pixels, MaskResult* result) {
  constexpr size_t longest = 13;  // digits of a number of 64 bits
  const size_t counts = bounds.size() + 1;
  char* const text = static_cast<char*>(std::malloc(counts * longest));
  if (text == nullptr) return;
  char* end = text;
  int64_t area = 0, place = 0, last = 0, last_but_one = 0;
  for (size_t i = 0; i < counts; ++i) {
    const int64_t bound = i + 1 < counts ? bounds[i] : pixels;
    const int64_t count = bound - place;
    if (i + 1 == counts && i > 0 && count == 0) break;  // the last run ends with the last pixel
    int64_t value = i > 2 ? count - last_but_one : count;
    for (;;) {
      const int64_t digit = value & 0x1f;
      value >>= 5;
      const bool more = value != ((digit & 0x10) ? -1 : 0);
      *end++ = static_cast<char>((more ? digit | 0x20 : digit) + 48);
      if (!more) break;
    }
    area += i % 2 ? count : 0;
    last_but_one = last;
    last = count;
    place = bound;
  }
  result->counts = text;
  result->length = end - text;
  result->area = area;
}

MASKS_INLINE bool is_set(const Bytes& bytes) {
  uint64_t number;
  static_assert(sizeof number == sizeof bytes);
  std::memcpy(&number, &bytes, sizeof number);
  return number != 0;
}

MASKS_INLINE void encode(const Problem& p, int64_t task) {
  const MaskAxis &rows = p.rows, &columns = p.columns;
  const float* mask = p.masks + task * rows.cells * columns.cells;
  const int64_t height = rows.pixels, width = columns.cells;
  Extent extent{0, rows.cells, 0, columns.cells};
  if (!p.signed_weights) extent = positive_extent(mask, rows.cells, columns.cells);
  int64_t top, bottom, left, right;
  covered(rows, extent.top, extent.bottom, &top, &bottom);
  covered(columns, extent.left, extent.right, &left, &right);

  std::vector<int64_t> bounds;  // begin and end of each run, in pixels down the columns
  std::vector<int32_t> rows_of_changes((bottom - top + 1) * kColumns);
  int32_t change_count[kColumns] = {};
  int32_t* places_of_changes[kColumns];
  for (int64_t j = 0; j < kColumns; ++j) places_of_changes[j] = rows_of_changes.data() + j * (bottom - top + 1);
  std::vector<float> resized(rows.cells * kColumns);  // cells of each row at eight columns
  std::vector<char> alive(rows.cells);                // whether one of these is positive
  std::vector<int32_t> places(columns.taps * kColumns);
  std::vector<float> shares(columns.taps * kColumns);
  const int64_t first_row = top < bottom ? rows.first[top] : 0;
  const int64_t end_row = top < bottom ? rows.first[bottom - 1] + rows.taps : 0;
  double probability = 0;
  for (int64_t strip = left; strip < right; strip += kColumns) {
    const int64_t count = std::min(kColumns, right - strip);
    for (int64_t j = 0; j < kColumns; ++j) {
      for (int64_t k = 0; k < columns.taps; ++k) {
        const int64_t column = strip + std::min(j, count - 1);
        places[k * kColumns + j] = columns.first[column] + static_cast<int32_t>(k);
        shares[k * kColumns + j] = j < count ? columns.weights[column * columns.taps + k] : 0;
      }
    }
    for (int64_t cell = first_row; cell < end_row; ++cell) {
      float sums[kColumns];
      const float* row = mask + cell * width;
      for (int64_t j = 0; j < kColumns; ++j) sums[j] = shares[j] * row[places[j]];
      for (int64_t k = 1; k < columns.taps; ++k) {
        const int32_t* place = places.data() + k * kColumns;
        const float* share = shares.data() + k * kColumns;
        for (int64_t j = 0; j < kColumns; ++j) sums[j] += share[j] * row[place[j]];
      }
      float largest = 0;
      for (int64_t j = 0; j < kColumns; ++j) largest = sums[j] > largest ? sums[j] : largest;
      alive[cell] = largest > 0;
      std::memcpy(resized.data() + cell * kColumns, sums, sizeof sums);
    }

    Bytes before = {};
    Floats totals = {};
    for (int64_t y = top; y < bottom; ++y) {
      const int64_t first = rows.first[y];
      Bytes inside = {};
      bool computed = p.signed_weights;
      for (int64_t k = 0; k < rows.taps; ++k) computed |= alive[first + k] != 0;
      if (computed) {
        const float* weight = rows.weights + y * rows.taps;
        Floats logits = {};
        for (int64_t k = 0; k < rows.taps; ++k) {
          Floats cells;
          std::memcpy(&cells, resized.data() + (first + k) * kColumns, sizeof cells);
          logits += weight[k] * cells;
        }
        inside = __builtin_convertvector(logits > 0, Bytes);
        if (is_set(inside)) add_sigmoid(totals, logits);
      }
      const Bytes changed = inside ^ before;
      if (is_set(changed)) {
        for (int64_t j = 0; j < count; ++j) {
          places_of_changes[j][change_count[j]] = static_cast<int32_t>(y);
          change_count[j] += changed[j] & 1;
        }
        before = inside;
      }
    }
    for (int64_t j = 0; j < count; ++j) {
      probability += totals[j];
      int32_t* const changes = places_of_changes[j];
      if (before[j]) changes[change_count[j]++] = static_cast<int32_t>(bottom);
      if (change_count[j] == 0) continue;
      const int64_t column = (strip + j) * height;
      int32_t begin = 0;
      if (!bounds.empty() && bounds.back() == column + changes[0]) {
        bounds.pop_back();  // a run that goes on from the end of a column to the next one
        begin = 1;
      }
      for (int32_t i = begin; i < change_count[j]; ++i) bounds.push_back(column + changes[i]);
      change_count[j] = 0;
    }
  }
  p.results[task].probability = probability;
  compress(bounds, height * columns.pixels, p.results + task);
}

MASKS_INLINE void exponentials(float* numbers, int64_t count) {
  for (int64_t i = 0; i < count; i += kColumns) {
    Floats x;
    std::memcpy(&x, numbers + i, sizeof x);
    exponential(x);
    std::memcpy(numbers + i, &x, sizeof x);
  }
}

void encode_baseline(const Problem& problem, int64_t task) { encode(problem, task); }

#if MASKS_HAS_AVX2
__attribute__((target("avx2,fma"))) void encode_avx2(const Problem& problem, int64_t task) { encode(problem, task); }

__attribute__((target("avx2,fma"))) void exponentials_avx2(float* numbers, int64_t count) { exponentials(numbers, count); }
#endif

}  // namespace

// exp of `count` numbers, a multiple of eight, of which none is above 0; for ops/msda_cpu.cpp.
void exponentials_of_negatives(float* numbers, int64_t count, bool avx2) {
#if MASKS_HAS_AVX2
  if (avx2) return exponentials_avx2(numbers, count);
#else
  (void)avx2;
#endif
  exponentials(numbers, count);
}

extern "C" {

// Encodes `count` masks; all results must be released. `signed_weights`: some weights are negative, so that cells outside
// can make pixels inside. Returns 0, or 1 where memory does not suffice.
int masks_encode(const float* masks, int64_t count, const MaskAxis* rows, const MaskAxis* columns, int signed_weights,
                 MaskResult* results, int threads, int baseline) {
  const Problem problem{masks, *rows, *columns, signed_weights != 0, results};
  void (*run)(const Problem&, int64_t) = encode_baseline;
#if MASKS_HAS_AVX2
  if (!baseline && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) run = encode_avx2;
#else
  (void)baseline;
#endif
  (void)threads;
  int failures = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(+ : failures) if (threads > 1 && count > 1)
  for (int64_t task = 0; task < count; ++task) {
    results[task] = MaskResult{nullptr, 0, 0, 0};
    try {
      run(problem, task);
    } catch (const std::bad_alloc&) {
    }
    failures += results[task].counts == nullptr;
  }
  return failures > 0;
}

void masks_release(MaskResult* results, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::free(results[i].counts);
}

}  // extern "C"
