"""Decoded images that are kept: never decode the same image twice."""
