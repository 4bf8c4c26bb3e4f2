"""What a worker knows of the memory that it has left."""

from __future__ import annotations

import subprocess
import sys


def test_a_worker_without_descriptors_can_still_say_what_is_wrong() -> None:
    program = (
        "import os, resource\n"
        "from loaderd import memory\n"
        "limit = memory.taken() + 2**28\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n"
        "assert not memory.is_used_up()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "assert not memory.is_used_up()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
