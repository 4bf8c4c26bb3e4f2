"""What to load: files, their numbers, their order, their random draws."""
