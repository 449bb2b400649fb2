// Multi-scale deformable attention on NVIDIA GPUs (Deformable DETR, arXiv 2010.04159), forward and backward.
//
// Free of headers, so that NVRTC compiles it as it is, on machines without a CUDA toolkit. detrex/ops/cuda.py says by macros
// what to compile it for: one set of sizes of a model, known to the compiler, which unrolls the loops over them.
//   MSDA_VALUE                        type of value, output and the output's gradient: float, double, Half or Bfloat
//   MSDA_SUM                          type of everything else, and of all sums: double with double, else float
//   MSDA_HEADS, _DIM, _LEVELS, _POINTS  M, D, L and P below
//   MSDA_FORWARD_VECTOR, _LANES       channels that a thread takes at once, threads that share the channels of a query and head
//   MSDA_BACKWARD_VECTOR, _LANES      the same of the backward pass
//   MSDA_THREADS                      threads of a block
//
// All tensors are dense and row-major, aligned to 16 bytes:
//   value (B, S, M, D), locations (B, Q, M, L, P, 2) as normalised (x, y), weights (B, Q, M, L, P), output (B, Q, M, D).
//
// Offsets of cells from the start of their level are 32 bits wide, all others 64 bits. As on the CPU, points are compared with
// the level's borders in floating point before they become indices: no location, NaN and infinite ones included, leads to an
// access outside the level. A location that is not finite makes the output of its query and head NaN; a finite point outside
// contributes nothing. tests/ops runs this file on the CPU, too, through tests/ops/cuda_on_cpu.cpp.

struct Half {
  unsigned short bits;
};
struct Bfloat {
  unsigned short bits;
};

struct Level {
  int height, width;
  long long start;  // its first token
};

struct Sizes {
  long long batch, tokens, queries;
  Level levels[MSDA_LEVELS];
};

namespace msda {

using Value = MSDA_VALUE;
using Sum = MSDA_SUM;

constexpr int kHeads = MSDA_HEADS, kDim = MSDA_DIM, kLevels = MSDA_LEVELS, kPoints = MSDA_POINTS;
constexpr int kStride = kHeads * kDim;  // between two cells
// As many points as are loaded together: all of a level where they are few.
constexpr int kChunk = kPoints <= 8 ? kPoints : kPoints % 8 == 0 ? 8 : kPoints % 4 == 0 ? 4 : kPoints % 2 == 0 ? 2 : 1;
constexpr int kLevelSamples = kLevels * kPoints;

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T items[N];
};

#ifdef __CUDACC__
__device__ __forceinline__ float to_sum(Half x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
}

__device__ __forceinline__ void convert(float x, Half& result) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
}
#else
float to_sum(Half x);
void convert(float x, Half& result);
#endif

__device__ __forceinline__ float to_sum(Bfloat x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

__device__ __forceinline__ void convert(float x, Bfloat& result) {
  const unsigned bits = __float_as_uint(x);
  // To the nearest, ties to even; adding to a NaN's bits could make it infinite.
  result.bits = x != x ? 0x7fff : static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ float to_sum(float x) { return x; }
__device__ __forceinline__ double to_sum(double x) { return x; }
__device__ __forceinline__ void convert(float x, float& result) { result = x; }
__device__ __forceinline__ void convert(double x, double& result) { result = x; }

// Two numbers out of a register, without moving 16 bits about first.
__device__ __forceinline__ void unpack(unsigned word, Bfloat, float& low, float& high) {
  low = __uint_as_float(word << 16);
  high = __uint_as_float(word & 0xffff0000);
}

__device__ __forceinline__ void unpack(unsigned word, Half, float& low, float& high) {
  low = to_sum(Half{static_cast<unsigned short>(word)});
  high = to_sum(Half{static_cast<unsigned short>(word >> 16)});
}

// The largest power of two up to `limit` that divides `count`.
__host__ __device__ constexpr int widest(int count, int limit) { return count % limit == 0 ? limit : widest(count, limit / 2); }

// Copies N values by accesses of up to 16 bytes. `source` is a multiple of N values from an aligned address.
template <int N, typename T>
__device__ __forceinline__ void load(const T* __restrict__ source, T (&target)[N]) {
  constexpr int width = widest(N, 16 / sizeof(T));
#pragma unroll
  for (int i = 0; i < N; i += width) {
    const Pack<T, width> pack = *reinterpret_cast<const Pack<T, width>*>(source + i);
#pragma unroll
    for (int j = 0; j < width; ++j) target[i + j] = pack.items[j];
  }
}

template <int N, typename T>
__device__ __forceinline__ void store(const T (&source)[N], T* __restrict__ target) {
  constexpr int width = widest(N, 16 / sizeof(T));
#pragma unroll
  for (int i = 0; i < N; i += width) {
    Pack<T, width> pack;
#pragma unroll
    for (int j = 0; j < width; ++j) pack.items[j] = source[i + j];
    *reinterpret_cast<Pack<T, width>*>(target + i) = pack;
  }
}

// Whether four sums can be added to memory at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kAddsVectors = sizeof(Sum) == 4;
#else
constexpr bool kAddsVectors = false;
#endif

__device__ __forceinline__ void add_four(float* target, const float* sums) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  atomicAdd(reinterpret_cast<float4*>(target), float4{sums[0], sums[1], sums[2], sums[3]});
#endif
}

// Adds N sums to memory that others add to at the same time.
template <int N, typename T>
__device__ __forceinline__ void add(T* target, const T (&sums)[N]) {
  if constexpr (kAddsVectors && N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) add_four(target + i, sums + i);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) atomicAdd(target + i, sums[i]);
  }
}

