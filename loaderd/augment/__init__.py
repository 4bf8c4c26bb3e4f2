"""Modern augmentation: operations that draw for each sample, and what they do to an image."""
