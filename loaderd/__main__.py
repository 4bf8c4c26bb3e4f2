"""``python -m loaderd`` is ``loaderd``."""

from loaderd.cli.main import main

# Worker processes may import this file again under another name, and must not run it.
if __name__ == "__main__":
    raise SystemExit(main())
