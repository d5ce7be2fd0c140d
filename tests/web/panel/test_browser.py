"""An operator at the dashboard, in a real browser before a running relay.

MADMAIL_SCREENS=DIRECTORY keeps the pictures, to be looked at.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import mail
from tests.web.admin.office import Office
from tests.web.conftest import WebRelay
from tests.web.panel.browser import Browser, Page, program

PAGES = (
    'overview', 'accounts', 'registration', 'federation', 'queue', 'blocklist', 'services',
    'settings', 'upkeep', 'checks', 'shares', 'system',
)  # fmt: skip
PHONE = {'width': 390, 'height': 844}
DESKTOP = {'width': 1280, 'height': 900}
READY = '!!document.querySelector("h1[tabindex]") && !document.querySelector(".skeleton")'
TOKEN_FIELD = 'input[name=token]'


@pytest.fixture(scope='module')
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    program()
    options = {
        'panel.enabled': True,
        'site.sharing': True,
        'limits.admin_failures_per_minute_per_ip': 0,
    }
    with WebRelay(tmp_path_factory.mktemp('relay'), options) as relay:
        for _ in range(3):
            relay.account()
        yield Office(relay)


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


def address(office: Office, path: str = '/admin/') -> str:
    return f'http://127.0.0.1:{office.relay.web["http"]}{path}'


def enter(browser: Browser, office: Office, **screen: Any) -> Page:
    page = browser.open(address(office), **screen)
    page.type(TOKEN_FIELD, office.token)
    page.key('Enter')
    page.wait(READY)
    return page


def turn(page: Page, name: str) -> None:
    page.run(f'location.hash = "#/{name}"')
    page.wait(f'location.hash === "#/{name}" && {READY}')


def leave(page: Page) -> None:
    """Nothing was complained of, nobody else was asked."""
    assert page.complaints == []
    origin = page.run('location.origin')
    assert [url for url in page.asked if not url.startswith(f'{origin}/')] == []


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b'\x89PNG')
    width, height = struct.unpack('>II', png[16:24])
    return width, height


def drawn(page: Page, name: str, place: Path, file: str) -> bytes:
    """A picture; of each page if they are to be kept, else of the first."""
    kept = os.environ.get('MADMAIL_SCREENS')
    if not kept and name != PAGES[0]:
        return b''
    return page.picture((Path(kept) if kept else place) / file)


def test_a_wrong_token_is_told_and_the_right_one_opens(browser: Browser, office: Office) -> None:
    page = browser.open(address(office), **PHONE)
    page.type(TOKEN_FIELD, 'f' * 64)
    page.key('Enter')
    page.see('unauthorized')
    assert page.run('document.querySelector("[role=alert]").innerText') == 'unauthorized'
    assert page.run('sessionStorage.length') == 0
    page.type(TOKEN_FIELD, office.token)
    page.press('Log in')
    page.wait(READY)
    page.see('chat.example')
    page.see('IMAP connections')
    leave(page)


def test_the_token_is_kept_for_this_tab_only_and_goes(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    stored = page.run('JSON.stringify({ ...localStorage })')
    assert office.token not in stored
    assert page.run('document.cookie') == ''
    page.go(address(office, '/admin/accounts'))
    page.wait(READY)  # still in
    page.press('Log out')
    page.wait(f'!!document.querySelector("{TOKEN_FIELD}")')
    assert page.run('sessionStorage.length') == 0
    page.go(address(office))
    page.wait(f'!!document.querySelector("{TOKEN_FIELD}")')
    leave(page)


def test_the_link_of_the_command_logs_in(browser: Browser, office: Office) -> None:
    told = office.relay.cli('admin-web', 'enable').stdout
    link = told.split('To log in: ')[1].strip()
    assert link.startswith(f'https://chat.example:{office.relay.web["https"]}/admin/#')
    fragment = link.partition('#')[2]
    page = browser.open(address(office) + '#' + fragment, **DESKTOP)
    page.wait(READY)
    assert page.run('location.href') == address(office)  # without the token
    # One that is out of date opens nothing.
    page = browser.open(address(office) + '#' + fragment[:-20] + 'A' * 20, **DESKTOP)
    page.wait(f'!!document.querySelector("{TOKEN_FIELD}")')
    leave(page)


def test_over_tls(browser: Browser, office: Office) -> None:
    page = browser.open(f'https://127.0.0.1:{office.relay.web["https"]}/admin/', **DESKTOP)
    page.type(TOKEN_FIELD, office.token)
    page.key('Enter')
    page.wait(READY)
    page.see('chat.example')
    # Of a self-signed certificate the browser says something.
    assert not [one for one in page.complaints if 'Content Security' in one]


def test_the_figures_are_those_of_the_relay(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    told = office.ask('GET', '/admin/overview')
    shown = page.run('document.querySelector("a.card[href=\\"#/accounts\\"] strong").innerText')
    assert int(shown) == told['users']['registered'] >= 3
    page.see(told['version'])
    page.wait('document.querySelectorAll(".chart > div").length === 30')
    leave(page)


def test_an_account_is_made_found_changed_and_deleted(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **PHONE)
    turn(page, 'accounts')
    page.press('New account')
    page.type('dialog[open] input', 'gertrude')
    page.press('Create', 'dialog[open]')
    page.see('The password is shown only now.')
    name = 'gertrude@chat.example'
    password = page.run(
        '[...document.querySelectorAll("dialog[open] dd")].map((one) => one.innerText)[1]'
    )
    page.wait('!!document.querySelector("dialog[open] svg[role=img]")')
    with office.relay.imap(name, password) as inbox:
        assert inbox.noop()[0] == 'OK'
        page.press('Close', 'dialog[open]')
        page.type('input[type=search]', 'gertr')
        page.wait('document.querySelectorAll("ul.rows .name").length === 1')
        page.press(name)
        page.see('First login')
        page.type('dialog[open] input[type=number]', '7')
        page.press('Save', 'dialog[open]')
        page.see('Saved.')
        assert office.ask('GET', '/admin/quota', {'username': name})['max_bytes'] == 7 * 1024**2
        page.press('Delete', 'dialog[open]')
        page.see(f'Delete {name}?')
        page.press('Cancel', 'dialog[open]')
        assert office.ask('GET', '/admin/accounts', {'q': name})['total'] == 1
        page.press('Delete', 'dialog[open]')
        page.press('Delete', 'dialog[aria-labelledby=question]')
        page.see('The account is deleted.')
        assert office.ask('GET', '/admin/accounts', {'q': name})['total'] == 0
    turn(page, 'blocklist')
    page.see(name)
    page.press(f'Unblock {name}')
    page.see('Nobody is blocked.')
    assert office.ask('GET', '/admin/blocklist')['total'] == 0
    leave(page)


def test_who_deletes_the_last_of_a_part_sees_the_part_before(
    browser: Browser, office: Office
) -> None:
    for number in range(26):
        office.ask('POST', '/admin/accounts', {'username': f'crowd{number:02}'}, status=201)
    page = enter(browser, office, **PHONE)
    turn(page, 'accounts')
    page.type('input[type=search]', 'crowd')
    page.see('1–25 of 26')
    page.press('Next')
    page.wait('document.querySelectorAll("ul.rows .name").length === 1')
    page.press('crowd25@chat.example')
    page.see('First login')
    page.press('Delete', 'dialog[open]')
    page.press('Delete', 'dialog[aria-labelledby=question]')
    page.see('The account is deleted.')
    page.wait('document.querySelectorAll("ul.rows .name").length === 25')
    for number in range(25):
        office.ask('DELETE', '/admin/accounts', {'username': f'crowd{number:02}@chat.example'})
    office.ask('PATCH', '/admin/blocklist', {'action': 'delete_all'})
    leave(page)


def test_a_refusal_is_shown_in_the_words_of_the_relay(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **PHONE)
    turn(page, 'accounts')
    page.press('New account')
    page.type('dialog[open] input', 'a b')
    page.press('Create', 'dialog[open]')
    text = office.ask('POST', '/admin/accounts', {'username': 'a b'}, 400)
    page.see(text)
    leave(page)


def test_a_setting_is_changed_and_in_force(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'settings')
    page.type('input[type=search]', 'relay.comment')
    page.wait('document.querySelectorAll(".setting").length === 1')
    page.type('.setting input', 'A relay for friends')
    page.press('Save', '.setting')
    page.see('relay.comment is in force.')
    page.see('changed here')
    client = office.relay.client('http')
    client.request('GET', '/')
    assert 'A relay for friends' in client.getresponse().read().decode()
    client.close()
    page.press('Reset', '.setting')
    page.wait('!document.body.innerText.includes("changed here")')
    client = office.relay.client('http')
    client.request('GET', '/')
    assert 'A relay for friends' not in client.getresponse().read().decode()
    client.close()
    page.type('input[type=search]', 'limits.quota_trim')
    page.wait('document.querySelectorAll(".setting").length === 1')
    page.type('.setting input', 'much')
    page.press('Save', '.setting')
    page.see('limits.quota_trim_percent: expected a whole number, 0 to 100')
    leave(page)


def test_the_path_moves_and_the_browser_goes_along(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'settings')
    for path in ('/bureau', '/admin'):
        page.type('input[type=search]', 'panel.path')
        page.wait('document.querySelectorAll(".setting").length === 1')
        page.type('.setting input', path)
        page.press('Save', '.setting')
        page.wait(f'location.pathname === "{path}/" && {READY}')  # and still in
    page.press('Log out')
    page.wait(f'!!document.querySelector("{TOKEN_FIELD}")')


def test_tokens_are_made_shown_and_deleted(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **PHONE)
    turn(page, 'registration')
    page.press('New token')
    page.type('dialog[open] input[type=number]', '5')
    page.press('Create', 'dialog[open]')
    page.see('Invitation')
    (one,) = office.ask('GET', '/admin/registration-token')['tokens']
    assert one['max_uses'] == 5
    page.see(one['token'])
    page.key('Escape')
    page.wait('!document.querySelector("dialog[open]")')
    page.press('Delete')
    page.press('Delete', 'dialog[aria-labelledby=question]')
    page.see('There are no tokens.')
    assert office.ask('GET', '/admin/registration-token')['total'] == 0
    page.run('document.querySelector("input[value=closed]").click()')
    page.wait('document.body.innerText.includes("There is none: registration")')
    assert office.ask('GET', '/admin/registration')['status'] == 'closed'
    page.run('document.querySelector("input[value=open]").click()')
    page.wait('!!document.querySelector("svg[role=img]")')
    assert office.ask('GET', '/admin/registration')['status'] == 'open'
    leave(page)


def test_rules_and_services_are_switched(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'federation')
    page.type('input[placeholder="*.example.org"]', 'spam.example')
    page.press('Add')
    page.see('spam.example')
    page.wait('document.querySelectorAll("ul.rows li bdi").length === 1')
    assert office.ask('GET', '/admin/federation/rules')['rules'][0]['domain'] == 'spam.example'
    page.press('Remove spam.example')
    page.see('There are no rules.')
    turn(page, 'services')
    page.press('WebIMAP')
    page.wait('document.querySelector("[aria-label=WebIMAP]").ariaChecked === "true"')
    assert office.ask('GET', '/admin/services/webimap') == {'status': 'enabled'}
    page.press('WebIMAP')
    page.wait('document.querySelector("[aria-label=WebIMAP]").ariaChecked === "false"')
    leave(page)


def test_mail_that_waits_is_tried_and_removed(browser: Browser, office: Office) -> None:
    relay = office.relay
    sender, password = relay.account('ann')
    domains = ('one.example', 'two.example')
    for domain in domains:  # nobody listens there, so that it waits
        given = {'lookup_key': domain, 'target_host': 'http://127.0.0.1:1'}
        office.ask('POST', '/admin/dns', given, 201)
    with relay.smtp(sender, password) as smtp:
        for domain in domains:
            recipient = f'bob@{domain}'
            smtp.sendmail(sender, [recipient], mail.encrypted(sender, recipient))
    page = enter(browser, office, **PHONE)
    turn(page, 'queue')
    page.wait('document.querySelectorAll("ul.rows li").length === 4')
    page.see(f'{sender} → bob@one.example')
    assert page.wider() <= 0
    page.press('Try now')
    page.see('Destinations tried now: 1')
    page.press('Remove', 'section:last-of-type')
    page.press('Remove', 'dialog[aria-labelledby=question]')
    page.see('Removed: 1')
    page.wait('document.querySelectorAll("ul.rows li").length === 2')
    page.press('Empty the queue')
    page.press('Remove all', 'dialog[aria-labelledby=question]')
    page.see('1 entries removed')
    page.see('Nothing waits.')
    assert office.ask('GET', '/admin/outbox')['count'] == 0
    leave(page)


def test_mail_is_counted_before_it_is_removed(browser: Browser, office: Office) -> None:
    relay = office.relay
    sender, recipient = relay.account('cal'), relay.account('dan')
    with relay.smtp(*sender) as smtp:
        smtp.sendmail(sender[0], [recipient[0]], mail.encrypted(sender[0], recipient[0]))
    page = enter(browser, office, **DESKTOP)
    turn(page, 'upkeep')
    choice = 'document.querySelector("form select")'
    for name in ('purge_read', 'purge_all'):
        page.run(
            f'{choice}.value = "{name}";'
            f'{choice}.dispatchEvent(new Event("change", {{ bubbles: true }}))'
        )
        page.press('Remove messages')
        page.see('There is nothing to remove.' if name == 'purge_read' else 'Messages to remove: 1')
    page.press('Remove messages', 'dialog[aria-labelledby=question]')
    page.see('1 messages removed')
    page.press('Run now')
    page.see('There is nothing to remove.')
    leave(page)


def test_contact_pages_and_notices(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **PHONE)
    turn(page, 'shares')
    page.press('New contact page')
    page.type('dialog[open] label:nth-of-type(1) input', 'friend')
    page.type('dialog[open] label:nth-of-type(2) input', 'elsewhere')
    page.press('Save', 'dialog[open]')
    page.see('an invitation link begins with')
    page.type('dialog[open] label:nth-of-type(2) input', 'https://i.delta.chat/#' + 'A' * 40)
    page.press('Save', 'dialog[open]')
    page.see('/friend')
    assert office.ask('GET', '/admin/shares')['total'] == 1
    page.press('Remove')
    page.press('Remove', 'dialog[aria-labelledby=question]')
    page.see('There are none.')
    address, password = office.relay.account('eve')
    turn(page, 'accounts')
    page.type('input[type=search]', address)
    page.press(address)
    page.press('Write a notice', 'dialog[open]')
    page.type('dialog[open] input[maxlength]', 'Tonight')
    page.type('dialog[open] textarea', 'The relay rests from two to three.')
    page.press('Send', 'dialog[open]')
    page.see('Delivered: 1, failed: 0')
    with office.relay.imap(address, password) as inbox:
        assert inbox.select()[1] == [b'1']
    leave(page)


def test_settings_that_need_a_reload(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'system')
    page.press('Reload')
    page.see('The configuration is in force.')
    turn(page, 'checks')
    page.see('processes serve')
    page.see('10 chat.example.')
    leave(page)


def test_arrow_keys_go_through_the_parts(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'federation')
    page.run('document.querySelector("[role=tab]").focus()')
    for _ in range(2):
        for kind in ('keyDown', 'keyUp'):
            page.call('Input.dispatchKeyEvent', type=kind, key='ArrowRight')
    page.wait('document.activeElement.innerText === "Endpoints"')
    page.see('in place of what DNS says')
    leave(page)


def test_when_the_relay_is_gone_and_comes_back(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **PHONE)
    page.call(
        'Network.emulateNetworkConditions',
        offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
    )  # fmt: skip
    page.press('Refresh')
    page.see('The relay cannot be reached. It is tried again every few seconds')
    page.call(
        'Network.emulateNetworkConditions',
        offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1,
    )  # fmt: skip
    page.wait('!document.body.innerText.includes("tried again every few seconds")')
    assert not [one for one in page.complaints if 'ERR_INTERNET_DISCONNECTED' not in one]


def test_a_token_that_is_replaced_ends_the_session(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    office.relay.cli('admin-token', 'rotate', '-y', '--raw')
    office.token = (office.relay.state_dir / 'admin_token').read_text().strip()
    page.press('Refresh')
    page.see('does not accept this token')
    assert page.run('sessionStorage.length') == 0
    leave(page)


@pytest.mark.parametrize('language', ['en', 'es', 'ru', 'fa'])
def test_every_page_in_every_language_fits_a_phone(
    browser: Browser, office: Office, tmp_path: Path, language: str
) -> None:
    page = enter(browser, office, **PHONE, language=language)
    assert page.run('document.documentElement.lang') == language
    assert page.run('document.documentElement.dir') == ('rtl' if language == 'fa' else 'ltr')
    for name in PAGES:
        turn(page, name)
        assert page.wider() <= 0, name
        picture = drawn(page, name, tmp_path, f'panel-{name}-{language}-phone.png')
        if picture:
            assert size(picture) == (780, 1688)
            assert len(picture) > 20_000  # what did not come is plain and packs small
    leave(page)


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('screen', ['phone', 'desktop'])
def test_light_and_dark_can_be_read(
    browser: Browser, office: Office, tmp_path: Path, screen: str, dark: bool
) -> None:
    """Every text that is seen stands out against what is behind it (WCAG 2.2, 1.4.3)."""
    page = enter(browser, office, **(PHONE if screen == 'phone' else DESKTOP), dark=dark)
    for name in PAGES:
        turn(page, name)
        drawn(page, name, tmp_path, f'panel-{name}-{screen}-{"dark" if dark else "light"}.png')
        faint = page.run(CONTRAST)
        assert faint == [], name
    leave(page)


# Texts below 4.5:1; disabled ones may be faint.
CONTRAST = """(() => {
  const parts = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number)
    const scale = text.startsWith('color(') ? 255 : 1
    return [...found.slice(0, 3).map((one) => one * scale), found[3] ?? 1]
  }
  const light = ([r, g, b]) => {
    const one = (value) => {
      const part = value / 255
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    }
    return 0.2126 * one(r) + 0.7152 * one(g) + 0.0722 * one(b)
  }
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = parts(getComputedStyle(one).backgroundColor)
      if (color[3] > 0.99) return color
    }
    return [255, 255, 255, 1]
  }
  const faint = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim()
    const element = walker.currentNode.parentElement
    if (!text || !element.checkVisibility()) continue
    if (element.closest(':disabled, .hidden, noscript')) continue
    const front = light(parts(getComputedStyle(element).color))
    const back = light(behind(element))
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05)
    if (ratio < 4.5) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`)
  }
  return faint
})()"""


def test_everything_that_can_be_used_has_a_name(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    for name in PAGES:
        turn(page, name)
        page.run('document.querySelectorAll("details").forEach((one) => { one.open = true })')
        tree = page.call('Accessibility.getFullAXTree')['nodes']
        for node in tree:
            role = node.get('role', {}).get('value')
            if node.get('ignored') or role not in (
                'button', 'link', 'textbox', 'searchbox', 'switch', 'checkbox', 'radio',
                'combobox', 'spinbutton', 'tab', 'image', 'dialog', 'navigation',
            ):  # fmt: skip
                continue
            assert node.get('name', {}).get('value'), f'{name}: a {role} has no name'
        heading = page.run('[...document.querySelectorAll("h1")].map((one) => one.innerText)')
        assert len(heading) == 1, name
        identities = page.run('[...document.querySelectorAll("[id]")].map((one) => one.id)')
        assert len(identities) == len(set(identities)), name
    leave(page)


def test_the_dashboard_is_switched_off_from_within(browser: Browser, office: Office) -> None:
    page = enter(browser, office, **DESKTOP)
    turn(page, 'services')
    page.press('Dashboard')
    page.press('Switch off', 'dialog[aria-labelledby=question]')
    page.wait('document.querySelector("[aria-label=Dashboard]").ariaChecked === "false"')
    client = office.relay.client('http')
    client.request('GET', '/admin/')
    assert client.getresponse().status == 404
    client.close()
    told = json.loads(office.relay.cli('--json', 'admin-web', 'enable').stdout)
    assert told['data'] == {'enabled': True, 'path': '/admin'}
    page.go(address(office))
    page.wait(READY)
    leave(page)
