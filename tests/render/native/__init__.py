"""The kernels in C."""
