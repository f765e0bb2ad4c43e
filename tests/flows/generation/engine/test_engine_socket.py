"""The engine's socket: who may listen, who may connect."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from flows.generation.engine.engine_socket import listening_socket
from storage.errors import InUse, InvalidSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine" / "engine.sock"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_open_to_this_user_alone_and_goes_with_the_engine(path: Path) -> None:
    with listening_socket(path):
        assert connects(path)
        assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)

    assert not path.exists()


def test_a_second_engine_is_refused_by_name_and_the_first_stays_reachable(path: Path) -> None:
    with listening_socket(path):
        with (
            pytest.raises(InUse, match=rf"Another engine has .*engine \(process {os.getpid()}\)"),
            listening_socket(path),
        ):
            pass
        assert connects(path)

    with listening_socket(path):
        assert connects(path)


def test_what_a_killed_engine_has_left_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert not connects(path)

    with listening_socket(path):
        assert connects(path)


def test_the_socket_of_another_is_not_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        with listening_socket(path):
            path.rename(path.with_name("moved"))
            other.bind(str(path))
            other.listen()

        assert connects(path)


def test_a_path_that_is_too_long_is_named_with_what_to_do(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / "engine.sock"

    with (
        pytest.raises(InvalidSettings, match=r"at most 107 bytes, and this one \d+\. Set DARKROOM_DATA_FOLDER"),
        listening_socket(long),
    ):
        pass
    assert not long.parent.exists()


def test_a_folder_that_others_can_enter_is_closed(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o775)

    with listening_socket(path):
        assert mode_of(path.parent) == 0o700


def test_a_folder_that_others_share_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o1777)

    said = r"others may write there or own it \(owner \d+, mode 1777\)"
    with pytest.raises(InvalidSettings, match=said), listening_socket(path):
        pass
    assert mode_of(path.parent) == 0o1777
