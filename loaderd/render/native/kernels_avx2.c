/* The kernels for x86-64 processors with AVX2. */
#include <math.h>
#include <string.h>

#include "kernels.h"

#ifdef HAVE_AVX2
#include <immintrin.h>

#define KERNEL(name) name##_avx2
#define TARGET __attribute__((target("avx2,f16c")))
#define WITH_AVX2
#include "kernels.inc.h"

const struct kernels avx2_kernels = {
    "AVX2",
    warp_bytes_avx2,
    warp_floats_avx2,
    mirror_avx2,
    widen_avx2,
    multiply_avx2,
    subtract_avx2,
    divide_avx2,
    halve_avx2,
    shorten_avx2,
    truncate_avx2,
};
#endif
