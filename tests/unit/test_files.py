"""Paths of the config."""

from pathlib import Path

import pytest

from gemstones.errors import UserError
from gemstones.files import expanded


def test_variables_are_filled_in_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PROJECT", "abc")
    assert expanded("~/$PROJECT/${PROJECT}", "storage.archive") == Path("/home/me/abc/abc")
    monkeypatch.delenv("PROJECT")
    for path in ("$PROJECT/x", "${PROJECT}/x"):
        with pytest.raises(UserError, match=r"^storage.archive: .* variable PROJECT is not set"):
            expanded(path, "storage.archive")
