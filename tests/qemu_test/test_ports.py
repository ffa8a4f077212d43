"""Ports: never the same one for two tests."""

from __future__ import annotations

import os
import socket

import pytest

from qemu_test.ports import Ports, PortsExhausted


def test_ports_are_free_and_differ() -> None:
    with Ports() as ports:
        found = [*ports.find_free_ports(3), ports.find_free_port()]
        assert len(set(found)) == 4
        for port in found:
            assert ports.PORTS_START <= port < ports.PORTS_END
            with socket.create_server((ports.PORTS_ADDR, port)):
                assert not ports.check_bind(port)


def test_a_port_in_use_is_not_found() -> None:
    with Ports() as ports:
        first = ports.find_free_port()
    with Ports() as ports, socket.create_server(("127.0.0.1", first)):
        assert first not in ports.find_free_ports(10)


def test_two_at_once_have_ranges_of_their_own() -> None:
    with Ports() as one, Ports() as other:
        assert one.PORTS_END <= other.PORTS_START or other.PORTS_END <= one.PORTS_START


def test_a_range_is_given_back() -> None:
    with Ports() as ports:
        start = ports.PORTS_START
    with Ports() as ports:
        assert start == ports.PORTS_START


def test_every_range_held() -> None:
    held: list[Ports] = []
    with pytest.raises(PortsExhausted, match="held by other tests"):
        while True:
            held.append(Ports().__enter__())
    assert len(held) <= 16
    for ports in held:
        ports.__exit__(None, None, None)


def test_more_ports_than_there_are() -> None:
    with Ports() as ports, pytest.raises(PortsExhausted, match="of 1025 ports are free"):
        ports.find_free_ports(1025)


def test_the_range_goes_with_its_process() -> None:
    child = os.fork()
    if child == 0:
        Ports().__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with Ports() as ports:
        assert ports.find_free_port()
