"""A setting is described once, in the table of loaderd.config: all else follows from it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from loaderd import config
from loaderd.cli.main import main
from loaderd.config import SETTINGS, VARIABLES
from loaderd.errors import InvalidArgument
from scripts import reference


def shown_by(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    return " ".join(capsys.readouterr().out.split())


def test_the_page_has_the_table_of_the_code() -> None:
    page = reference.PAGE.read_text()
    assert reference.table() in page, "run: python -m scripts.reference"
    assert page == reference.written(page)


@pytest.mark.parametrize("verb", ["serve", "start"])
def test_a_verb_that_starts_a_daemon_has_a_flag_for_each_with_its_help(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    shown = shown_by(verb, capsys)
    for name in VARIABLES:
        setting = SETTINGS[name]
        assert f"{setting.flag} {setting.metavar or setting.help}" in shown
        assert setting.help in shown
        assert setting.variable in shown


def test_flags_of_starters_have_neither_help_nor_variable() -> None:
    assert SETTINGS.keys() - VARIABLES.keys() == {"owner", "control_fd", "ready_fd"}


def test_every_default_is_allowed_and_said_aloud_is_the_default() -> None:
    usual = config.load({}, {})
    for name, setting in SETTINGS.items():
        if setting.default and name != "cache_dir":  # which depends on a variable
            assert value(config.load({name: setting.default}, {}), name) == value(usual, name)


def value(settings: config.Settings, name: str) -> Any:
    return getattr(settings, name)


@pytest.mark.parametrize("name", ["grace", "max_bad", "worker_memory"])
def test_flag_variable_and_key_say_the_same(name: str, tmp_path: Any) -> None:
    said = {"grace": "7", "max_bad": "3%", "worker_memory": "70M"}[name]
    (tmp_path / "loaderd.toml").write_text(f"{name} = '{said}'\n")
    places = (
        config.load({name: said}, {}),
        config.load({}, {SETTINGS[name].variable: said}),
        config.load({"config": str(tmp_path / "loaderd.toml")}, {}),
    )
    first, *others = (value(settings, name) for settings in places)
    assert others == [first, first]
    assert first != value(config.load({}, {}), name)


def test_what_is_refused_is_named_by_its_flag() -> None:
    for name in VARIABLES.keys() - {"config", "user_code", "cache_dir"}:
        with pytest.raises(InvalidArgument, match=rf"^{re.escape(SETTINGS[name].flag)}: "):
            config.load({name: ""}, {})
