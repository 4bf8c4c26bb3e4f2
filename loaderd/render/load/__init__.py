"""A file becomes an array of the target size."""
