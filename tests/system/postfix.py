"""A real Postfix with OpenDKIM, as another mail server: own directories, free ports, no root files.

    with Postfix('postfix.example', names.address) as far:
        far.ports['mx']        takes mail for the domain and lets OpenDKIM verify it
        far.ports['signed']    takes anything for anywhere; OpenDKIM signs it
        far.ports['unsigned']  the same without a signature
        far.mail('fay')        what has arrived for fay@postfix.example, oldest first

Mail for `late@` is accepted and then bounced; other names but fay's are refused.
`routes` names where Postfix takes other domains.  OpenDKIM asks the given name
server and signs for `signs` with the key of dkim_forms, selector `one`.

Postfix changes its user, so its directories must be open to others: they are not
under pytest's.  It has to be started by root; `require` says whether it can be.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.message.dkim_forms import rsa_key
from tests.system.relay import free_ports

DAEMONS = Path('/usr/lib/postfix/sbin')
SELECTOR = 'one'
PATIENCE = 20.0  # seconds for a start, or for a message to arrive

MAIN = """\
compatibility_level = 3.6
queue_directory = {room}/queue
data_directory = {room}/data
maillog_file = {room}/log
maillog_file_prefixes = {room}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.{domain}
mydomain = {domain}
myorigin = {domain}
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
smtp_dns_support_level = disabled
smtp_tls_security_level = may
smtp_tls_loglevel = 1
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_tls_cert_file = {room}/tls.crt
smtpd_tls_key_file = {room}/tls.key
smtpd_tls_received_header = yes
smtpd_client_restrictions =
milter_default_action = tempfail
internal_mail_filter_classes = bounce
non_smtpd_milters = inet:127.0.0.1:{signer}
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {room}/mail
virtual_mailbox_maps = inline:{{ {{ fay@{domain} = fay/ }}, {{ late@{domain} = late/ }} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
transport_maps = inline:{{ {{ late@{domain} = failing: }}{routes} }}
minimal_backoff_time = 1s
maximal_backoff_time = 1s
queue_run_delay = 1s
message_size_limit = 40000000
virtual_mailbox_limit = 50000000
"""

MASTER = """\
127.0.0.1:{mx} inet n - n - - smtpd
  -o smtpd_milters=inet:127.0.0.1:{verifier}
  -o smtpd_relay_restrictions=reject_unauth_destination
127.0.0.1:{signed} inet n - n - - smtpd
  -o smtpd_milters=inet:127.0.0.1:{signer}
127.0.0.1:{unsigned} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
failing unix - n n - - pipe
  user=nobody argv=/bin/sh -c {{ echo This mailbox is closed; exit 69 }}
"""

OPENDKIM = """\
Mode {mode}
Socket inet:{port}@127.0.0.1
Syslog no
Background no
UserID nobody
RequireSafeKeys no
Canonicalization relaxed/simple
InternalHosts {internal}
ResolverConfiguration {room}/unbound.conf
AlwaysAddARHeader yes
AuthservID mx.{domain}
DNSTimeout 5
"""

SIGNS = """\
Domain {domains}
Selector {selector}
KeyFile {room}/dkim.pem
"""

UNBOUND = """\
server:
  do-not-query-localhost: no
forward-zone:
  name: "."
  forward-addr: {server}
"""


def require() -> None:
    """Skip without root or the programs; on CI, where they must be, fail."""
    missing = [
        package
        for package, program in (('postfix', DAEMONS / 'master'), ('opendkim', _opendkim()))
        if not Path(program).exists()
    ]
    reason = f'{" and ".join(missing)} from Debian not installed' if missing else ''
    if os.geteuid() != 0:
        reason = 'Postfix can only be started by root'
    if reason and os.environ.get('CI') == 'true':
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Postfix:
    def __init__(
        self,
        domain: str,
        server: str,
        *,
        signs: Sequence[str] = (),
        routes: Mapping[str, int] | None = None,
    ) -> None:
        """`server` is HOST:PORT of a name server; `routes` is the SMTP port of a domain."""
        self.domain = domain
        self.room = Path(tempfile.mkdtemp(prefix='postfix-'))
        self.room.chmod(0o755)
        names = ('mx', 'signed', 'unsigned', 'verifier', 'signer')
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._children: list[subprocess.Popen[bytes]] = []
        nobody = pwd.getpwnam('nobody')
        to = ''.join(
            f', {{ {name} = smtp:[127.0.0.1]:{port} }}' for name, port in (routes or {}).items()
        )
        facts = {
            'room': self.room,
            'domain': domain,
            'uid': nobody.pw_uid,
            'gid': nobody.pw_gid,
            'routes': to,
            **self.ports,
        }
        for name in ('config', 'queue', 'data', 'mail'):
            (self.room / name).mkdir()
        os.chown(self.room / 'data', pwd.getpwnam('postfix').pw_uid, -1)
        os.chown(self.room / 'mail', nobody.pw_uid, nobody.pw_gid)
        self._write('config/main.cf', MAIN.format(**facts))
        self._write('config/master.cf', MASTER.format(**facts))
        self._write('unbound.conf', UNBOUND.format(server=server.replace(':', '@')))
        key = rsa_key().private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        self._write('dkim.pem', key.decode())
        os.chown(self.room / 'dkim.pem', nobody.pw_uid, nobody.pw_gid)
        for mode, name, internal in (('v', 'verifier', '192.0.2.1'), ('s', 'signer', '127.0.0.1')):
            text = OPENDKIM.format(mode=mode, port=self.ports[name], internal=internal, **facts)
            if mode == 's':
                domains = ','.join((domain, *signs))
                text += SIGNS.format(domains=domains, selector=SELECTOR, room=self.room)
            self._write(f'{name}.conf', text)
        subprocess.run(
            [
                *('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2'),
                *('-subj', f'/CN=mx.{domain}', '-keyout', 'tls.key', '-out', 'tls.crt'),
            ],
            cwd=self.room,
            check=True,
            capture_output=True,
        )

    # -- life

    def __enter__(self) -> Postfix:
        try:
            for name in ('verifier', 'signer'):
                self._start(_opendkim(), '-f', '-x', str(self.room / f'{name}.conf'))
            # With "start-fg" the master is our child, so it is ended by its own id.
            self._start('/usr/sbin/postfix', '-c', str(self.room / 'config'), 'start-fg')
            for port in self.ports.values():
                self._wait_open(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(10 if 'start-fg' in child.args else 0.3)  # OpenDKIM takes ten seconds
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5)
        shutil.rmtree(self.room, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        (self.room / name).write_text(text)

    def _start(self, *command: str) -> None:
        with (self.room / 'output').open('ab') as output:
            self._children.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _wait_open(self, port: int) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(('127.0.0.1', port), 2).close()
                return
            ended = [child.args for child in self._children if child.poll() is not None]
            if ended or time.monotonic() > end:
                raise AssertionError(f'port {port} is not open, ended: {ended}\n{self.text()}')
            time.sleep(0.05)

    # -- use

    def text(self) -> str:
        """The log of Postfix, and what was printed."""
        return ''.join(
            path.read_text(errors='replace')
            for name in ('output', 'log')
            if (path := self.room / name).exists()
        )

    def wait_log(self, words: str, after: int = 0, wait: float = PATIENCE) -> str:
        """The log from octet `after` once it has these words."""
        end = time.monotonic() + wait
        while words not in (text := self.text()[after:]):
            if time.monotonic() > end:
                raise AssertionError(f'not in the log of Postfix: {words}\n{text}')
            time.sleep(0.05)
        return text

    def mail(self, name: str) -> list[bytes]:
        folder = self.room / 'mail' / name / 'new'
        found = sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime_ns)
        # Maildir files have LF, as the network does not.
        return [one.read_bytes().replace(b'\n', b'\r\n') for one in found]

    def wait_mail(self, name: str, words: bytes, wait: float = PATIENCE) -> bytes:
        """The first message for a name that has these octets."""
        end = time.monotonic() + wait
        while True:
            with contextlib.suppress(FileNotFoundError):
                for text in self.mail(name):
                    if words in text:
                        return text
            if time.monotonic() > end:
                raise AssertionError(f'no mail with {words!r} for {name}\n{self.text()}')
            time.sleep(0.05)

    def submit(self, port: str, sender: str, to: str, message: bytes) -> None:
        """Give Postfix a message to send."""
        with smtplib.SMTP('127.0.0.1', self.ports[port], timeout=20) as client:
            assert client.sendmail(sender, [to], message) == {}


def _opendkim() -> str:
    return shutil.which('opendkim', path=f'{os.environ.get("PATH", "")}:/usr/sbin') or '/nowhere'
