"""What the stock `nats service` commands see; the field names and types are ADR-32's."""

from __future__ import annotations

import re

import msgspec

from xenmesh.bus.micro import Endpoint, Micro, subjects
from xenmesh.schemas.subjects import declaration

STORE = declaration("store")


def test_nine_subjects() -> None:
    assert len(set(subjects("store", "id"))) == 9
    assert {"$SRV.PING", "$SRV.INFO.store", "$SRV.STATS.store.id"} <= set(subjects("store", "id"))


def test_ping_info_and_stats() -> None:
    micro = Micro("h", STORE, "id", "1.2.3", 0.0)
    micro.endpoints["read"].count(0.25)
    micro.endpoints["read"].count(0.75, "404:There is no node.")
    ping = msgspec.json.decode(micro.answer("$SRV.PING"))
    assert ping == {
        "type": "io.nats.micro.v1.ping_response",
        "name": "store",
        "id": "id",
        "version": "1.2.3",
        "metadata": {"host": "h"},
    }
    info = msgspec.json.decode(micro.answer("$SRV.INFO.store"))
    assert info["type"] == "io.nats.micro.v1.info_response"
    assert info["description"] == STORE.purpose
    shown = {each["name"]: each for each in info["endpoints"]}
    assert set(shown) == {"health", "barrier", "snapshot", "read", "list", "perms"}
    assert shown["read"]["subject"] == "xen.v1.h.q.store.read"
    assert shown["read"]["queue_group"] == "q"
    assert all(isinstance(value, str) for value in shown["read"]["metadata"].values())
    assert (shown["read"]["metadata"]["public"], shown["health"]["metadata"]["public"]) == ("false", "true")
    stats = msgspec.json.decode(micro.answer("$SRV.STATS.store.id"))
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    assert re.fullmatch(r"1970-01-01T00:00:00\.0+Z", stats["started"])
    read = next(each for each in stats["endpoints"] if each["name"] == "read")
    assert (read["num_requests"], read["num_errors"], read["last_error"]) == (2, 1, "404:There is no node.")
    assert (read["processing_time"], read["average_processing_time"]) == (1_000_000_000, 500_000_000)


def test_an_endpoint_that_nobody_asked_has_no_average() -> None:
    micro = Micro("h", STORE, "id", "1.2.3", 0.0)
    assert all(each["average_processing_time"] == 0 for each in msgspec.json.decode(micro.answer("$SRV.STATS"))["endpoints"])
    assert Endpoint("h", "store", STORE.verbs[0]).requests == 0
