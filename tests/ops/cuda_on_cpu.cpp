// Runs ops/msda_cuda.cu on the CPU: reads problems from standard input, writes results to standard output.
//
// Every tensor is an allocation of its own, so that the address sanitizer sees what is read or written beside it. The
// threads of a warp are fibers that wait for each other in shuffles. MSDA_KERNEL is the path of the kernel.

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(threads)

struct Index {
  unsigned x, y;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

static Index threadIdx, blockIdx, gridDim;

static float __uint_as_float(unsigned bits) {
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

static unsigned __float_as_uint(float x) {
  unsigned result;
  memcpy(&result, &x, sizeof(result));
  return result;
}

template <typename T>
static void atomicAdd(T* target, T x) {
  *target += x;
}

[[maybe_unused]] static void atomicAdd(float4* target, float4 x) {
  *target = {target->x + x.x, target->y + x.y, target->z + x.z, target->w + x.w};
}

[[noreturn]] static void fail(const char* words) {
  fprintf(stderr, "%s\n", words);
  _Exit(1);
}

constexpr int kWarp = 32;

// The threads of one warp, each running until it waits for another.
class Warp {
 public:
  void run(unsigned first, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    first_ = first;
    for (Thread& thread : threads_) {
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = thread.stack.size();
      thread.context.uc_link = nullptr;
      makecontext(&thread.context, enter, 0);
      thread.arrivals = 0;
      thread.ended = false;
    }
    for (bool any = true; any;) {
      any = false;
      for (lane_ = 0; lane_ < kWarp; ++lane_) {
        if (threads_[lane_].ended) continue;
        any = true;
        resume(threads_[lane_]);
      }
    }
  }

  template <typename T>
  T exchange(T x, int partner) {
    const int lane = lane_, turn = ++threads_[lane].arrivals;
    memcpy(threads_[lane].given[turn % 2], &x, sizeof(x));
    for (Thread& other : threads_)
      while (other.arrivals < turn) {
        if (other.ended) fail("a thread ended while its warp exchanges numbers");
        yield();
      }
    memcpy(&x, threads_[partner].given[turn % 2], sizeof(x));
    return x;
  }

  int lane() const { return lane_; }

 private:
  struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 18);
    void* fake_stack = nullptr;
    char given[2][8];
    int arrivals;
    bool ended;
  };

  void resume(Thread& thread) {
    threadIdx.x = first_ + lane_;
    __sanitizer_start_switch_fiber(&own_fake_stack_, thread.stack.data(), thread.stack.size());
    swapcontext(&own_, &thread.context);
    __sanitizer_finish_switch_fiber(own_fake_stack_, nullptr, nullptr);
  }

  void yield() {
    Thread& thread = threads_[lane_];
    __sanitizer_start_switch_fiber(thread.ended ? nullptr : &thread.fake_stack, own_stack_, own_stack_size_);
    swapcontext(&thread.context, &own_);
    __sanitizer_finish_switch_fiber(thread.fake_stack, &own_stack_, &own_stack_size_);
  }

  static void enter();

  Thread threads_[kWarp];
  ucontext_t own_;
  void* own_fake_stack_ = nullptr;
  const void* own_stack_ = nullptr;
  size_t own_stack_size_ = 0;
  const std::function<void()>* kernel_ = nullptr;
  unsigned first_ = 0;
  int lane_ = 0;
};

static Warp warp;

void Warp::enter() {
  __sanitizer_finish_switch_fiber(nullptr, &warp.own_stack_, &warp.own_stack_size_);
  (*warp.kernel_)();
  warp.threads_[warp.lane_].ended = true;
  warp.yield();
}

template <typename T>
static T __shfl_xor_sync(unsigned members, T x, int distance) {
  if (members != ~0u) fail("a shuffle of a part of a warp");
  return warp.exchange(x, warp.lane() ^ distance);
}

#include MSDA_KERNEL

namespace msda {

float to_sum(Half x) {
  _Float16 result;
  memcpy(&result, &x, sizeof(x));
  return static_cast<float>(result);
}

void convert(float x, Half& result) {
  const _Float16 half = static_cast<_Float16>(x);
  memcpy(&result, &half, sizeof(half));
}

}  // namespace msda

// The tensors of a problem, in memory of exactly their size.
template <typename T>
class Tensor {
 public:
  explicit Tensor(long long count) : bytes_(count * sizeof(T)) {
    if (posix_memalign(&memory_, 16, bytes_)) fail("no memory");
    memset(memory_, 0xff, bytes_);  // NaN: what is not written shows
  }
  ~Tensor() { free(memory_); }
  Tensor(const Tensor&) = delete;

  Tensor& read() {
    if (fread(memory_, 1, bytes_, stdin) != bytes_) fail("the input ends too early");
    return *this;
  }
  Tensor& clear() {
    memset(memory_, 0, bytes_);
    return *this;
  }
  void write() const { fwrite(memory_, 1, bytes_, stdout); }
  T* data() const { return static_cast<T*>(memory_); }

 private:
  size_t bytes_;
  void* memory_ = nullptr;
};

struct Problem {
  int backward;
  Index grid;
  Sizes sizes;
};

static void launch(const Problem& problem, const std::function<void()>& kernel) {
  gridDim = problem.grid;
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
      for (unsigned first = 0; first < MSDA_THREADS; first += kWarp) warp.run(first, kernel);
}

static void run(const Problem& p) {
  const long long rows = p.sizes.batch * p.sizes.queries * kHeads, samples = rows * kLevels * kPoints;
  const long long values = p.sizes.batch * p.sizes.tokens * kStride;
  Tensor<Value> value(values), output(rows * kDim);
  Tensor<Sum> locations(2 * samples), weights(samples);
  value.read();
  locations.read();
  weights.read();
  if (!p.backward) {
    launch(p, [&] { msda_forward(value.data(), locations.data(), weights.data(), output.data(), p.sizes); });
    return output.write();
  }
  Tensor<Sum> grad_value(values), grad_locations(2 * samples), grad_weights(samples);
  output.read();  // its gradient
  grad_value.clear();
  launch(p, [&] {
    msda_backward(value.data(), locations.data(), weights.data(), output.data(), grad_value.data(),
                  grad_locations.data(), grad_weights.data(), p.sizes);
  });
  grad_value.write();
  grad_locations.write();
  grad_weights.write();
}

int main() {
  for (Problem problem; fread(&problem, sizeof(problem), 1, stdin) == 1; fflush(stdout)) run(problem);
}
