"""The script for fish (3 or newer)."""

from __future__ import annotations

from xenmesh.cli.shape import Shape

from . import LIVE, MADE, cases

__all__ = ["render"]

_HEAD = f"""\
# fish completion for xenmesh: {MADE}

function __xenmesh_at --description 'whether the words so far begin with this command'
    set -l words (commandline -opc)
    set -l last (math (count $argv) + 1)
    test (count $words) -ge $last
    and test "$words[2..$last]" = "$argv"
end

function __xenmesh_exactly_at --description 'whether the words so far are this command'
    set -l words (commandline -opc)
    test "$words[2..]" = "$argv"
end

function __xenmesh_live --description 'candidates that the mesh knows now'
    set -l dir
    set -l words (commandline -opc)
    if set -l at (contains -i -- --dir $words)
        set dir --dir $words[(math $at + 1)]
    end
    xenmesh completion --candidates $argv[1] --word (commandline -ct) $dir 2>/dev/null
end

complete -c xenmesh -f
"""


def render(shapes: dict[str, Shape]) -> str:
    """The script."""
    lines = [
        f"complete -c xenmesh -n __xenmesh_exactly_at -a {name} -d {_quoted(shape.summary)}" for name, shape in shapes.items()
    ]
    for shape in cases(shapes):
        here = f"complete -c xenmesh -n '__xenmesh_at {shape.name}'"
        for word, each in shape.below.items():
            lines.append(f"complete -c xenmesh -n '__xenmesh_exactly_at {shape.name}' -a {word} -d {_quoted(each.summary)}")
        for option in shape.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            takes = f" -{'r' if option.kind == 'FILE' else 'x'}{_value(option.kind, option.choices)}" if option.kind else ""
            lines.append(f"{here} {flags}{takes} -d {_quoted(option.help)}")
        values = [_value(argument.kind, argument.choices) for argument in shape.arguments]
        lines += [f"{here}{value}" for value in values if value]
    return _HEAD + "\n".join(lines) + "\n"


def _value(kind: str, choices: tuple[str, ...]) -> str:
    if choices:
        return f" -a {_quoted(' '.join(choices))}"
    if kind in LIVE:
        return f" -a '(__xenmesh_live {kind})'"
    return {"FILE": " -F", "DIR": " -a '(__fish_complete_directories)'"}.get(kind, "")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
