"""Caches of decoded images."""
