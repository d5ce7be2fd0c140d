"""The commands as they are declared: manual page, shell completion, reference page.

`python -m madmail.cli.manual` writes docs/reference/cli.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from madmail import __version__

SHELLS = ('bash', 'zsh', 'fish')


class Command(NamedTuple):
    words: tuple[str, ...]  # without the program's name
    text: str  # one line of help
    arguments: tuple[tuple[str, str], ...]  # as written, and what it means
    verbs: tuple[str, ...]  # sub-commands

    @property
    def name(self) -> str:
        return ' '.join(self.words)


def commands(top: argparse.ArgumentParser) -> Iterator[Command]:
    """Every command and family, in the order of declaration; aliases are left out."""
    return _walk(top, (), '')


def _walk(parser: argparse.ArgumentParser, words: tuple[str, ...], text: str) -> Iterator[Command]:
    arguments = []
    children: list[tuple[str, argparse.ArgumentParser, str]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or '' for choice in action._choices_actions}
            seen: set[int] = set()
            for name, child in action.choices.items():
                if id(child) not in seen:
                    seen.add(id(child))
                    children.append((name, child, helps.get(name, '')))
        elif action.help != argparse.SUPPRESS and action.dest not in _COMMON:
            arguments.append((_written(action), action.help or ''))
    if words:
        yield Command(words, text, tuple(arguments), tuple(name for name, _, _ in children))
    for name, child, about in children:
        yield from _walk(child, (*words, name), about)


_COMMON = ('help', 'config', 'state_dir', 'json')  # of every command


def _written(action: argparse.Action) -> str:
    value = action.metavar or (
        '|'.join(map(str, action.choices)) if action.choices else action.dest.upper()
    )
    if isinstance(value, tuple):
        value = ' '.join(value)
    if not action.option_strings:
        return f'[{value}]' if action.nargs in ('?', '*') else str(value)
    names = ', '.join(action.option_strings)
    return names if action.nargs == 0 else f'{names} {value}'


def reference(top: argparse.ArgumentParser) -> str:
    """docs/reference/cli.md."""
    lines = [
        '# Commands',
        '',
        'Made by `python -m madmail.cli.manual`. Every command takes `--config FILE`, `--state-dir',
        'DIR` and `--json`; it works on a running relay through its sockets, and in place of a',
        'stopped one. Exit codes: 0 done, 1 failed or declined, 2 wrong usage.',
        '',
    ]
    for command in commands(top):
        if command.verbs and not command.arguments:
            continue
        lines.append(f'## madmail {command.name}')
        lines.append('')
        if command.text:
            lines += [f'{command.text[0].upper()}{command.text[1:]}.', '']
        for written, meaning in command.arguments:
            lines.append(f'- `{written}`{f": {meaning}" if meaning else ""}')
        if command.arguments:
            lines.append('')
    return '\n'.join(lines).rstrip('\n') + '\n'


def page(top: argparse.ArgumentParser) -> str:
    """madmail(8) in roff."""
    lines = [
        f'.TH MADMAIL 8 "" "madmail {__version__}" "System Administration"',
        '.SH NAME',
        'madmail \\- a chatmail relay in one program',
        '.SH SYNOPSIS',
        '.B madmail',
        '[\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fB\\-\\-state\\-dir\\fR \\fIDIR\\fR] '
        '[\\fB\\-\\-json\\fR] \\fICOMMAND\\fR ...',
        '.SH DESCRIPTION',
        'Without a command it serves. Commands work on a running relay, and on a stopped one.',
        '.SH COMMANDS',
    ]
    for command in commands(top):
        if command.verbs and not command.arguments:
            continue
        said = ' '.join([command.name, *(written for written, _ in command.arguments)])
        lines += ['.TP', f'.B {_roff(said)}', _roff(command.text or command.name)]
    lines += [
        '.SH EXIT STATUS',
        '0 done, 1 failed or declined, 2 wrong usage.',
        '.SH FILES',
        './data/madmail.yaml, /etc/madmail/madmail.yaml',
    ]
    return '\n'.join(lines) + '\n'


def _roff(text: str) -> str:
    text = text.replace('\\', '\\e').replace('-', '\\-')
    return f'\\&{text}' if text[:1] in ".'" else text


def completion(top: argparse.ArgumentParser, shell: str) -> str:
    """A script that completes commands and their verbs."""
    tree = {command.words: command.verbs for command in commands(top) if command.verbs}
    first = tuple(command.words[0] for command in commands(top) if len(command.words) == 1)
    if shell == 'fish':
        lines = ['complete -c madmail -f']
        texts = {command.words: command.text for command in commands(top)}
        for word in first:
            about = texts[word,].replace("'", '')
            lines.append(f"complete -c madmail -n __fish_use_subcommand -a {word} -d '{about}'")
        for words, verbs in tree.items():
            if len(words) == 1:
                lines.append(
                    f"complete -c madmail -n '__fish_seen_subcommand_from {words[0]}' "
                    f"-a '{' '.join(verbs)}'"
                )
        return '\n'.join(lines) + '\n'
    cases = [
        f"        '{' '.join(words)}') words='{' '.join(verbs)}' ;;"
        for words, verbs in tree.items()
    ]
    script = [
        '_madmail() {',
        '    local cur="${COMP_WORDS[COMP_CWORD]}" path="" word words=""',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$word" in -*) ;; *) path="${path:+$path }$word" ;; esac',
        '    done',
        '    case "$path" in',
        f"        '') words='{' '.join(first)}' ;;",
        *cases,
        '    esac',
        '    case "$cur" in -*) words="--config --state-dir --json --help" ;; esac',
        '    COMPREPLY=($(compgen -W "$words" -- "$cur"))',
        '}',
        'complete -o default -F _madmail madmail',
    ]
    if shell == 'zsh':
        script = ['#compdef madmail', 'autoload -U +X bashcompinit && bashcompinit', *script]
    return '\n'.join(script) + '\n'


if __name__ == '__main__':
    from madmail.cli.main import parser

    path = Path(__file__).parents[2] / 'docs' / 'reference' / 'cli.md'
    path.write_text(reference(parser()))
