"""One sample: from a file to finished pixels."""
