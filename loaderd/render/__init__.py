"""Renders one sample: from a file to finished pixels."""
