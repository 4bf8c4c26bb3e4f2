"""Sessions, streams and leases; independent of Keras."""
