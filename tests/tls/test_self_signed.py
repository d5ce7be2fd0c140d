from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from madmail.settings import Settings
from madmail.tls import self_signed
from madmail.tls.context import ServerTLS, Unusable

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def certificate(files: self_signed.Files) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def alternative_names(files: self_signed.Files) -> set[str]:
    found = certificate(files).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in found.value}


@pytest.mark.parametrize(
    ('domain', 'expected'),
    [
        ('chat.example', {'chat.example'}),
        ('_chat.example', {'_chat.example'}),
        ('bücher.example', {'xn--bcher-kva.example'}),
        ('203.0.113.5', {'203.0.113.5'}),
        ('[203.0.113.5]', {'203.0.113.5'}),
        ('2001:db8::1', {'2001:db8::1'}),
        ('localhost', {'localhost', '127.0.0.1', '::1'}),
        ('127.0.0.1', {'localhost', '127.0.0.1', '::1'}),
        ('127.0.0.2', {'127.0.0.2', 'localhost', '127.0.0.1', '::1'}),
        ('a' * 60 + '.example', {'a' * 60 + '.example'}),
    ],
)
def test_the_certificate_names_the_domain(domain: str, expected: set[str], tmp_path: Path) -> None:
    assert alternative_names(self_signed.ensure(tmp_path / 'tls', domain)) == expected


def test_the_host_that_clients_connect_to_is_named_too(tmp_path: Path) -> None:
    files = self_signed.ensure(tmp_path, 'chat.example', host='mx.chat.example')
    assert alternative_names(files) == {'chat.example', 'mx.chat.example'}
    key = files.key.read_bytes()
    assert self_signed.due(tmp_path, 'chat.example', host='192.0.2.7')
    files = self_signed.ensure(tmp_path, 'chat.example', host='192.0.2.7')
    assert alternative_names(files) == {'chat.example', '192.0.2.7'}
    assert files.key.read_bytes() == key, 'clients know it'
    files = self_signed.ensure(tmp_path, 'chat.example', host='Chat.example')
    assert alternative_names(files) == {'chat.example'}


def test_key_and_certificate_are_private_and_made_once(tmp_path: Path) -> None:
    files = self_signed.ensure(tmp_path / 'tls', 'chat.example')
    before = [path.read_bytes() for path in files]
    assert self_signed.ensure(tmp_path / 'tls', 'chat.example') == files
    assert [path.read_bytes() for path in files] == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert sorted(path.name for path in (tmp_path / 'tls').iterdir()) == [
        'lock',
        'self-signed.crt',
        'self-signed.key',
    ]


def test_it_is_renewed_before_its_end_with_the_same_key(tmp_path: Path) -> None:
    files = self_signed.ensure(tmp_path, 'chat.example', NOW)
    first = certificate(files)
    late = first.not_valid_after_utc - self_signed.RENEWAL
    assert not self_signed.due(tmp_path, 'chat.example', late)
    late += datetime.timedelta(hours=1)
    assert self_signed.due(tmp_path, 'chat.example', late)
    second = certificate(self_signed.ensure(tmp_path, 'chat.example', late))
    assert second.not_valid_after_utc > first.not_valid_after_utc
    assert second.public_key() == first.public_key()
    assert not self_signed.due(tmp_path, 'chat.example', late)


def test_another_domain_gets_a_certificate_with_the_same_key(tmp_path: Path) -> None:
    first = certificate(self_signed.ensure(tmp_path, 'chat.example'))
    files = self_signed.ensure(tmp_path, '192.0.2.1')
    assert alternative_names(files) == {'192.0.2.1'}
    assert certificate(files).public_key() == first.public_key()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / '.self-signed.key.0123abcd').write_text('half a key')
    files = self_signed.ensure(tmp_path, 'chat.example')
    assert {path.name for path in tmp_path.iterdir()} == {'lock', *(file.name for file in files)}


def test_a_damaged_key_is_reported_and_kept(tmp_path: Path) -> None:
    files = self_signed.ensure(tmp_path, 'chat.example')
    files.key.write_text('damaged')
    with pytest.raises(self_signed.Unusable, match=r'self-signed\.key is not a private key'):
        self_signed.ensure(tmp_path, 'chat.example')
    assert files.key.read_text() == 'damaged'


