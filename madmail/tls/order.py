"""One order of a certificate (RFC 8555), in a process of its own; see `brief`.

The authority fetches a token from port 80 of each name.  A running relay answers it
itself, from the files of `challenges`; nothing is stopped and nothing bound.  Where none
runs, the order answers on listeners it is given, as long as it takes.

Exit status: 0 whatever came of it, which is in `acme.State`; BUSY if another order is under
way.
"""

from __future__ import annotations

import datetime
import http.client
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import josepy
import requests
from acme import challenges as acme_challenges
from acme import client, crypto_util, errors, messages
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from madmail.account.address import ip_literal
from madmail.master.process import die_with_parent, name_process
from madmail.tls import acme, acme_network, acme_schedule, challenges
from madmail.tls.acme_network import Network, Wait
from madmail.tls.brief import ASK, BUSY, Brief, read
from madmail.tls.challenge_server import ChallengeServer
from madmail.tls.files import tidy, write

TIME = 240.0  # seconds for an order
PROBE_TIME = 30.0  # seconds in which our own port 80 has to answer
# What an authority says whether or not an order replaces something.
FINAL = (acme_schedule.RATE_LIMITED, 'rejectedIdentifier')
SHORT_LIVED = 'shortlived'  # the profile of IP addresses at Let's Encrypt


