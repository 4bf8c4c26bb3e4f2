"""The process that lists datasets and reserves rings."""
