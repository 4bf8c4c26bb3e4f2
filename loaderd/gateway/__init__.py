"""The process that stands for the workers on other machines, and leads them through Ray."""