def test_many_at_once_make_one_pair(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: self_signed.ensure(tmp_path, 'localhost'), range(16)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made[0])


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1', '::1'])
def test_strict_clients_that_trust_it_accept_it(host: str, tmp_path: Path) -> None:
    server = ServerTLS(Settings.defaults(), tmp_path)
    files = self_signed.files(tmp_path / 'tls')
    client = ssl.create_default_context(cafile=files.certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=lambda: server.context().wrap_socket(ours, server_side=True).close()
    )
    thread.start()
    with client.wrap_socket(theirs, server_hostname=host) as stream:
        assert stream.getpeercert()
    thread.join()


class TestModes:
    def test_file(self, tmp_path: Path) -> None:
        files = self_signed.ensure(tmp_path, 'chat.example')
        settings = Settings.defaults(
            tls__mode='file',
            tls__cert_file=str(files.certificate),
            tls__key_file=str(files.key),
        )
        ServerTLS(settings, tmp_path).context('imap')
        assert not (tmp_path / 'tls').exists()

    def test_key_of_another_certificate_is_refused(self, tmp_path: Path) -> None:
        first = self_signed.ensure(tmp_path / 'a', 'chat.example')
        second = self_signed.ensure(tmp_path / 'b', 'chat.example')
        settings = Settings.defaults(
            tls__mode='file', tls__cert_file=str(first.certificate), tls__key_file=str(second.key)
        )
        with pytest.raises(Unusable, match='do not belong together'):
            ServerTLS(settings, tmp_path)

    def test_missing_and_malformed_files_are_named(self, tmp_path: Path) -> None:
        files = self_signed.ensure(tmp_path, 'chat.example')
        absent = str(tmp_path / 'absent.pem')
        settings = Settings.defaults(
            tls__mode='file', tls__cert_file=absent, tls__key_file=str(files.key)
        )
        with pytest.raises(Unusable, match=r'absent\.pem.*No such file'):
            ServerTLS(settings, tmp_path)
        Path(absent).write_text('not a certificate')
        with pytest.raises(Unusable, match=r'absent\.pem.*not a PEM certificate'):
            ServerTLS(settings, tmp_path)


class TestReload:
    def test_new_files_are_noticed_and_used(self, tmp_path: Path) -> None:
        tls = ServerTLS(Settings.defaults(domain='chat.example'), tmp_path)
        context = tls.context('imap')
        assert not tls.changed()
        assert not tls.due()
        files = self_signed.files(tmp_path / 'tls')
        files.certificate.unlink()
        assert tls.due()
        tls.renew()
        assert tls.changed()
        tls.reload()
        assert not tls.changed()
        assert tls.context('imap') is context
        assert served(context) == ssl.PEM_cert_to_DER_cert(files.certificate.read_text())

    def test_files_that_are_away_or_out_of_sight_are_left_alone(self, tmp_path: Path) -> None:
        files = self_signed.ensure(tmp_path / 'own', 'chat.example')
        settings = Settings.defaults(
            tls__mode='file', tls__cert_file=str(files.certificate), tls__key_file=str(files.key)
        )
        tls = ServerTLS(settings, tmp_path)
        away = tmp_path / 'away'
        (tmp_path / 'own').rename(away)
        assert not tls.changed()
        away.rename(tmp_path / 'own')
        assert not tls.changed()
        files.certificate.unlink()
        assert not tls.changed()
        self_signed.ensure(tmp_path / 'own', 'chat.example')
        assert tls.changed()
        tls.reload()
        assert not tls.changed()

    def test_a_bad_pair_leaves_the_old_one(self, tmp_path: Path) -> None:
        tls = ServerTLS(Settings.defaults(domain='chat.example'), tmp_path)
        context = tls.context('smtp')
        before = served(context)
        files = self_signed.files(tmp_path / 'tls')
        other = self_signed.ensure(tmp_path / 'other', 'chat.example')
        other.certificate.replace(files.certificate)
        with pytest.raises(Unusable):
            tls.reload()
        assert served(context) == before
        assert tls.changed()  # tried again when looked at again


def served(context: ssl.SSLContext) -> bytes:
    """The certificate a client is shown, DER."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client = client_context.wrap_bio(incoming, outgoing)
    server = context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_addresses_stand_as_addresses(tmp_path: Path) -> None:
    files = self_signed.ensure(tmp_path, '203.0.113.5')
    found = certificate(files).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert found.value.get_values_for_type(x509.IPAddress) == [ipaddress.IPv4Address('203.0.113.5')]
