"""The log: structured lines, off unless the operator wants one, and without personal data.

One line an event: `time level room event key=value …`.  Callers name the event
with a fixed phrase and give facts that identify nobody: counts, seconds,
codes, indices.  Should an address slip in anyway, a last pass replaces
everything that looks like an e-mail address or an IP address.  Texts of
exceptions are not written, only their class and where they were raised,
because libraries put their arguments into them.

Unhandled exceptions are counted per room even when the log is off
(`exceptions`), so that monitoring sees them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType

ERROR, WARNING, INFO, DEBUG = 3, 2, 1, 0
LEVELS = {'error': ERROR, 'warning': WARNING, 'info': INFO, 'debug': DEBUG}
_OFF = 9

exceptions: dict[str, int] = {}  # room → unhandled exceptions since this process began

_level = _OFF
_descriptor = -1  # where lines go; -1 = nowhere
_path: Path | None = None

_MAIL = re.compile(r'[^\s<>]*@[^\s<>]*')
_IPV4 = re.compile(r'(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]*\d)')
_IPV6 = re.compile(r'(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])')
_PLAIN = re.compile(r'[\w.,:;/+\-()\[\]]+')


def configure(target: str, level: str = 'info') -> None:
    """Log to `target`: 'off', 'stderr' or a file's path.  Raises OSError if it cannot be opened.

    On failure the log stays as it was.
    """
    global _level, _descriptor, _path
    if target == 'off':
        descriptor, path, threshold = -1, None, _OFF
    elif target == 'stderr':
        descriptor, path, threshold = 2, None, LEVELS[level]
    else:
        path = Path(target)
        descriptor, threshold = _open(path), LEVELS[level]
    if _path is not None and _descriptor >= 0:
        os.close(_descriptor)
    _level, _descriptor, _path = threshold, descriptor, path


def reopen() -> None:
    """Open the log file anew, after it was renamed by log rotation."""
    global _descriptor
    if _path is None:
        return
    fresh = _open(_path)
    os.close(_descriptor)
    _descriptor = fresh


def enabled() -> bool:
    """Whether anything is written at all."""
    return _descriptor >= 0


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def redacted(text: str) -> str:
    """`text` without anything that looks like an e-mail address or an IP address."""
    if '@' in text:
        text = _MAIL.sub('[address]', text)
    if '.' in text:
        text = _IPV4.sub('[ip]', text)
    if '::' in text or text.count(':') >= 7:
        text = _IPV6.sub(_redact_ipv6, text)
    return text


def _redact_ipv6(match: re.Match[str]) -> str:
    try:
        ipaddress.IPv6Address(match.group())
    except ValueError:
        return match.group()
    return '[ip]'


def _value(fact: object) -> str:
    text = redacted(str(fact))
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace('\\', '\\\\').replace('"', '\\"')
    return '"' + ''.join(c if c.isprintable() else f'\\x{ord(c):02x}' for c in text) + '"'


class Logger:
    """The log of one room."""

    __slots__ = ('room',)

    def __init__(self, room: str) -> None:
        self.room = room
        exceptions.setdefault(room, 0)

    def error(self, event: str, **facts: object) -> None:
        if _level <= ERROR:
            self._write('error', event, facts)

    def warning(self, event: str, **facts: object) -> None:
        if _level <= WARNING:
            self._write('warning', event, facts)

    def info(self, event: str, **facts: object) -> None:
        if _level <= INFO:
            self._write('info', event, facts)

    def debug(self, event: str, **facts: object) -> None:
        if _level <= DEBUG:
            self._write('debug', event, facts)

    def exception(self, event: str, error: BaseException | None = None, **facts: object) -> None:
        """Count and report `error`, or the exception being handled: its class and origin."""
        exceptions[self.room] += 1
        if _level <= ERROR:
            error = error or sys.exc_info()[1]
            if error is not None:
                facts['exception'] = type(error).__name__
                if isinstance(error, OSError) and error.errno is not None:
                    facts['errno'] = error.errno
                facts['at'] = _places(error.__traceback__)
            self._write('error', event, facts)

    def _write(self, level: str, event: str, facts: dict[str, object]) -> None:
        now = time.time()
        stamp = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))
        said = ' '.join(
            [redacted(event), *(f'{key}={_value(fact)}' for key, fact in facts.items())]
        )
        line = f'{stamp}.{int(now * 1000) % 1000:03d}Z {level} {self.room} {said}\n'
        try:
            os.write(_descriptor, line.encode('utf-8', 'backslashreplace'))
        except OSError:
            pass  # a full disk or a closed terminal must not stop the mail


def _places(trace: TracebackType | None) -> str:
    """The innermost frames, outermost first: `file:line,file:line`."""
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        parts = code.co_filename.rsplit('/', 2)
        places.append(f'{"/".join(parts[-2:])}:{trace.tb_lineno}')
        trace = trace.tb_next
    return ','.join(places[-6:])


def get(room: str) -> Logger:
    """The logger of `room`, registered for counting exceptions."""
    return Logger(room)