class Failed(Exception):
    """The order failed: `word` says how, the text why."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class Authority:
    """Our account at an authority."""

    def __init__(self, brief: Brief, wait: Wait) -> None:
        """Raises what `explain` understands."""
        self._brief = brief
        self._file = Path(brief.directory) / acme.ACCOUNT_FILE
        self._accounts = _json(self._file)
        kept = self._accounts.get(brief.source, {})
        try:
            private = serialization.load_pem_private_key(kept['key'].encode(), None)
        except (KeyError, ValueError, AttributeError):
            kept, private = {}, ec.generate_private_key(ec.SECP256R1())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._key = private
        self.jwk = josepy.JWKEC(key=private)
        self._network = Network(self.jwk, brief.ca_file, wait)
        directory = client.ClientV2.get_directory(brief.source, self._network)
        self.client = client.ClientV2(directory, self._network)
        if kept.get('uri') and kept.get('email') == brief.email:
            self._use(kept['uri'])
        else:
            self.register()

    def register(self) -> None:
        """Make the account, or find it, and agree to the terms that are in force."""
        brief, directory = self._brief, self.client.directory
        identity, secret = brief.account
        binding = None
        if identity:
            binding = messages.ExternalAccountBinding.from_data(
                self.jwk.public_key(), identity, secret, directory
            )
        elif self.client.external_account_required():
            raise Failed(
                'externalAccountRequired',
                'the authority wants an account that was made there before: '
                'tls.acme_eab_id and tls.acme_eab_secret',
            )
        self._network.account = None
        wanted = messages.NewRegistration.from_data(
            email=brief.email or None,
            terms_of_service_agreed=True,
            external_account_binding=binding,
        )
        try:
            account = self.client.new_account(wanted)
        except errors.ConflictError as conflict:
            account = self._use(conflict.location)
            if brief.email:
                update = messages.Registration.from_data(email=brief.email)
                self.client.update_registration(account, update)
        self._accounts[brief.source] = {
            'uri': account.uri,
            'email': brief.email,
            'key': acme.key_pem(self._key).decode(),
        }
        write(self._file, json.dumps(self._accounts, indent=1).encode())

    def order(
        self, request: bytes, profile: str | None, replaces: str = ''
    ) -> messages.OrderResource:
        """A new order; with another account if the authority has forgotten ours.

        `replaces` is the identifier of the certificate that it is to replace (RFC 9773 5), ''
        if there is none.
        """
        if replaces and getattr(self.client.directory, 'renewalInfo', None):
            self._network.replaces = replaces
            try:
                return self.client.new_order(request, profile)
            except (errors.ConflictError, messages.Error) as error:
                if isinstance(error, messages.Error) and error.code in FINAL:
                    raise
                # It does not know that one as ours, or it has been replaced.
            finally:
                self._network.replaces = ''
        try:
            return self.client.new_order(request, profile)
        except messages.Error as error:
            if error.code != 'accountDoesNotExist':
                raise
            self.register()
            return self.client.new_order(request, profile)

    def profile(self, names: Sequence[str]) -> str | None:
        """The profile to ask for: for IP addresses the one that they need, where there is one."""
        offered = getattr(getattr(self.client.directory, 'meta', None), 'profiles', None) or {}
        if any(ip_literal(name) for name in names) and SHORT_LIVED in offered:
            return SHORT_LIVED
        return None

    def _use(self, uri: str) -> messages.RegistrationResource:
        account = messages.RegistrationResource(body=messages.Registration(), uri=uri)
        self._network.account = account
        return account


# -- the order


def order(brief: Brief, state: acme.State, wait: Wait) -> None:
    """Get the certificate and put it in place.  Raises what `explain` understands."""
    directory = Path(brief.directory)
    authority = Authority(brief, wait)
    private = None if brief.new_key else acme.key(directory)
    private = private or ec.generate_private_key(ec.SECP256R1())
    names = list(brief.names)
    replaces = _predecessor(brief, state)
    while True:
        try:
            chain = issue(brief, authority, private, names, replaces)
            break
        except (errors.ValidationError, messages.Error) as error:
            refused = _refused(error, names)
            if not refused:
                raise
            # The name that matters is not held up by one that is only nice to have.
            for name in refused:
                names.remove(name)
                state.refused[name] = int(time.time())
    if brief.trial:
        acme.checked(chain, private, names, time.time())
        return
    acme.put(directory, chain, private, names)
    state.obtained, state.source = int(time.time()), brief.source
    # What it is for is refused no more; what was long ago is asked for again when it is wanted.
    kept = acme_schedule.left_out(state, state.obtained)
    state.refused = {name: state.refused[name] for name in kept if name not in names}
    state.ask_at = 0


def _predecessor(brief: Brief, state: acme.State) -> str:
    """The identifier of the certificate that this order replaces; '' if it is a first one."""
    found = acme.certificate(Path(brief.directory))
    if found is None or brief.trial or state.source != brief.source:
        return ''
    # RFC 9773 5: both have to have a name in common.
    return acme_network.identifier(found) if brief.names[0] in acme.names_of(found) else ''


def issue(
    brief: Brief,
    authority: Authority,
    private: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    replaces: str = '',
) -> bytes:
    """The chain for `names`, in PEM."""
    directory = Path(brief.directory)
    literals = [ip for name in names if (ip := ip_literal(name))]
    request = crypto_util.make_csr(
        acme.key_pem(private),
        domains=[name for name in names if ip_literal(name) is None],
        ipaddrs=literals,
    )
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=TIME)
    wanted = authority.order(request, authority.profile(names), replaces)
    answers: list[tuple[Any, Any]] = []
    try:
        for one in wanted.authorizations:
            if one.body.status == messages.STATUS_VALID:
                continue  # of an earlier order
            challenge = next(
                (c for c in one.body.challenges if isinstance(c.chall, acme_challenges.HTTP01)),
                None,
            )
            if challenge is None:
                raise Failed('unsupported', 'the authority offers no challenge by HTTP')
            response, validation = challenge.response_and_validation(authority.jwk)
            token = challenge.chall.encode('token')
            challenges.put(directory, token, validation)
            answers.append((challenge, response))
            if brief.probe and len(answers) == 1:
                _await_probe(brief.probe, token, validation)
        for challenge, response in answers:
            authority.client.answer_challenge(challenge, response)
        wanted = authority.client.poll_authorizations(wanted, deadline)
        wanted = authority.client.finalize_order(wanted, deadline)
    finally:
        challenges.clear(directory)
    chain: bytes = wanted.fullchain_pem.encode()
    return chain


def _await_probe(probe: tuple[str, int], token: str, validation: str) -> None:
    """The authority is not troubled before our own port 80 answers."""
    deadline = time.monotonic() + PROBE_TIME
    seen = ''
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(*probe, timeout=5.0)
        try:
            connection.request('GET', challenges.PATH + token)
            answer = connection.getresponse()
            if answer.status == 200 and answer.read(4096).decode('latin-1') == validation:
                return
            seen = f' (status {answer.status})'
        except (OSError, http.client.HTTPException) as error:
            seen = f' ({type(error).__name__})'
        finally:
            connection.close()
        time.sleep(0.5)
    raise Failed('local', f'listen.http of this relay does not answer challenges{seen}')


def _refused(error: errors.Error, names: Sequence[str]) -> list[str]:
    """The names an order failed for, if it can go on without them."""
    if isinstance(error, errors.ValidationError):
        found = {one.body.identifier.value for one in error.failed_authzrs}
    else:
        assert isinstance(error, messages.Error)
        found = {
            one.identifier.value for one in error.subproblems or () if one.identifier is not None
        }
        if not found and error.code == 'rejectedIdentifier':
            found = set(names[1:])  # it does not say which
    if names[0] in found:
        return []
    return [name for name in names[1:] if name in found]


# -- when to renew


def ask(brief: Brief, state: acme.State) -> None:
    """Ask the authority when it wants the certificate to be renewed (RFC 9773)."""
    directory = Path(brief.directory)
    now = int(time.time())
    most = acme_schedule.ASK_MOST
    state.ask_at = now + random.randint(most // 4, most // 2)
    held = acme.held(directory)
    if held is None:
        return
    net = Network(None, brief.ca_file, Wait())
    found = client.ClientV2(client.ClientV2.get_directory(brief.source, net), net)
    when, again = found.renewal_time((directory / acme.PEM_FILE).read_bytes())
    if state.renew_for != held.digest:
        state.renew_at, state.renew_for = 0, held.digest
    if when is not None:
        state.renew_at = int(when.timestamp())
        wait = int(again.timestamp()) - now
        state.ask_at = now + min(max(wait, acme_schedule.ASK_LEAST), most)


# -- failures


def explain(error: BaseException) -> tuple[str, str]:
    """A word and a sentence for what went wrong."""
    if isinstance(error, Failed):
        return error.word, str(error)
    if isinstance(error, acme_network.Unfit):
        return 'local', str(error)
    if isinstance(error, acme.Unfit):
        return 'unfit', str(error)
    if isinstance(error, errors.ValidationError):
        for one in error.failed_authzrs:
            for challenge in one.body.challenges:
                if challenge.error is not None:
                    word, text = explain(challenge.error)
                    return word, f'{one.body.identifier.value}: {text}'
    if isinstance(error, errors.IssuanceError):
        return explain(error.error)
    if isinstance(error, messages.Error):
        details = [one.detail for one in error.subproblems or () if one.detail]
        text = ' '.join(filter(None, [error.detail or error.description or error.typ, *details]))
        return error.code or 'protocol', text
    if (status := _status(error)) and (status == 429 or status >= 500):
        word = acme_schedule.RATE_LIMITED if status == 429 else 'unreachable'
        return word, f'the authority cannot be asked now (status {status})'
    if isinstance(error, errors.TimeoutError):
        return 'timeout', 'the authority did not decide in time'
    if isinstance(error, requests.exceptions.SSLError):
        return (
            'untrusted',
            "the certificate of the authority's own server is not trusted; see tls.acme_ca_file",
        )
    if isinstance(error, requests.exceptions.RequestException):
        return 'unreachable', 'the authority does not answer'
    if isinstance(error, OSError):
        return 'local', f'{error.filename or "file"}: {error.strerror or error}'
    return 'protocol', f'the authority said what was not expected ({type(error).__name__})'


def _status(error: BaseException) -> int:
    """Of an answer that gives no reason; 0 if it is something else."""
    for one in error.args if isinstance(error, errors.ClientError) else ():
        for part in one if isinstance(one, tuple) else (one,):
            if isinstance(part, requests.Response):
                return part.status_code
    return 0


# -- the process


def _json(path: Path) -> dict[str, Any]:
    """What a file holds, nothing if that makes no sense.  Raises OSError."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def perform(brief: Brief) -> None:
    """Do what the brief says; what came of it is in the state.  Raises Busy, OSError."""
    directory = Path(brief.directory)
    with acme.lock(directory):
        state = acme.load(directory)
        if brief.task == ASK:
            try:
                ask(brief, state)
            except Exception:
                pass  # the time by the calendar holds
            acme.store(directory, state)
            return
        _order(brief, directory, state)


