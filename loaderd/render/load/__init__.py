"""Decodes a file and resizes it to an array of the target size."""
