"""The reference page of the admin API, made from the registry.

`python -m madmail.web.admin.reference` writes it into the checkout; a test
holds the committed page to be the same.  Each handler's docstring is its text.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from madmail.web.admin import registry
from madmail.web.admin.answer import Handler
from madmail.web.admin.endpoint import __doc__ as endpoint_text
from madmail.web.admin.envelope import __doc__ as envelope_text

PAGE = Path('docs/reference/admin-api.md')
WIDTH = 96

HEAD = """\
# Admin API

Made from the code (`python -m madmail.web.admin.reference`).

One URL, the setting `admin.path` (`/api/admin`), over HTTPS, and over plain HTTP from this
host itself (`admin.require_tls`). `madmail admin-token` shows the token, which travels as
`Bearer` in the headers of the envelope and in nothing else.

Existing panels work with it. What is changed is in force at once and told to all processes;
nothing has to be reloaded or restarted unless an answer says so. Names of accounts may lack
the domain. Times are Unix seconds or texts in RFC 3339; sizes are octets, and as texts `64M`.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, '## Envelope', '', *_document(envelope_text), '', '## Answers', '']
    lines += [*_document(endpoint_text), '', '## Resources']
    alike: dict[tuple[tuple[str, Handler], ...], list[str]] = {}
    for name, methods in sorted(registry.resources().items()):
        key = tuple((method, getattr(one, 'func', one)) for method, one in methods.items())
        alike.setdefault(key, []).append(name)
    for handlers, names in alike.items():
        lines += ['', *_heading(names), '']
        for method, handler in handlers:
            lines += _entry(method, handler)
    return '\n'.join(lines) + '\n'


def _heading(names: list[str]) -> list[str]:
    """One resource, or all that work alike."""
    if len(names) == 1:
        return [f'### `{names[0]}`']
    last = ', '.join(f'`{name.rpartition("/")[2]}`' for name in names)
    return [
        f'### `{names[0].rpartition("/")[0]}/…`',
        '',
        textwrap.fill(f'For {last}:', WIDTH, break_long_words=False, break_on_hyphens=False),
    ]


def _entry(method: str, handler: Handler) -> Iterator[str]:
    """A list item with the paragraphs of the handler's docstring."""
    text = inspect.getdoc(handler) or ''
    paragraphs = [' '.join(part.split()) for part in text.split('\n\n')]
    for number, paragraph in enumerate(paragraphs):
        head = f'- **{method}** ' if number == 0 else '  '
        if number:
            yield ''
        yield textwrap.fill(
            paragraph,
            WIDTH,
            initial_indent=head,
            subsequent_indent='  ',
            break_long_words=False,
            break_on_hyphens=False,
        )


def _document(text: str | None) -> list[str]:
    """A module's text without its first sentence; what is indented stays as it is."""
    body = (text or '').partition('\n\n')[2].rstrip()
    return body.splitlines()


def main() -> None:
    root = Path(__file__).resolve().parents[3]
    (root / PAGE).write_text(page(), encoding='utf-8')


if __name__ == '__main__':
    main()
