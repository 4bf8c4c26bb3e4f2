"""The service: supervisor, workers, scheduler."""
