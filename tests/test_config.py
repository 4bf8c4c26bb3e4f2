"""Settings come from the first layer that has them; a bad one is named with its place."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd import config, machine
from loaderd.config import Address, Settings
from loaderd.errors import InvalidArgument
from loaderd.ipc import segment

GIB = 2**30


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "loaderd"


def toml(folder: Path, text: str) -> str:
    path = folder / "loaderd.toml"
    path.write_text(text)
    return str(path)


def load(environ: dict[str, str] | None = None, **flags: str | None) -> Settings:
    return config.load(flags, environ or {})


class TestOrder:
    def test_defaults(self, runtime: Path) -> None:
        got = load()
        assert (got.name, got.socket) == ("default", str(runtime / "default.sock"))
        assert got.workers == machine.cpus()
        assert 0 < got.memory <= min(psutil.virtual_memory().total // 4, segment.total())
        assert (got.owner, got.ready_fd) == (None, None)

    def test_flags_win_over_variables_those_over_the_file_that_over_defaults(
        self, tmp_path: Path
    ) -> None:
        file = toml(tmp_path, 'name = "file"\nworkers = 3\nmemory = "3G"\n')
        environ = {"LOADERD_WORKERS": "2", "LOADERD_MEMORY": "2G", "LOADERD_CONFIG": file}
        got = load(environ, memory="1G", workers=None)
        assert (got.memory, got.workers, got.name) == (GIB, 2, "file")

    def test_a_config_flag_wins_over_its_variable(self, tmp_path: Path) -> None:
        file = toml(tmp_path, "workers = 7")
        assert load({"LOADERD_CONFIG": "/nowhere"}, config=file).workers == 7

    def test_an_empty_variable_counts_as_unset(self, runtime: Path) -> None:
        got = load({"LOADERD_SOCKET": "", "LOADERD_NAME": "", "LOADERD_CONFIG": ""})
        assert got.socket == str(runtime / "default.sock")

    def test_auto_is_the_default_said_aloud(self, tmp_path: Path) -> None:
        file = toml(tmp_path, "workers = 1\nmemory = 1")
        got = load({}, config=file, workers="auto", memory="auto")
        assert got.workers == machine.cpus()
        assert got.memory > 1

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            load().workers = 3  # type: ignore[misc]


class TestAddress:
    def test_a_name_becomes_a_socket_in_the_runtime_folder(self, runtime: Path) -> None:
        got = config.locate({"name": "gpu0"}, {})
        assert got == Address("gpu0", str(runtime / "gpu0.sock"), True)

    def test_a_socket_gives_the_name(self) -> None:
        assert config.locate({"socket": "/x/gpu0.sock"}, {}).name == "gpu0"

    def test_beside_a_socket_a_name_is_only_a_name(self) -> None:
        got = config.locate({"socket": "/x/s", "name": "gpu0"}, {})
        assert (got.name, got.socket) == ("gpu0", "/x/s")

    def test_a_flag_with_a_name_wins_over_a_variable_with_a_socket(self, runtime: Path) -> None:
        got = config.locate({"name": "gpu0"}, {"LOADERD_SOCKET": "/x/s", "LOADERD_NAME": "n"})
        assert (got.name, got.socket) == ("gpu0", str(runtime / "gpu0.sock"))

    def test_a_relative_socket_is_made_absolute(self) -> None:
        assert config.locate({"socket": "s"}, {}).socket == os.path.abspath("s")

    def test_the_default_is_not_chosen(self) -> None:
        assert not config.locate({"name": None}, {}).chosen
        assert config.locate({}, {"LOADERD_NAME": "default"}).chosen


class TestRefusals:
    @pytest.mark.parametrize(
        "value", ["0", "-1", "two", "1.5", "", "٣", "1_000", "99999", "9" * 5000]
    )
    def test_workers(self, value: str) -> None:
        with pytest.raises(InvalidArgument, match=r'^--workers: .* from 1 to \d+, or "auto"$'):
            load(workers=value)

    @pytest.mark.parametrize(
        "value", ["0", "-1G", "lots", "1X", "1.5.5G", "101%", "0%", "", "1e9", "9" * 30, "nan"]
    )
    def test_memory(self, value: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--memory: .* allowed are bytes, 512M"):
            load(memory=value)

    @pytest.mark.parametrize("value", ["0", "-1", "abc", "50%"])
    def test_the_size_of_caches_is_no_share(self, value: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--cache-size: .* allowed are bytes") as caught:
            load(cache_size=value)
        assert "%" not in str(caught.value).partition("allowed are")[2]

    @pytest.mark.parametrize("value", ["true", "1.0", "[1]", "-3", '"many"', "1979-05-27"])
    @pytest.mark.parametrize("key", ["workers", "memory"])
    def test_a_value_of_the_wrong_kind_in_the_file(
        self, tmp_path: Path, key: str, value: str
    ) -> None:
        file = toml(tmp_path, f"{key} = {value}")
        with pytest.raises(InvalidArgument, match=f"^{file}: {key}: "):
            load(config=file)

    def test_a_variable_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match=r"^LOADERD_WORKERS: 'x' is not allowed"):
            load({"LOADERD_WORKERS": "x"})

    def test_an_unknown_key_is_named_with_its_file(self, tmp_path: Path) -> None:
        file = toml(tmp_path, "wokers = 3")
        with pytest.raises(InvalidArgument, match=f"^{file}: there is no key 'wokers'; .*workers"):
            load(config=file)

    @pytest.mark.parametrize("text", ["workers = ", "\ufeffworkers = 1"])
    def test_a_file_that_is_no_toml(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--config: .*no TOML"):
            load(config=toml(tmp_path, text))

    def test_a_file_of_other_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"\xff\xfe")
        with pytest.raises(InvalidArgument, match=r"^LOADERD_CONFIG: .*no TOML"):
            load({"LOADERD_CONFIG": str(tmp_path / "f")})

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(InvalidArgument, match=r"^--config: '/no/file': No such file"):
            load(config="/no/file")

    @pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
    def test_a_name_that_is_no_file_name(self, name: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--name: "):
            load(name=name)

    def test_a_socket_that_is_too_long(self) -> None:
        with pytest.raises(InvalidArgument, match=r"^LOADERD_SOCKET: .*longer than 80"):
            load({"LOADERD_SOCKET": "/" + "x" * 120})

    def test_a_socket_with_a_zero_byte(self, tmp_path: Path) -> None:
        file = toml(tmp_path, r'socket = "/a\u0000b"')
        with pytest.raises(InvalidArgument, match=f"^{file}: socket: "):
            load(config=file)

    @pytest.mark.parametrize("value", ["-1", "x", "9999999", str(2**70)])
    def test_a_descriptor_that_is_not_open(self, value: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--ready-fd: "):
            load(ready_fd=value)

    @pytest.mark.parametrize("value", ["0", "-1", "x"])
    def test_an_owner_that_is_no_process(self, value: str) -> None:
        with pytest.raises(InvalidArgument, match=r"^--owner: "):
            load(owner=value)


def test_storage_may_take_ten_minutes_by_default() -> None:
    assert load().io_timeout == 600
    assert load({"LOADERD_IO_TIMEOUT": "7"}).io_timeout == 7
    assert load({"LOADERD_IO_TIMEOUT": "7"}, io_timeout="2.5").io_timeout == 2.5
    with pytest.raises(InvalidArgument, match=r"^--io-timeout: 'ever' is not allowed"):
        load(io_timeout="ever")


def test_the_ready_descriptor_is_not_inherited() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    assert load(ready_fd=str(write), owner="17").ready_fd == write
    assert not os.get_inheritable(write)
    os.close(read)
    os.close(write)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("1", 1),
            ("536870912", 512 * 2**20),
            ("512M", 512 * 2**20),
            ("512 MiB", 512 * 2**20),
            ("2GiB", 2 * GIB),
            ("2gb", 2 * GIB),
            ("1.5G", 3 * GIB // 2),
            ("1T", 1024 * GIB),
            ("4096B", 4096),
        ],
    )
    def test_units_are_of_1024(self, text: str, size: int) -> None:
        assert load(memory=text).memory == size

    def test_a_share_is_of_the_ram(self) -> None:
        assert load(memory="50%").memory == machine.ram() // 2
        assert load(memory="100%").memory == machine.ram()

    @given(st.integers(1, 2**20), st.sampled_from(["", "K", "M", "G", "T"]))
    def test_what_is_said_is_what_is_meant(self, number: int, unit: str) -> None:
        power = " KMGT".index(unit or " ")
        assert load(memory=f"{number}{unit}").memory == number * 1024**power

    @given(st.text(), st.text())
    def test_any_text_is_a_value_or_a_typed_error(self, workers: str, memory: str) -> None:
        for flags in ({"workers": workers}, {"memory": memory}, {"name": workers}):
            try:
                got = config.load(flags, {})
            except InvalidArgument:
                continue
            assert got.workers >= 1
            assert got.memory >= 1
            assert os.path.isabs(got.socket)
