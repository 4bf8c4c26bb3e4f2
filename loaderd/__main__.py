"""``python -m loaderd`` is ``loaderd``."""

from loaderd.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
