"""The man page xenmesh(1), made from the parsers."""

from __future__ import annotations

from .exits import TABLE
from .shape import Shape
from .shells import cases

__all__ = ["render"]

_HEAD = r""".\" Made by `xenmesh help --man`; do not edit.
.TH XENMESH 1 "" "xenmesh" "User Commands"
.SH NAME
xenmesh \- events and state of a Xen host, typed, ordered and replayable
.SH SYNOPSIS
.B xenmesh
.I COMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
.B xenmesh
is an operator's hands on a mesh of services in Dom0, which replaces the monolithic Xen toolstack. It shows what happens on the host as typed
events, in order and without a silent gap, reads xenstore without root, waits for conditions without polling, records and replays.
.PP
Domains go by name, domid or uuid; a xenstore path may begin with one of them
.RB ( web\-1/data ).
On a terminal results are shown for people, in a pipe as NDJSON: one JSON object a line.
.SH COMMANDS
"""

_TAIL = r""".SH ENVIRONMENT
.TP
.B XENMESH_DIR
The directory of a running mesh, as with
.BR \-\-dir .
.TP
.B NO_COLOR
If set, no colours.
.TP
.B XENSTORED_PATH
The xenstored that
.B xenmesh up
watches, instead of the one it finds or simulates.
.SH FILES
.TP
.IR DIR /mesh.json
Of a running mesh: where its bus is, its host's id, and the directory of the keys. DIR is looked for in
.IR $XDG_RUNTIME_DIR/xenmesh ,
.I /tmp/xenmesh-UID
and
.IR /run/xenmesh .
.TP
.I /var/lib/xenmesh\-bus
The bus of the host's own units, with the keys of its users; for root.
.TP
.IR ~/.config/nats/context/ NAME .json
A context of the NATS CLI, for
.BR \-\-context .
.SH SEE ALSO
.BR xenmeshd (1),
.BR xl (1),
.BR xenstore\-ls (1),
.BR nats\-server (8)
"""


def render(shapes: dict[str, Shape]) -> str:
    """The page, in roff."""
    lines: list[str] = []
    for shape in cases(shapes):
        lines += _command(shape)
    lines += [".SH EXIT STATUS"]
    for code, meaning in TABLE.items():
        lines += [".TP", f".B {code.value}", _text(f"{meaning[0].upper()}{meaning[1:]}.")]
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def _command(shape: Shape) -> list[str]:
    lines = [
        f".SS xenmesh {_synopsis(shape)}",
        *_paragraphs(shape.description or f"{shape.summary[0].upper()}{shape.summary[1:]}."),
    ]
    if shape.examples:
        lines += [".PP", "Examples:", ".PP", ".nf", ".RS", *map(_text, shape.examples.splitlines()), ".RE", ".fi"]
    for argument in shape.arguments:
        if argument.help:
            lines += [".TP", f".I {_text(argument.kind)}", _text(_sentence(argument.help))]
    for option in shape.options:
        if "--help" in option.flags:
            continue
        flags = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in option.flags)
        value = f" \\fI{_text(option.kind)}\\fR" if option.kind else ""
        lines += [".TP", f"{flags}{value}", _text(_sentence(option.help))]
    return lines


def _synopsis(shape: Shape) -> str:
    arguments = [f"[{each.kind}]" if each.optional else each.kind for each in shape.arguments]
    below = ["|".join(shape.below)] if shape.below else []
    return _text(" ".join([shape.name, *below, *arguments]))


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", ")")) else ".")


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
