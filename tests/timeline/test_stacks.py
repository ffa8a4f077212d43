"""A stack that is left and come back to."""

from __future__ import annotations

from retrograde.timeline.stacks import FRAME, OneStack, Pointer


def test_what_happens_on_other_stacks_is_passed_over():
    stack, ours, theirs = OneStack(), Pointer(0x1000), Pointer(0x3000)
    assert stack.passes(Pointer(0x1008), ours, switches=False)
    assert not stack.passes(ours, theirs, switches=True)
    assert stack.is_left
    assert not stack.passes(theirs, Pointer(0x2F00), switches=False)
    assert not stack.passes(Pointer(0x2F00), Pointer(0x5000), switches=True)
    assert not stack.passes(Pointer(0x5000), ours, switches=True)
    assert not stack.is_left
    assert stack.passes(ours, Pointer(0x1008), switches=False)


def test_large_frames_and_small_moves_are_no_switch():
    stack, here = OneStack(), Pointer(0x10000)
    assert stack.passes(here, Pointer(0x4000), switches=False)
    assert stack.passes(here, Pointer(0x10000 - FRAME), switches=True)


def test_a_stack_at_the_same_address_in_another_process_is_another():
    stack, ours = OneStack(), Pointer(0x7000, space=0x1000)
    assert not stack.passes(ours, Pointer(0xFFFF0000), switches=True)
    assert not stack.passes(Pointer(0xFFFF0000), Pointer(0x7000, space=0x2000), switches=True)
    assert stack.is_left
