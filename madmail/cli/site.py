"""sharing …, language …, html-export, html-serve: the public pages."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from madmail.admin import settings, shares
from madmail.cli.access import Access
from madmail.cli.accounts import day
from madmail.cli.invocation import Invocation
from madmail.cli.result import Failure, Result, table
from madmail.web.site import files, words

EMBEDDED = ('embedded', 'embed', 'internal')


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    def family(name: str, text: str) -> Any:
        parser = commands.add_parser(name, parents=options, help=text)
        return parser.add_subparsers(dest='verb', metavar='VERB', required=True)

    def verb(verbs: Any, name: str, function: Any, text: str, **more: Any) -> Any:
        parser = verbs.add_parser(name, parents=options, help=text, **more)
        parser.set_defaults(function=function)
        return parser

    verbs = family('sharing', 'contact pages')
    verb(verbs, 'status', sharing_status, 'whether everybody may make them')
    verb(verbs, 'enable', sharing_status, 'everybody may make them, at /share')
    verb(verbs, 'disable', sharing_status, 'no contact pages')
    verb(verbs, 'list', sharing_list, 'all contact pages')
    for name, text in (('create', 'make a contact page'), ('edit', 'change where it leads')):
        parser = verb(verbs, name, sharing_write, text)
        parser.add_argument('slug', metavar='SLUG')
        parser.add_argument('url', metavar='URL', help='https://i.delta.chat/#…')
        parser.add_argument('name', metavar='NAME', nargs='?', default='')
    verb(verbs, 'reserve', sharing_reserve, 'keep a name free').add_argument('slug', metavar='SLUG')
    parser = verb(verbs, 'remove', sharing_remove, 'remove a contact page', aliases=['delete'])
    parser.add_argument('slug', metavar='SLUG')
    parser.add_argument('-y', '--yes', action='store_true', help='do not ask')

    parser = commands.add_parser('language', parents=options, help='language of the public pages')
    verbs = parser.add_subparsers(dest='verb', metavar='VERB')
    parser.set_defaults(function=language, verb='status')
    verb(verbs, 'status', language, 'what is in force')
    parser = verb(verbs, 'set', language, "one for all visitors, or auto for each one's own")
    parser.add_argument('language', choices=('auto', *words.LANGUAGES))
    verb(verbs, 'reset', language, 'as the file says')

    parser = commands.add_parser(
        'html-export', parents=options, help='write the public pages to change them'
    )
    parser.add_argument('directory', metavar='DEST_DIR')
    parser.set_defaults(function=html_export)
    parser = commands.add_parser('html-serve', parents=options, help='serve own public pages')
    parser.add_argument('directory', metavar='DIR', help='or "embedded" for those of madmail')
    parser.set_defaults(function=html_serve)


def sharing_status(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as access:
        if verb != 'status':
            settings.change(access, 'site.sharing', 'true' if verb == 'enable' else 'false')
        on = bool(access.settings['site.sharing'])
    return Result({'enabled': on}, f'Contact pages are {"on" if on else "off"}.')


def sharing_list(invocation: Invocation) -> Result:
    with Access(invocation.load()) as access:
        found = shares.all_(access)
    entries = [
        {'created_at': one.pop('created'), **one, 'url': one['url'] or 'reserved'} for one in found
    ]
    rows = [(e['slug'], e['name'], day(e['created_at']), e['url']) for e in entries]
    text = table(('name', 'contact', 'since', 'leads to'), rows) if rows else 'No contact pages.'
    return Result({'entries': entries, 'links': entries, 'total': len(entries)}, text)


def sharing_write(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    if arguments.verb == 'create' and arguments.url.strip() == shares.KEPT_FREE:
        return sharing_reserve(invocation)
    with Access(invocation.load()) as access:
        if arguments.verb == 'edit':
            one = shares.edit(access, arguments.slug, arguments.url, arguments.name)
        else:
            one, _ = shares.create(access, arguments.slug, arguments.url, arguments.name)
    data = {'slug': one['slug'], 'url': arguments.url, 'name': one['name']}
    where = f'leads to {one["url"]}' if one['url'] else 'is kept free'
    return Result(data, f'/{one["slug"]} {where}')


def sharing_reserve(invocation: Invocation) -> Result:
    slug = invocation.arguments.slug
    with Access(invocation.load()) as access:
        shares.reserve(access, slug)
    return Result({'slug': slug, 'reserved': True}, f'Nobody can take /{slug}.')


def sharing_remove(invocation: Invocation) -> Result:
    slug = invocation.arguments.slug
    with Access(invocation.load()) as access:
        invocation.confirm(f'Remove the contact page /{slug}?')
        shares.remove(access, slug)
    return Result({'slug': slug}, f'Removed /{slug}.')


def language(invocation: Invocation) -> Result:
    verb = invocation.arguments.verb
    with Access(invocation.load()) as access:
        if verb != 'status':
            text = invocation.arguments.language if verb == 'set' else None
            settings.change(access, 'site.language', text)
        one = settings.one(access, 'site.language')
    current = one['value']
    data = {'current': current, 'language': current, 'source': one['source']}
    return Result(data, "The visitor's." if current == 'auto' else current)


def html_export(invocation: Invocation) -> Result:
    directory = Path(invocation.arguments.directory)
    written = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for source in sorted((*files.TEMPLATES.iterdir(), *files.STATIC.iterdir())):
            target = directory / source.name
            if target.exists():
                raise Failure(f'{target} is there already; name an empty directory')
            shutil.copyfile(source, target)
            written += 1
    except OSError as error:
        raise Failure(f'{directory}: {error.strerror}') from None
    data = {'dest': str(directory), 'files': written}
    return Result(data, f'Wrote {written} files; "madmail html-serve {directory}" serves them.')


def html_serve(invocation: Invocation) -> Result:
    name: str = invocation.arguments.directory
    embedded = name in EMBEDDED
    directory = None if embedded else Path(name).absolute()
    if directory is not None and not directory.is_dir():
        raise Failure(f'{directory} is no directory')
    with Access(invocation.load()) as access:
        settings.change(access, 'site.www_dir', str(directory) if directory else None)
    data = {'embedded': embedded, 'www_dir': str(directory) if directory else None}
    return Result(data, 'The pages of madmail.' if embedded else f'Pages from {directory}.')
