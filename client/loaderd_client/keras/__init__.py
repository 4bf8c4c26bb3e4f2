"""Keras's interface to streams."""
