"""Shells complete verbs and options."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from loaderd.cli.main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("serve", "stat", "workers", "cache-dir"):
        assert word in script


def test_bash_completes_a_verb_and_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    ask = (
        "COMP_WORDS=(loaderd {0}); COMP_CWORD={1}; $(complete -p loaderd | "
        "sed -E 's/.*-F ([^ ]+).*/\\1/'); echo ${{COMPREPLY[@]}}"
    )
    bash = shutil.which("bash")
    assert bash is not None
    for words, at, expected in (
        ("sta", 1, "start status stat"),
        ("serve --worker", 2, "--workers"),
    ):
        lines = f"{script}\n{ask.format(words, at)}"
        done = subprocess.run([bash, "-c", lines], capture_output=True, text=True, check=False)
        assert set(expected.split()) <= set(done.stdout.split()), done.stderr


def test_another_shell_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "sh"])
    assert ended.value.code == 2
