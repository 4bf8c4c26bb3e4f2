/* The kernels in plain C, for any processor. */
#include <math.h>
#include <string.h>

#include "kernels.h"

#define KERNEL(name) name##_plain
#define TARGET
#include "kernels.inc.h"

const struct kernels plain_kernels = {
    "plain",
    warp_bytes_plain,
    warp_floats_plain,
    mirror_plain,
    look_up_plain,
    sum_colors_plain,
    change_colors_plain,
    widen_plain,
    multiply_plain,
    subtract_plain,
    divide_plain,
    halve_plain,
    shorten_plain,
    truncate_plain,
};
