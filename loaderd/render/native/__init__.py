"""The kernels in C, which finish loaded images."""
