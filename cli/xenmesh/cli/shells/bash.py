"""The script for bash (4 or newer), with or without the package bash-completion."""

from __future__ import annotations

from xenmesh.cli.shape import Shape

from . import LIVE, MADE, cases, flags

__all__ = ["render"]

_HEAD = f"""\
# bash completion for xenmesh: {MADE}

_xenmesh_live() {{
    local dir=() i each found IFS=$'\\n'
    for ((i = 1; i < cword; i++)); do
        [[ ${{words[i]}} == --dir ]] && dir=(--dir "${{words[i + 1]}}")
    done
    found=$(xenmesh completion --candidates "$1" --word "$cur" "${{dir[@]}}" 2>/dev/null)
    for each in $found; do
        [[ $each == "$cur"* ]] && COMPREPLY+=("$(printf %q "$each")")
    done
    [[ ${{COMPREPLY[0]}} == */ ]] && compopt -o nospace 2>/dev/null
}}

_xenmesh_kind() {{
    case $1 in
        {"|".join(LIVE)}) _xenmesh_live "$1" ;;
        FILE) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        DIR) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    esac
}}

_xenmesh_words() {{
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}}

_xenmesh() {{
    # Words as the shell has them, but for ':' and '=', which stay in theirs.
    local cur prev words cword
    if declare -F _comp_initialize >/dev/null; then
        _comp_initialize -n ":=" -- "$@" || return
    elif declare -F _init_completion >/dev/null; then
        _init_completion -n ":=" || return
    else
        words=("${{COMP_WORDS[@]}}") cword=$COMP_CWORD
        cur=${{words[cword]}} prev=${{words[cword - 1]}}
    fi
    COMPREPLY=()
"""


def render(shapes: dict[str, Shape]) -> str:
    """The script."""
    every = cases(shapes)
    lines = [
        "    if ((cword == 1)); then",
        f'        _xenmesh_words "{" ".join(shapes)} --help --version"',
        "        return",
        "    fi",
        "    local at=${words[1]} first=2",
        "    case $at in",
    ]
    for shape in shapes.values():
        if shape.below:
            lines += [
                f"        {shape.name})",
                "            if ((cword == 2)); then",
                f'                _xenmesh_words "{" ".join(shape.below)} {flags(shape)}"',
                "                return",
                "            fi",
                '            at="$at ${words[2]}" first=3 ;;',
            ]
    lines += ["    esac", '    case "$at $prev" in']
    taking: list[str] = []
    for shape in every:
        for option in shape.options:
            if option.kind:
                spellings = [f'"{shape.name} {flag}"' for flag in option.flags]
                taking += spellings
                lines.append(f"        {' | '.join(spellings)}) {_value(option.kind, option.choices)}; return ;;")
    lines += [
        "    esac",
        "    local position=0 i",
        "    for ((i = first; i < cword; i++)); do",
        '        case "$at ${words[i]}" in',
        f"            {' | '.join(taking)}) ((i++)) ;;",
        '            *" -"*) ;;',
        "            *) ((position++)) ;;",
        "        esac",
        "    done",
        "    if [[ $cur == -* ]]; then",
        "        case $at in",
        *(f'            "{shape.name}") _xenmesh_words "{flags(shape)}" ;;' for shape in every if shape.options),
        "        esac",
        "        return",
        "    fi",
        '    case "$at $position" in',
    ]
    for shape in every:
        for index, argument in enumerate(shape.arguments):
            lines.append(f'        "{shape.name} {index}") {_value(argument.kind, argument.choices)} ;;')
    lines += ["    esac", "}", "", "complete -F _xenmesh xenmesh"]
    return _HEAD + "\n".join(lines) + "\n"


def _value(kind: str, choices: tuple[str, ...]) -> str:
    return f'_xenmesh_words "{" ".join(choices)}"' if choices else f"_xenmesh_kind {kind}"
