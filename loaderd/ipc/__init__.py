"""What two processes must agree on: messages, sockets, shared memory."""
