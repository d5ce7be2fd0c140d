"""Requests to an authority: the library's, with what RFC 8555 and RFC 9773 say besides."""

from __future__ import annotations

import base64
import ssl
import time
from typing import Any

import josepy
import requests
from acme import client, messages
from cryptography import x509

from madmail import __version__
from madmail.delivery import retry_after
from madmail.tls.acme_schedule import LONGEST_WAIT

REQUEST_TIME = 30  # seconds for an answer of the authority
NONCE_TRIES = 8


class Wait:
    """What the last answer of an authority said of when to come back."""

    seconds = 0.0  # 0 = nothing


class Unfit(Exception):
    """The file that is to vouch for the authority's server cannot be used; the text says why."""


class _Order(messages.NewOrder):
    """RFC 9773 5."""

    replaces: str = josepy.field('replaces', omitempty=True)


class Network(client.ClientNetwork):
    """More patient with nonces that are refused (RFC 8555 6.5)."""

    replaces = ''  # identifier of the certificate that orders are to replace, '' = of none

    def __init__(self, key: josepy.JWK | None, ca_file: str, wait: Wait) -> None:
        """`ca_file` vouches for the authority's server, '' = what browsers trust.  Raises Unfit."""
        verify: Any = True
        if ca_file:
            try:
                ssl.create_default_context(cafile=ca_file)
            except ssl.SSLError:
                raise Unfit('tls.acme_ca_file has no certificate in PEM') from None
            except OSError as error:
                raise Unfit(f'tls.acme_ca_file: {error.strerror}') from None
            verify = ca_file
        super().__init__(
            key,
            alg=josepy.ES256,
            verify_ssl=verify,
            user_agent=f'madmail/{__version__}',
            timeout=REQUEST_TIME,
        )
        self._wait = wait
        self.session.hooks['response'].append(self._answered)

    def post(self, url: str, obj: Any, *args: Any, **kwargs: Any) -> requests.Response:
        if self.replaces and isinstance(obj, messages.NewOrder):
            obj = _Order(**dict(obj), replaces=self.replaces)
        for _ in range(NONCE_TRIES):
            try:
                return self._post_once(url, obj, *args, **kwargs)
            except messages.Error as error:
                if error.code != 'badNonce':
                    raise
        return self._post_once(url, obj, *args, **kwargs)

    def _answered(self, response: requests.Response, *_: Any, **__: Any) -> None:
        # RFC 8555 6.6
        self._wait.seconds = retry_after.seconds(
            response.status_code, response.headers, time.time(), LONGEST_WAIT
        )


def identifier(certificate: x509.Certificate) -> str:
    """What RFC 9773 4.1 calls a certificate by; '' for one that has no such name."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        return ''
    if not found.key_identifier:
        return ''
    serial = certificate.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1)  # as in DER: the first bit is a sign
    return '.'.join(
        base64.urlsafe_b64encode(one).decode().rstrip('=') for one in (found.key_identifier, octets)
    )
