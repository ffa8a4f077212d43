"""What ended a recording, as told by what QEMU left."""

from retrograde.machine.ending import SIGNALLED, own_ending


def test_who_ended_qemu():
    assert own_ending("guest-shutdown", 0, "") == "guest-shutdown"
    assert own_ending("host-signal", 0, "") == "guest-reset"
    assert own_ending("host-signal", 0, "", may_exit=True) == "quit"
    assert own_ending("host-signal", 0, f"qemu: {SIGNALLED} 15") == "quit"
    assert own_ending(None, 3, "") == "quit"
