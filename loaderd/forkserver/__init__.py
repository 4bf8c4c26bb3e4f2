"""The process from which workers and openers are forked."""
