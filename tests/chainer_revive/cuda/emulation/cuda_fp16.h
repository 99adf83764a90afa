// Runs CUDA on a CPU, one thread a thread, one block after another.
#pragma once
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <thread>
#include <utility>
#include <vector>
#define __global__
#define __device__
#define __shared__ static
using std::isfinite;
using std::isnan;
using std::min;
typedef _Float16 __half;
inline float __half2float(__half x) { return static_cast<float>(x); }
inline __half __float2half_rn(float x) { return static_cast<__half>(x); }
struct Dim { unsigned x, y; };
inline thread_local Dim threadIdx, blockIdx;
inline std::barrier<>* block_barrier;
inline void __syncthreads() { block_barrier->arrive_and_wait(); }

// All threads of the block must come here.
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask) {
    static T values[1024];
    const unsigned i = threadIdx.y * 32 + threadIdx.x;
    values[i] = value;
    __syncthreads();
    const T other = values[i ^ mask];
    __syncthreads();
    return other;
}

template <typename... A, std::size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(args[I])...);
}

template <typename... A>
void launch(void (*kernel)(A...), Dim grid, Dim block, void** args) {
    for (unsigned by = 0; by < grid.y; ++by)
        for (unsigned bx = 0; bx < grid.x; ++bx) {
            std::barrier<> barrier(block.x * block.y);
            block_barrier = &barrier;
            std::vector<std::jthread> threads;
            for (unsigned y = 0; y < block.y; ++y)
                for (unsigned x = 0; x < block.x; ++x)
                    threads.emplace_back([=, &barrier] {
                        threadIdx = {x, y};
                        blockIdx = {bx, by};
                        call(kernel, args, std::index_sequence_for<A...>());
                        barrier.arrive_and_drop();
                    });
        }
}
