"""Sessions, streams and leases; knows nothing of Keras."""