// Which channels the threads of a group take: Vector in a row, in Steps rounds of Lanes threads.
template <int Vector, int Lanes>
struct Group {
  static_assert(kDim % Vector == 0, "vectors do not run over the end of a head");
  static_assert(Lanes <= 32 && (Lanes & (Lanes - 1)) == 0, "a group is a part of a warp");
  static_assert(MSDA_THREADS % Lanes == 0, "groups fill a block");
  static constexpr int kVector = Vector, kCount = MSDA_THREADS / Lanes;
  static constexpr int kSteps = (kDim + Vector * Lanes - 1) / (Vector * Lanes);

  static __device__ __forceinline__ int lane() { return threadIdx.x % Lanes; }
  static __device__ __forceinline__ int channel(int step) { return (step * Lanes + lane()) * Vector; }
  static __device__ __forceinline__ bool has(int step) {
    return kDim == kSteps * Lanes * Vector || channel(step) < kDim;
  }

  // Of the group's query and head, counted within an image.
  static __device__ __forceinline__ long long item() {
    return static_cast<long long>(blockIdx.x) * kCount + threadIdx.x / Lanes;
  }

  // The sum over the group, in all of its threads. All threads of the warp must call it together.
  static __device__ __forceinline__ Sum total(Sum x) {
#pragma unroll
    for (int distance = Lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
    return x;
  }
};

using Forward = Group<MSDA_FORWARD_VECTOR, MSDA_FORWARD_LANES>;
using Backward = Group<MSDA_BACKWARD_VECTOR, MSDA_BACKWARD_LANES>;

// A point among the cells of a level. Corners are numbered 0 to 3: top left, top right, bottom left, bottom right.
struct Sample {
  int cell;  // of the top left corner
  int width;
  bool left, right, top, bottom;  // which columns and rows of corners are inside the level
  Sum x, y;                       // distance from the top left corner, in cells
  Sum nothing;                    // NaN if the location is not finite, else zero

  __device__ __forceinline__ Sample(Sum location_x, Sum location_y, const Level& level) : width(level.width) {
    x = location_x * level.width - Sum(0.5);
    y = location_y * level.height - Sum(0.5);
    const bool inside = x > -1 && y > -1 && x < Sum(level.width) && y < Sum(level.height);  // not if NaN
    nothing = inside ? Sum(0) : (x - x) + (y - y);
    x = inside ? x : Sum(0);
    y = inside ? y : Sum(0);
    const Sum floor_x = floor(x), floor_y = floor(y);
    const int column = static_cast<int>(floor_x), row = static_cast<int>(floor_y);
    x -= floor_x;
    y -= floor_y;
    left = inside && column >= 0;
    right = inside && column + 1 < width;
    top = row >= 0;
    bottom = row + 1 < level.height;
    cell = row * width + column;
  }

  __device__ __forceinline__ bool has(int corner) const { return (corner % 2 ? right : left) && (corner / 2 ? bottom : top); }
  __device__ __forceinline__ Sum share_x(int corner) const { return corner % 2 ? x : 1 - x; }
  __device__ __forceinline__ Sum share_y(int corner) const { return corner / 2 ? y : 1 - y; }
  __device__ __forceinline__ Sum share(int corner) const { return share_x(corner) * share_y(corner); }
  // How the share changes with x and y.
  __device__ __forceinline__ Sum slope_x(int corner) const { return corner % 2 ? share_y(corner) : -share_y(corner); }
  __device__ __forceinline__ Sum slope_y(int corner) const { return corner / 2 ? share_x(corner) : -share_x(corner); }
  __device__ __forceinline__ long long offset(int corner) const {
    return static_cast<long long>(cell + corner / 2 * width + corner % 2) * kStride;
  }
};

// Channels of a cell, zeros where it is not to be read.
template <int N, typename T>
__device__ __forceinline__ void load_if(bool wanted, const T* __restrict__ source, Sum (&target)[N]) {
  if constexpr (sizeof(T) == 2 && N % 2 == 0) {
    Pack<unsigned, N / 2> pack = {};
    if (wanted) pack = *reinterpret_cast<const Pack<unsigned, N / 2>*>(source);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) unpack(pack.items[i], T(), target[2 * i], target[2 * i + 1]);
  } else {
    Pack<T, N> pack = {};
    if (wanted) pack = *reinterpret_cast<const Pack<T, N>*>(source);
#pragma unroll
    for (int i = 0; i < N; ++i) target[i] = to_sum(pack.items[i]);
  }
}

}  // namespace msda

using namespace msda;

