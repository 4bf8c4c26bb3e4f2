"""A process may use the CPUs and the memory that its affinity and its cgroups leave it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd import machine


class Tree:
    """A folder with the kernel's files."""

    def __init__(self, root: Path, groups: str) -> None:
        self.root = str(root)
        self.write("proc/self/cgroup", groups)

    def write(self, path: str, text: str) -> None:
        file = Path(self.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


class TestMachine:
    @pytest.fixture(autouse=True)
    def eight_cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))

    def test_without_cgroups_affinity_decides(self, tmp_path: Path) -> None:
        assert machine.cpus(str(tmp_path)) == 8
        assert machine.ram(str(tmp_path)) == psutil.virtual_memory().total

    @pytest.mark.parametrize(
        ("quota", "cpus"),
        [("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8)],
    )
    def test_a_quota_of_version_2_is_rounded_down_to_at_least_1(
        self, tmp_path: Path, quota: str, cpus: int
    ) -> None:
        tree = Tree(tmp_path, "0::/user/job")
        tree.write("sys/fs/cgroup/user/job/cpu.max", quota)
        assert machine.cpus(tree.root) == cpus

    def test_the_tightest_of_the_enclosing_groups_decides(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path, "0::/user/job")
        tree.write("sys/fs/cgroup/user/job/cpu.max", "600000 100000")
        tree.write("sys/fs/cgroup/user/cpu.max", "200000 100000")
        tree.write("sys/fs/cgroup/user/job/memory.max", "max")
        tree.write("sys/fs/cgroup/user/memory.max", "1048576")
        assert machine.cpus(tree.root) == 2
        assert machine.ram(tree.root) == 1048576

    @pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("250000", 2)])
    def test_version_1(self, tmp_path: Path, quota: str, cpus: int) -> None:
        tree = Tree(tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/")
        tree.write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", quota)
        tree.write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000")
        tree.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2097152")
        assert machine.cpus(tree.root) == cpus
        assert machine.ram(tree.root) == 2097152

    def test_in_a_container_the_path_is_the_hosts_and_the_top_is_ours(self, tmp_path: Path) -> None:
        tree = Tree(tmp_path, "3:cpu:/docker/4711\n")
        tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000")
        tree.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
        assert machine.cpus(tree.root) == 4

    @given(st.text())
    def test_whatever_the_kernel_writes_there_some_cpu_remains(
        self, tmp_path_factory: pytest.TempPathFactory, quota: str
    ) -> None:
        tree = Tree(tmp_path_factory.mktemp("machine"), "0::/")
        tree.write("sys/fs/cgroup/cpu.max", quota)
        assert 1 <= machine.cpus(tree.root) <= 8