def _order(brief: Brief, directory: Path, state: acme.State) -> None:
    now = int(time.time())
    if state.setup != brief.setup:
        state.setup, state.failures, state.next = brief.setup, 0, 0
    failures, pause_ends = state.failures, state.next
    challenges.clear(directory)
    tidy(directory, 'acme')
    state.began, state.ended, state.request = now, 0, brief.request
    state.tries.append(now)
    state.word, state.error = 'interrupted', 'it was interrupted'
    if not brief.trial:
        state.failures = failures + 1
        state.next = now + acme_schedule.pause(state.failures, '', random.random())
    acme.store(directory, state)
    server = ChallengeServer(directory, brief.listeners) if brief.listeners else None
    wait = Wait()
    try:
        order(brief, state, wait)
    except SystemExit:  # the relay ends; that is nobody's failure
        state.failures, state.next = failures, pause_ends
        acme.store(directory, state)
        raise
    except Exception as error:
        state.word, state.error = explain(error)
    else:
        state.word = state.error = ''
        if not brief.trial:
            state.failures = state.next = 0
    finally:
        challenges.clear(directory)
        if server is not None:
            server.close()
    state.ended = int(time.time())
    if state.error and not brief.trial:
        state.next = state.ended + acme_schedule.pause(
            state.failures, state.word, random.random(), wait.seconds
        )
    acme.store(directory, state)


def main() -> int:
    brief = read(sys.stdin.read())
    name_process('madmail-acme')
    if not die_with_parent(brief.parent, signal.SIGTERM):
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    try:
        perform(brief)
    except acme.Busy:
        return BUSY
    return 0


if __name__ == '__main__':
    sys.exit(main())