// A group of threads computes the output of a query and head. Blocks (x, y): items of an image, images.
extern "C" __global__ void __launch_bounds__(MSDA_THREADS)
    msda_forward(const Value* __restrict__ value, const Sum* __restrict__ locations, const Sum* __restrict__ weights,
                 Value* __restrict__ output, const __grid_constant__ Sizes sizes) {
  using G = Forward;
  const long long item = G::item(), items = sizes.queries * kHeads;
  if (item >= items) return;
  for (long long image = blockIdx.y; image < sizes.batch; image += gridDim.y) {
    const long long row = image * items + item;
    const Value* first = value + image * sizes.tokens * kStride + item % kHeads * kDim;
    Sum sums[G::kSteps][G::kVector] = {};
    Sum nothing = 0;
#pragma unroll 1
    for (int level = 0; level < kLevels; ++level) {
      const Value* start = first + sizes.levels[level].start * kStride;
#pragma unroll 1
      for (int point = 0; point < kPoints; point += kChunk) {
        const long long sample = row * kLevelSamples + level * kPoints + point;
        Sum location[2 * kChunk], weight[kChunk];
        load(locations + 2 * sample, location);
        load(weights + sample, weight);
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          const Sample at(location[2 * i], location[2 * i + 1], sizes.levels[level]);
          nothing += weight[i] * at.nothing;
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            const Sum share = weight[i] * at.share(corner);
#pragma unroll
            for (int step = 0; step < G::kSteps; ++step) {
              Sum channels[G::kVector];
              load_if(at.has(corner) && G::has(step), start + at.offset(corner) + G::channel(step), channels);
#pragma unroll
              for (int j = 0; j < G::kVector; ++j) sums[step][j] += share * channels[j];
            }
          }
        }
      }
    }
#pragma unroll
    for (int step = 0; step < G::kSteps; ++step) {
      if (!G::has(step)) continue;
      Value result[G::kVector];
#pragma unroll
      for (int j = 0; j < G::kVector; ++j) convert(sums[step][j] + nothing, result[j]);
      store(result, output + row * kDim + G::channel(step));
    }
  }
}

// As forward. The gradient of the value is added to, those of locations and weights are written.
extern "C" __global__ void __launch_bounds__(MSDA_THREADS)
    msda_backward(const Value* __restrict__ value, const Sum* __restrict__ locations, const Sum* __restrict__ weights,
                  const Value* __restrict__ grad_output, Sum* __restrict__ grad_value, Sum* __restrict__ grad_locations,
                  Sum* __restrict__ grad_weights, const __grid_constant__ Sizes sizes) {
  using G = Backward;
  const long long items = sizes.queries * kHeads;
  const bool active = G::item() < items;
  const long long item = active ? G::item() : 0;  // others only take part in their warp's sums
  for (long long image = blockIdx.y; image < sizes.batch; image += gridDim.y) {
    const long long row = image * items + item;
    const long long first = image * sizes.tokens * kStride + item % kHeads * kDim;
    Sum grad[G::kSteps][G::kVector];
#pragma unroll
    for (int step = 0; step < G::kSteps; ++step)
      load_if(active && G::has(step), grad_output + row * kDim + G::channel(step), grad[step]);
#pragma unroll 1
    for (int level = 0; level < kLevels; ++level) {
      const long long start = first + sizes.levels[level].start * kStride;
#pragma unroll 1
      for (int point = 0; point < kPoints; point += kChunk) {
        const long long sample = row * kLevelSamples + level * kPoints + point;
        Sum location[2 * kChunk], weight[kChunk];
        load(locations + 2 * sample, location);
        load(weights + sample, weight);
#pragma unroll
        for (int i = 0; i < kChunk; ++i) {
          const Sample at(location[2 * i], location[2 * i + 1], sizes.levels[level]);
          Sum products[4] = {};  // of the output's gradient with the corners
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            const Sum share = weight[i] * at.share(corner);
#pragma unroll
            for (int step = 0; step < G::kSteps; ++step) {
              const bool wanted = active && at.has(corner) && G::has(step);
              const long long offset = start + at.offset(corner) + G::channel(step);
              Sum channels[G::kVector], change[G::kVector];
              load_if(wanted, value + offset, channels);
#pragma unroll
              for (int j = 0; j < G::kVector; ++j) {
                products[corner] += grad[step][j] * channels[j];
                change[j] = share * grad[step][j];
              }
              if (wanted) add(grad_value + offset, change);
            }
          }
          Sum along_x = at.nothing, along_y = at.nothing, along_weight = at.nothing;
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            along_x += at.slope_x(corner) * products[corner];
            along_y += at.slope_y(corner) * products[corner];
            along_weight += at.share(corner) * products[corner];
          }
          location[2 * i] = weight[i] * sizes.levels[level].width * G::total(along_x);
          location[2 * i + 1] = weight[i] * sizes.levels[level].height * G::total(along_y);
          weight[i] = G::total(along_weight);
        }
        if (active && G::lane() == 0) {
          store(location, grad_locations + 2 * sample);
          store(weight, grad_weights + sample);
        }
      }
    }
  }
}
