"""What the matrix runs on each board."""

from __future__ import annotations

from retrograde.guests import board_guest, boards, builtin_targets


def test_tiny_goes_before_firmware() -> None:
    assert boards("x86_64") == ("pc", "q35", "microvm")
    assert boards("ppc64")[0] == "pseries"
    assert boards("vax") == ()


def test_every_board_has_a_guest_that_names_it() -> None:
    for target in (*builtin_targets(), "ppc", "sparc", "sparc64", "alpha", "hppa"):
        assert boards(target)
        for board in boards(target):
            guest = board_guest(target, board)
            assert guest is not None
            assert guest.target == target
            assert board.startswith(guest.machine)
            assert (guest.seconds is None) == bool(guest.done)


def test_other_boards_have_none() -> None:
    assert board_guest("x86_64", "isapc") is None
