"""A worker on another machine: the process that runs it there, and what its bytes depend on."""
