"""Which samples make up a batch, and the random parameters of each; pure."""
