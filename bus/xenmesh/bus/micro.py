"""NATS micro discovery (ADR-32): what ``$SRV.PING``, ``INFO`` and ``STATS`` answer, so that ``nats service ls`` finds us. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from xenmesh.schemas.subjects import Declaration, Verb, command, prefix, query

__all__ = ["QUEUE", "Endpoint", "Micro", "subjects"]

QUEUE = "q"
"""The queue group of every endpoint, ADR-32's default."""

_KIND = "io.nats.micro.v1.{}_response"


def subjects(name: str, identity: str) -> tuple[str, ...]:
    """The nine subjects that a service hears."""
    return tuple(
        f"$SRV.{verb}{which}" for verb in ("PING", "INFO", "STATS") for which in ("", f".{name}", f".{name}.{identity}")
    )


class Endpoint:
    """One verb of one service: how it is shown, and what was counted."""

    def __init__(self, host: str, service: str, verb: Verb) -> None:
        self.name = verb.name
        self.subject = f"{prefix(host)}.{command('*', service, verb.name) if verb.commands else query(service, verb.name)}"
        self.metadata = {
            "format": "application/json",
            "request": verb.request.__name__,
            "result": verb.result.__name__,
            "public": "true" if verb.public else "false",
        }
        self.requests = 0
        self.errors = 0
        self.last_error = ""
        self.nanoseconds = 0

    def count(self, seconds: float, error: str = "") -> None:
        """One request was answered; ``error`` is ``<number>:<sentence>`` where it failed."""
        self.requests += 1
        self.nanoseconds += int(seconds * 1e9)
        if error:
            self.errors += 1
            self.last_error = error


class _EndpointInfo(msgspec.Struct):
    name: str
    subject: str
    queue_group: str
    metadata: dict[str, str]


class _EndpointStats(msgspec.Struct):
    name: str
    subject: str
    queue_group: str
    num_requests: int
    num_errors: int
    last_error: str
    processing_time: int
    average_processing_time: int


class _Ping(msgspec.Struct):
    type: str
    name: str
    id: str
    version: str
    metadata: dict[str, str]


class _Info(_Ping):
    description: str
    endpoints: list[_EndpointInfo]


class _Stats(_Ping):
    started: str
    endpoints: list[_EndpointStats]


class Micro:
    """One service as ``$SRV`` shows it; ``identity`` tells it from others of the same name, ``since`` is seconds since 1970."""

    def __init__(self, host: str, declaration: Declaration, identity: str, version: str, since: float) -> None:
        self.endpoints = {verb.name: Endpoint(host, declaration.name, verb) for verb in declaration.answers}
        self._declaration = declaration
        self._identity = identity
        self._version = version
        self._metadata = {"host": host}
        self._started = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def answer(self, subject: str) -> bytes:
        """What to answer to a request on one of the nine `subjects`."""
        kind = subject.split(".")[1].lower()
        name, identity, version = self._declaration.name, self._identity, self._version
        head = (_KIND.format(kind), name, identity, version, self._metadata)
        if kind == "info":
            return msgspec.json.encode(_Info(*head, self._declaration.purpose, [_info(each) for each in self._all()]))
        if kind == "stats":
            return msgspec.json.encode(_Stats(*head, self._started, [_stats(each) for each in self._all()]))
        return msgspec.json.encode(_Ping(*head))

    def _all(self) -> Iterable[Endpoint]:
        return self.endpoints.values()


def _info(endpoint: Endpoint) -> _EndpointInfo:
    return _EndpointInfo(endpoint.name, endpoint.subject, QUEUE, endpoint.metadata)


def _stats(endpoint: Endpoint) -> _EndpointStats:
    return _EndpointStats(
        endpoint.name,
        endpoint.subject,
        QUEUE,
        endpoint.requests,
        endpoint.errors,
        endpoint.last_error,
        endpoint.nanoseconds,
        endpoint.nanoseconds // endpoint.requests if endpoint.requests else 0,
    )
