"""The specification of a stream: frozen values; pure."""
