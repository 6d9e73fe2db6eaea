"""The script for zsh: to be sourced, or put into ``$fpath`` as ``_xenmesh``."""

from __future__ import annotations

from xenmesh.cli.shape import Option, Shape

from . import LIVE, MADE

__all__ = ["render"]

_HEAD = f"""\
#compdef xenmesh
# zsh completion for xenmesh: {MADE}

_xenmesh_live() {{
    local -a dir found
    (( ${{+opt_args[--dir]}} )) && dir=(--dir "${{opt_args[--dir]}}")
    found=("${{(@f)$(xenmesh completion --candidates $1 --word "$PREFIX" $dir 2>/dev/null)}}")
    compadd -S '' -- ${{(M)found:#*/}}
    compadd -- ${{${{found:#*/}}:#}}
}}

_xenmesh() {{
    local context state line curcontext=$curcontext
    typeset -A opt_args
    local -a commands below
"""

_TAIL = """\
}

if [[ $funcstack[1] == _xenmesh ]]; then _xenmesh "$@"; else compdef _xenmesh xenmesh; fi
"""


def render(shapes: dict[str, Shape]) -> str:
    """The script."""
    lines = [
        *_choice("commands", "command", shapes, "    "),
        "    shift words; (( CURRENT-- ))",
        "    case $words[1] in",
    ]
    for shape in shapes.values():
        lines.append(f"        {shape.name})")
        if shape.below:
            lines += [
                *_choice("below", shape.name, shape.below, "            "),
                "            shift words; (( CURRENT-- ))",
                "            case $words[1] in",
            ]
            for word, each in shape.below.items():
                lines += [f"                {word})", *_arguments(each, "                    "), "                    ;;"]
            lines.append("            esac")
        else:
            lines += _arguments(shape, "            ")
        lines.append("            ;;")
    return _HEAD + "\n".join([*lines, "    esac", _TAIL])


def _choice(variable: str, tag: str, shapes: dict[str, Shape], indent: str) -> list[str]:
    return [
        f"{indent}if (( CURRENT == 2 )); then",
        f"{indent}    {variable}=(",
        *(f"{indent}        '{word}:{_text(shape.summary)}'" for word, shape in shapes.items()),
        f"{indent}    )",
        f"{indent}    _describe {tag} {variable}",
        f"{indent}    return",
        f"{indent}fi",
    ]


def _arguments(shape: Shape, indent: str) -> list[str]:
    specs = [spec for option in shape.options for spec in _option(option)]
    for index, argument in enumerate(shape.arguments, start=1):
        optional = ":" if argument.optional else ""
        specs.append(f"'{index}:{optional}{_value(argument.kind, argument.choices)[1:]}'")
    if not specs:
        return [f"{indent}:"]
    return [f"{indent}_arguments -s \\", *(f"{indent}    {spec} \\" for spec in specs[:-1]), f"{indent}    {specs[-1]}"]


def _option(option: Option) -> list[str]:
    value = _value(option.kind, option.choices) if option.kind else ""
    others = " ".join(option.flags)
    return [f"'({others}){flag}[{_text(option.help)}]{value}'" for flag in option.flags]


def _value(kind: str, choices: tuple[str, ...]) -> str:
    if choices:
        return f":{kind}:({' '.join(choices)})"
    if kind in LIVE:
        return f":{kind}:_xenmesh_live {kind}"
    action = {"FILE": "_files", "DIR": "_files -/"}.get(kind, " ")
    return f":{kind}:{action}"


def _text(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text.replace("'", "'\\''")
