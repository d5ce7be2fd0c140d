"""The public pages over HTTP: what people see, what programs get, and what nobody may."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.admin import shares
from madmail.admin.refused import Refused
from madmail.settings import Settings
from madmail.web.site import files, guide, pages, words
from tests.web.admin.double import Desk
from tests.web.conftest import WebRelay

INVITATION = 'https://i.delta.chat/#' + 'AB' * 20 + '&a=alice%40chat.example&n=Alice&i=x1&s=y2'


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    options = {'site': {'sharing': True}, 'log': 'stderr', 'log_level': 'error'}
    with WebRelay(tmp_path_factory.mktemp('site'), options) as relay:
        yield relay


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()
        self.text = self.body.decode('utf-8', 'replace')


def ask(relay: WebRelay, path: str, method: str = 'GET', body: str = '', **headers: str) -> Answer:
    client = relay.client('http')
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    client.request(method, path, body or None, names)
    answer = Answer(client.getresponse())
    client.close()
    return answer


def form(relay: WebRelay, path: str, **fields: str) -> Answer:
    kind = 'application/x-www-form-urlencoded'
    return ask(relay, path, 'POST', urlencode(fields), Content_Type=kind)


def link(page: str) -> str:
    found = re.search(r'href="(dclogin:[^"]+)"', page)
    assert found is not None
    return found[1].replace('&amp;', '&')


@pytest.mark.parametrize('path', ['/', '/info', '/info.html', '/security', '/docs/', '/share'])
@pytest.mark.parametrize('language', words.LANGUAGES)
def test_pages_in_every_language(relay: WebRelay, path: str, language: str) -> None:
    answer = ask(relay, path, Accept_Language=f'xx, {language}-ZZ;q=0.9, en;q=0.1')
    assert answer.status == 200
    assert f'<html lang="{language}" dir="{"rtl" if language == "fa" else "ltr"}"' in answer.text
    assert '{{' not in answer.text
    assert '<script' not in answer.text
    # Nothing is loaded from elsewhere.
    assert not re.findall(r'(?:src|<link[^>]*href)="(?!/)[^"]*"', answer.text)
    assert "default-src 'none'" in answer.headers['Content-Security-Policy']
    assert answer.headers['X-Content-Type-Options'] == 'nosniff'


def test_every_text_is_translated() -> None:
    english = words.texts('en')
    for language in words.LANGUAGES:
        texts = words.texts(language)
        assert texts.keys() == english.keys()
        for key, text in texts.items():
            assert set(re.findall(r'{\w+}', text)) == set(re.findall(r'{\w+}', english[key])), key


def test_the_code_of_the_start_page_is_an_account(relay: WebRelay) -> None:
    first, second = (link(ask(relay, '/').text) for _ in range(2))
    assert first != second, 'each visitor gets an account of his own'
    address, password = re.match(r'dclogin:([^?]+)\?p=([^&]+)&', first).groups()  # type: ignore[union-attr]
    relay.imap(address, password).logout()


def test_new_for_programs(relay: WebRelay) -> None:
    answer = ask(relay, '/new', 'POST')
    assert answer.status == 200
    made = json.loads(answer.text)
    assert set(made) == {'email', 'password', 'dclogin_url'}
    relay.imap(made['email'], made['password']).logout()
    old = json.loads(ask(relay, '/cgi-bin/newemail.py', 'POST').text)
    relay.imap(old['email'], old['password']).logout()
    assert answer.headers['Cache-Control'] == 'no-store'


def test_new_for_people(relay: WebRelay) -> None:
    answer = form(relay, '/new', page='1')
    assert answer.status == 200
    address, password = re.findall(r'<dd class="mono">([^<]+)</dd>', answer.text)
    relay.imap(address, password).logout()
    assert address in link(answer.text)


def test_a_get_makes_no_account(relay: WebRelay) -> None:
    def accounts() -> int:
        return len(json.loads(relay.cli('--json', 'accounts', 'list').stdout)['data']['accounts'])

    before = accounts()
    answer = ask(relay, '/new')
    assert (answer.status, answer.headers['Location'][:8]) == (302, 'dclogin:')
    ask(relay, '/')
    assert accounts() == before


def test_invitations(relay: WebRelay) -> None:
    relay.cli('registration', 'token')
    try:
        refused = ask(relay, '/new', 'POST')
        assert refused.status == 403
        told = json.loads(refused.text)
        assert told['reason'] == told['error'] == 'Registration token is required'
        assert 'dclogin:' not in ask(relay, '/').text
        made = relay.cli('--json', 'registration-tokens', 'create', '--max-uses', '2').stdout
        token = json.loads(made)['data']['token']
        page = ask(relay, f'/inv/{token}').text
        assert f'name="token" value="{token}"' in page
        assert form(relay, '/new', token=token, page='1').status == 200
        body = json.dumps({'token': token})
        assert ask(relay, '/new', 'POST', body, Content_Type='application/json').status == 200
        spent = ask(relay, f'/new?token={token}', 'POST')
        assert spent.status == 403
        assert 'token' in json.loads(spent.text)['reason']
        assert form(relay, '/new', token='wrong', page='1').status == 403
        relay.cli('registration', 'closed')
        assert ask(relay, '/new', 'POST').status == 403
        assert '/new' not in ask(relay, '/').text
    finally:
        relay.cli('registration', 'open')


@pytest.mark.parametrize(
    'path',
    [
        *('/', '/info', '/security', '/docs', '/docs/', '/share', '/new', '/inv/abc', '/nothing'),
        *('/robots.txt', '/mail/config-v1.1.xml', '/style.css', '/share/remove?slug=a&key=b'),
    ],
)
def test_a_head_is_a_get_without_its_content(relay: WebRelay, path: str) -> None:
    whole, head = ask(relay, path), ask(relay, path, 'HEAD')
    assert head.body == b''
    assert head.status == whole.status
    for name in ('Content-Type', 'Cache-Control', 'Content-Security-Policy', 'Vary', 'ETag'):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize('body', ['[' * 15_000, '{"token":"\\ud800"}', '{"page":"\\udfff"}'])
@pytest.mark.parametrize('path', ['/new', '/share', '/share/remove'])
def test_json_that_means_nothing(relay: WebRelay, path: str, body: str) -> None:
    answer = ask(relay, path, 'POST', body, Content_Type='application/json')
    assert answer.status < 500


def test_half_of_a_character_is_not_kept(relay: WebRelay) -> None:
    fields = {'url': INVITATION, 'name': 'A\ud800', 'slug': 'halved'}
    answer = ask(relay, '/share', 'POST', json.dumps(fields), Content_Type='application/json')
    assert answer.status == 201
    assert 'A?' in ask(relay, '/halved').text


def test_an_invitation_in_a_link_is_one_parameter(
    relay: WebRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, 'public', lambda settings: True)
    given = Settings.defaults(domain='chat.example', **{'accounts.registration': 'token'})
    made = pages.join_link(given, 'a&b=c#d\r\n é')
    assert made == 'dcaccount:https://chat.example/new?token=a%26b%3Dc%23d%0D%0A%20%C3%A9'


def test_an_endless_invitation_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, 'public', lambda settings: True)
    desk = Desk(tmp_path, **{'accounts.registration': 'token'})
    answer = desk.client.simulate_get('/inv/' + 'a' * 3500)
    assert answer.status_code == 200
    assert 'dcaccount:' in answer.text


@pytest.mark.parametrize('language', words.LANGUAGES)
def test_nothing_is_promised_that_is_switched_off(tmp_path: Path, language: str) -> None:
    strict, lax = (
        Desk(tmp_path / name, **given)
        for name, given in (
            ('strict', {'federation.dkim': 'require'}),
            (
                'lax',
                {
                    'policy.require_encryption': False,
                    'federation.dkim': 'off',
                    'retention.messages': 0,
                },
            ),
        )
    )
    t = words.texts(language)
    for desk, said, unsaid in ((strict, '', '_plain'), (lax, '_plain', '')):
        query = f'lang={language}'
        start = html.unescape(desk.client.simulate_get('/', query_string=query).text)
        safety = html.unescape(desk.client.simulate_get('/security', query_string=query).text)
        assert t[f'how_2{said}'] in start
        assert t[f'how_2{unsaid}'] not in start
        assert (t['security_3'] in safety) == (t['security_4'] in safety) == (desk is strict)
        assert (t['how_3_kept'] in start) == (desk is lax)


@pytest.mark.parametrize('language', words.LANGUAGES)
def test_the_guide_is_there_in_every_language(relay: WebRelay, language: str) -> None:
    names = {path.name for path in (guide.GUIDE / 'en').iterdir()}
    assert {path.name for path in (guide.GUIDE / language).iterdir()} == names
    start = ask(relay, f'/docs/?lang={language}').text
    for name in names - {'index.md'}:
        page = name.removesuffix('.md')
        assert f'/docs/{page}' in start
        answer = ask(relay, f'/docs/{page}?lang={language}')
        assert f'<article lang="{language}"' in answer.text
        # What is a command in one language is that in all.
        english = ask(relay, f'/docs/{page}?lang=en').text
        commands = re.findall(r'<code>[^<]*</code>', answer.text)
        assert commands == re.findall(r'<code>[^<]*</code>', english)


@pytest.mark.parametrize('language', words.LANGUAGES)
def test_a_page_that_is_shown_once_leads_to_no_other_language(
    relay: WebRelay, language: str
) -> None:
    made = form(relay, f'/new?lang={language}', page='1')
    shared = form(relay, f'/share?lang={language}', url=INVITATION, slug=f'once{language}')
    for answer in (made, shared):
        assert answer.status in (200, 201)
        assert 'hreflang' not in answer.text
    found = re.search(r'/share/remove\?slug=\w+&amp;key=[\w-]+', shared.text)
    assert found is not None
    page = ask(relay, html.unescape(found[0]))
    (other,) = re.findall(rf'href="([^"]+)" lang="{language}"', page.text)
    page = ask(relay, html.unescape(other))
    assert f'<button>{words.texts(language)["share_remove_now"]}</button>' in page.text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page.text))
    assert form(relay, f'/share/remove?lang={language}', **fields).status == 200


@pytest.mark.parametrize('language', words.LANGUAGES)
def test_people_are_refused_in_their_language(relay: WebRelay, language: str) -> None:
    t = words.texts(language)
    query = f'?lang={language}'
    slug = f'taken{language}'
    assert form(relay, f'/share{query}', url=INVITATION, slug=slug).status == 201
    for key, fields in (
        ('share_taken', {'url': INVITATION, 'slug': slug}),
        ('share_bad_slug', {'url': INVITATION, 'slug': 'share'}),
        ('share_bad_url', {'url': 'https://elsewhere.example/', 'slug': 'some'}),
    ):
        answer = form(relay, f'/share{query}', **fields)
        assert answer.status in (400, 409)
        assert t[key] in html.unescape(answer.text)
    answer = form(relay, f'/share/remove{query}', slug=slug, key='wrong')
    assert answer.status == 404
    assert t['share_gone'] in html.unescape(answer.text)
    answer = form(relay, f'/new{query}', token='wrong', page='1')
    assert answer.status == 403
    assert t['token_bad'] in html.unescape(answer.text)


def test_a_contact_page(relay: WebRelay) -> None:
    made = form(relay, '/share', url=INVITATION, name='Alice <b>', slug='alice')
    assert made.status == 201
    removal = re.search(r'slug=alice&amp;key=([\w-]+)', made.text)
    assert removal is not None
    page = ask(relay, '/alice')
    assert page.status == 200
    assert 'Alice &lt;b&gt;' in page.text
    assert f'href="{INVITATION.replace("&", "&amp;")}"' in page.text
    assert form(relay, '/share', url=INVITATION, slug='ALICE').status == 409
    for wrong in ('new', 'Admin', 'a', 'a-b', '../x'):
        assert form(relay, '/share', url=INVITATION, slug=wrong).status == 400, wrong
    for url in ('', 'https://evil.example/#' + 'AB' * 20, 'javascript:alert(1)', INVITATION + '"'):
        assert form(relay, '/share', url=url).status == 400, url
    assert form(relay, '/share/remove', slug='alice', key='wrong').status == 404
    assert ask(relay, '/alice').status == 200
    assert form(relay, '/share/remove', slug='alice', key=removal[1]).status == 200
    assert ask(relay, '/alice').status == 404
    relay.cli('sharing', 'disable')
    assert ask(relay, '/share').status == 404
    relay.cli('sharing', 'enable')


def test_invitations_are_kept_in_one_form() -> None:
    kept = shares.stored(INVITATION)
    assert kept.startswith('openpgp4fpr:' + 'AB' * 20 + '#a=alice')
    assert shares.link(kept) == INVITATION
    assert shares.stored(kept) == kept
    assert shares.stored('OPENPGP4FPR:' + 'ab' * 20) == 'openpgp4fpr:' + 'AB' * 20
    for wrong in ('openpgp4fpr:12', 'x', 'https://i.delta.chat/#' + 'AB' * 20 + '&a=<x>'):
        with pytest.raises(Refused):
            shares.stored(wrong)


def test_programs_find_the_servers(relay: WebRelay) -> None:
    for path in (
        '/.well-known/autoconfig/mail/config-v1.1.xml',
        '/mail/config-v1.1.xml?emailaddress=a',
    ):
        answer = ask(relay, path)
        assert answer.status == 200
        assert answer.headers['Content-Type'].startswith('application/xml')
        for name, security in (('imaps', 'SSL'), ('imap', 'STARTTLS'), ('submissions', 'SSL')):
            port = relay.ports[name]
            wanted = f'<port>{port}</port>\n      <socketType>{security}</socketType>'
            assert wanted in answer.text
    assert ask(relay, '/.well-known/mta-sts.txt').status == 404, 'the certificate is our own'


def test_static_files_are_tagged(relay: WebRelay) -> None:
    answer = ask(relay, '/style.css')
    assert answer.status == 200
    assert answer.headers['Content-Type'] == 'text/css; charset=utf-8'
    again = ask(relay, '/style.css', If_None_Match=answer.headers['ETag'])
    assert (again.status, again.body) == (304, b'')
    head = ask(relay, '/style.css', 'HEAD')
    assert (head.status, head.body) == (200, b'')
    assert ask(relay, '/nothing').status == 404
    assert ask(relay, '/nothing', 'DELETE').status == 404


def test_own_pages(relay: WebRelay, tmp_path: Path) -> None:
    own = tmp_path / 'www'
    exported = json.loads(relay.cli('--json', 'html-export', str(own)).stdout)['data']
    assert exported['files'] == len(list(own.iterdir())) > 10
    for path in own.iterdir():
        if path.name not in ('index.html', 'base.html'):
            path.unlink()
    (own / 'index.html').write_text('<p>Own {{ MailDomain }} {{ ImapPortTLS }}</p>')
    (own / 'rules.html').write_text("{% extends 'base.html' %}{% block main %}Rules{% endblock %}")
    (own / 'picture.png').write_bytes(b'png')
    (own / '.hidden.txt').write_text('hidden')
    (own / 'broken.html').write_text('{{ nothing.at.all }} {% nonsense %}')
    (own / 'out.txt').symlink_to('/etc/passwd')
    (own / 'up').symlink_to(tmp_path)
    (tmp_path / 'secret.txt').write_text('top secret')
    relay.cli('html-serve', str(own))
    try:
        assert ask(relay, '/').text == f'<p>Own chat.example {relay.ports["imaps"]}</p>'
        assert 'Rules' in ask(relay, '/rules').text
        assert 'Rules' in ask(relay, '/rules.html').text
        assert ask(relay, '/picture.png').body == b'png'
        assert ask(relay, '/info').status == 200, 'what is missing comes from the program'
        assert ask(relay, '/style.css').status == 200
        assert ask(relay, '/broken').status == 500
        tag = ask(relay, '/picture.png').headers['ETag']
        assert ask(relay, '/picture.png', If_None_Match=tag).status == 304
        os.utime(own / 'picture.png', ns=(1, 1))
        assert ask(relay, '/picture.png', If_None_Match=tag).status == 200
        (own / 'index.html').write_text('changed')
        assert ask(relay, '/').text == 'changed'
        for path in (
            '/../secret.txt',
            '/%2e%2e/secret.txt',
            '/..%2fsecret.txt',
            '/%2fetc/passwd',
            '//etc/passwd',
            '/.hidden.txt',
            '/out.txt',
            '/up/secret.txt',
            '/up/../secret.txt',
            '/picture.png%00.txt',
            '/..\\secret.txt',
            '/base.html/../../secret.txt',
            '/state/admin_token',
            '/admin_token',
        ):
            answer = ask(relay, path)
            assert answer.status in (400, 404), path
            assert 'top secret' not in answer.text
            assert 'root:' not in answer.text
    finally:
        relay.cli('html-serve', 'embedded')
    assert 'Own' not in ask(relay, '/').text


@given(st.text(max_size=60))
def test_no_name_leaves_its_directory(name: str) -> None:
    found = files.below(files.STATIC, name)
    assert found is None or found.parent == files.STATIC


@settings(max_examples=150, deadline=None)
@given(
    path=st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40),
    method=st.sampled_from(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']),
    body=st.binary(max_size=200),
    kind=st.sampled_from(
        ['', 'application/json', 'application/x-www-form-urlencoded', 'text/html; a=b', 'x']
    ),
    known=st.sampled_from(
        ['', '/new', '/share', '/share/remove', '/inv/', '/docs/', '/info?lang=']
    ),
)
def test_nothing_that_is_sent_breaks_it(
    relay: WebRelay, path: str, method: str, body: bytes, kind: str, known: str
) -> None:
    client = relay.client('http')
    client.putrequest(method, f'{known or "/"}{path}'.replace('#', '%23') or '/', skip_host=True)
    client.putheader('Host', 'chat.example')
    client.putheader('Content-Length', str(len(body)))
    client.putheader('Content-Type', kind)
    client.putheader('Accept-Language', path.encode('latin-1', 'replace')[:30])
    try:
        client.endheaders(body)
        status = client.getresponse().status
    finally:
        client.close()
    assert status < 500 or status == 503


def test_nothing_broke_in_all_that(relay: WebRelay) -> None:
    assert 'request failed' not in relay.text()
    assert 'Traceback' not in relay.text()
