"""TLS contexts of the listeners, and their reload.

TLS 1.2 with forward secrecy and AEAD, or 1.3; no compression, no renegotiation,
one session ticket.  SNI and ALPN are answered when a client sends them and
missed by nobody when it does not: Delta Chat sends no ALPN to 993 and 465,
`imap` or `smtp` to any other port, and after STARTTLS neither ALPN nor SNI.

`ServerTLS` and its contexts are made in the master before it forks, so that the ticket keys
are the same in all gates and privileged key files can be read.  A reload loads the
new certificate into the existing contexts: OpenSSL copies a context's
certificate into each connection, so connections that exist do not notice and
tickets stay valid.

Until an authority has issued the first certificate (`acme`), or where the one it issued
cannot be read, the relay serves the one it makes itself.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Protocol

from madmail.tls import acme, self_signed
from madmail.tls.files import DIRECTORY as DIRECTORY
from madmail.tls.files import Files

# TLS 1.2 only; those of 1.3 are all good and not configured here.
CIPHERS = 'ECDHE+AESGCM:ECDHE+CHACHA20'


class Settings(Protocol):
    def __getitem__(self, name: str) -> object: ...


class Unusable(Exception):
    """The TLS configuration cannot be used; the text says why and names settings or files."""


class ServerTLS:
    """The relay's certificate and the contexts that carry it.

    Raises Unusable when there is no usable certificate; OSError when the
    self-signed one cannot be written.
    """

    def __init__(self, settings: Settings, state_dir: Path, spare: Files | None = None) -> None:
        """`spare` is used when this process may not read the configured files."""
        self._settings = settings
        self._directory = Path(state_dir) / DIRECTORY
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        # What an authority issued and we could not load.
        self._unusable: tuple[Files | None, tuple[tuple[int, ...], ...]] = (None, ())
        self._files = self._find()
        if spare is not None and not all(os.access(path, os.R_OK) for path in self._files):
            self._files = spare
        # Before loading: a change in between is then seen as one later.
        self._seen = _signature(self._files)
        _load(_fresh(()), self._files)
        # For a server that is started when the right to read it is given up.
        self.pem = b''
        if settings['tls.mode'] == 'file' and os.geteuid() == 0:
            self.pem = b'\n'.join(path.read_bytes() for path in self._files)

    def context(self, *protocols: str) -> ssl.SSLContext:
        """The context that answers ALPN with the first of `protocols` a client offers.

        RFC 7301 3.2 would have us refuse a client that offers only others; it
        is let in without ALPN, for it may be any old client on a shared port.
        """
        context = self._contexts.get(protocols)
        if context is None:
            context = _fresh(protocols)
            _load(context, self._files)
            self._contexts[protocols] = context
        return context

    def renew(self) -> None:
        """Make or renew the self-signed certificate if due.  Writes to disk: call in a thread."""
        if self._makes_its_own():
            self._find()

    def due(self) -> bool:
        """Whether `renew` has anything to do."""
        return self._makes_its_own() and self_signed.due(
            self._directory,
            str(self._settings['domain']),
            host=str(self._settings['relay.hostname']),
        )

    def changed(self) -> bool:
        """Whether the files differ from those loaded: a few stat calls.

        Files that are away, or that this process may not see, do not differ: they are being
        replaced, or the master read them when it still might.
        """
        files = self._files
        if self._settings['tls.mode'] == 'acme':
            files = self._locate()
            if files == self._unusable[0]:
                return _signature(files) != self._unusable[1]
        found = _signature(files)
        return () not in found and (files != self._files or found != self._seen)

    def reload(self) -> None:
        """Load the certificate anew into all contexts.

        Raises Unusable and leaves everything as it was if it cannot be used.
        Call where no handshake is begun at the same time, on the loop.
        """
        files = self._locate()
        seen = _signature(files)
        try:
            _load(_fresh(()), files)  # a wrong pair must not reach a context in use
        except Unusable:
            if self._settings['tls.mode'] == 'acme':
                self._unusable = (files, seen)  # nobody mends it but by another one
            raise
        for context in self._contexts.values():
            _load(context, files)
        self._files, self._seen = files, seen
        self._unusable = (None, ())

    def _locate(self) -> Files:
        mode = self._settings['tls.mode']
        if mode == 'self_signed':
            return self_signed.files(self._directory)
        if mode == 'file':
            certificate, key = self._settings['tls.cert_file'], self._settings['tls.key_file']
            if not certificate or not key:
                raise Unusable('tls.mode is file: tls.cert_file and tls.key_file must both be set')
            return Files(Path(str(certificate)), Path(str(key)))
        if mode == 'acme':
            files = acme.files(self._directory)
            return files if files.certificate.exists() else self_signed.files(self._directory)
        raise Unusable('tls.mode must be self_signed, acme or file')

    def _makes_its_own(self) -> bool:
        mode = self._settings['tls.mode']
        own = self_signed.files(self._directory)
        return mode == 'self_signed' or (mode == 'acme' and self._files == own)

    def _find(self) -> Files:
        files = self._locate()
        own = self_signed.files(self._directory)
        if self._settings['tls.mode'] == 'acme' and files != own:
            seen = _signature(files)
            try:
                _load(_fresh(()), files)
            except Unusable:
                self._unusable = (files, seen)
                files = own
        if self._settings['tls.mode'] != 'file' and files == own:
            try:
                return self_signed.ensure(
                    self._directory,
                    str(self._settings['domain']),
                    host=str(self._settings['relay.hostname']),
                )
            except self_signed.Unusable as error:
                raise Unusable(str(error)) from None
            except ValueError:
                raise Unusable('domain can stand in no certificate') from None
        return files


def _fresh(protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    )
    # A phone without AES instructions asks for ChaCha20 first and gets it.
    context.options |= getattr(ssl, 'OP_PRIORITIZE_CHACHA', 1 << 21)
    context.num_tickets = 1
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def _load(context: ssl.SSLContext, files: Files) -> None:
    try:
        # No password: asking for one at the terminal would hang the process.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b'')
    except ssl.SSLError as error:
        reason = 'key and certificate do not belong together'
        if error.reason != 'KEY_VALUES_MISMATCH':
            reason = f'not a PEM certificate chain and an unencrypted key ({error.reason})'
        raise Unusable(f'{files.certificate} and {files.key}: {reason}') from None
    except OSError as error:
        raise Unusable(
            f'{files.certificate} or {files.key}: {os.strerror(error.errno or 0)}'
        ) from None


def _signature(files: Files) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found.append(())
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
