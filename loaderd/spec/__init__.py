"""What a stream is: frozen values, pure."""
