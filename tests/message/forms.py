"""Builders of gate test messages: packets of right lengths, random octets, mail around them."""

from __future__ import annotations

import base64
import random

from madmail.message import crc24

ALICE = 'alice@example.org'
BOB = 'bob@example.net'
BOUNDARY = '18a5b2c3d4e5f607_2f1a0b9c8d7e6f50_94f03ab1c2d3e4f5'
BEGIN = b'-----BEGIN PGP MESSAGE-----\r\n'
END = b'-----END PGP MESSAGE-----\r\n'
_random = random.Random(20260115)


def octets(count: int) -> bytes:
    """Random octets; never ASCII alone, as nothing encrypted of some length is."""
    return b'\x9d' + _random.randbytes(count - 1) if count else b''


def packet(tag: int, body: bytes, size: int = 0) -> bytes:
    """New format; `size` forces 1, 2 or 5 octets of length."""
    length = len(body)
    if size == 5 or length > 8383:
        return bytes([0xC0 | tag, 255]) + length.to_bytes(4, 'big') + body
    if size == 2 or length > 191:
        length -= 192
        return bytes([0xC0 | tag, 192 + (length >> 8), length & 255]) + body
    return bytes([0xC0 | tag, length]) + body


def old_packet(tag: int, body: bytes, kind: int = 1) -> bytes:
    return bytes([0x80 | tag << 2 | kind]) + len(body).to_bytes(1 << kind, 'big') + body


def partial(tag: int, body: bytes, exponents: tuple[int, ...]) -> bytes:
    """Partial body lengths, the rest as the last, definite chunk."""
    out = bytes([0xC0 | tag])
    for exponent in exponents:
        out += bytes([0xE0 | exponent]) + body[: 1 << exponent]
        body = body[1 << exponent :]
    return out + packet(tag, body)[1:]


def mpi(bits: int, lead: bytes = b'') -> bytes:
    size = (bits + 7) // 8
    top = 1 << (bits - 1) % 8
    first = lead or bytes([top | _random.randrange(top)])
    return bits.to_bytes(2, 'big') + first + octets(size - 1)


def ecdh(wrapped: int = 48) -> bytes:
    return mpi(263, b'\x40') + bytes([wrapped]) + octets(wrapped)


def pkesk3(algorithm: int = 18, material: bytes | None = None, key_id: bytes = bytes(8)) -> bytes:
    return packet(
        1, b'\3' + key_id + bytes([algorithm]) + (ecdh() if material is None else material)
    )


def pkesk6(algorithm: int = 25, material: bytes | None = None, key: bytes = b'\0') -> bytes:
    if material is None:
        material = octets(32) + b'\x28' + octets(40)
    return packet(1, b'\6' + key + bytes([algorithm]) + material)


def skesk4() -> bytes:
    return packet(3, b'\4\x09\3\x08' + octets(8) + b'\x60')


def skesk6(s2k: bytes | None = None, cipher: int = 7, aead: int = 2, key: int = 16) -> bytes:
    s2k = b'\1\x08' + octets(8) if s2k is None else s2k
    nonce = {1: 16, 2: 15, 3: 12}[aead]
    fields = bytes([cipher, aead, len(s2k)]) + s2k + octets(nonce)
    return packet(3, b'\6' + bytes([len(fields)]) + fields + octets(key + 16))


def seipd1(size: int = 400) -> bytes:
    return packet(18, b'\1' + octets(size))


def seipd2(size: int = 400, head: bytes = b'\2\7\2\7') -> bytes:
    return packet(18, head + octets(32) + octets(size))


PACKETS_1 = pkesk3() + pkesk3() + seipd1(1600)
PACKETS_2 = pkesk6() + pkesk6() + seipd2(1600)


def lines(data: bytes, width: int = 64) -> bytes:
    text = base64.b64encode(data)
    return b''.join(text[at : at + width] + b'\r\n' for at in range(0, len(text), width))


def armor(data: bytes, width: int = 64, crc: bool = True, headers: bytes = b'') -> bytes:
    text = BEGIN + headers + b'\r\n' + lines(data, width)
    if crc:
        checksum = crc24.update(crc24.INITIAL, data).to_bytes(3, 'big')
        text += b'=' + base64.b64encode(checksum) + b'\r\n'
    return text + END


CONTENT_TYPE = (
    b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; \r\n'
    b'\tboundary="%b"\r\n'
)
PART_1 = (
    b'Content-Type: application/pgp-encrypted; charset="utf-8"\r\n'
    b'Content-Transfer-Encoding: 7bit\r\n'
)
PART_2 = (
    b'Content-Type: application/octet-stream; charset="utf-8"\r\n'
    b'Content-Transfer-Encoding: 7bit\r\n'
)
VERSION = b'Version: 1\r\n'


def current_headers(sender: str = ALICE, boundary: str = BOUNDARY) -> bytes:
    """The outer header of today's Delta Chat, without its empty line."""
    return (
        b'From: <%b>\r\n'
        b'Date: Thu, 15 Jan 2026 10:20:30 +0000\r\n'
        b'Message-ID: <7c1d4a52-96f5-4b53-8a3f-0d7be0a2f6a1@localhost>\r\n'
        b'MIME-Version: 1.0\r\n'
        b'To: "hidden-recipients": ;\r\n'
        b'Subject: [...]\r\n'
        b'Chat-Version: 1.0\r\n' % sender.encode()
    ) + CONTENT_TYPE % boundary.encode()


def body(
    text: bytes,
    boundary: str = BOUNDARY,
    part_1: bytes = PART_1,
    version: bytes = VERSION,
    part_2: bytes = PART_2,
    preamble: bytes = b'\r\n',
    close: bytes | None = None,
    epilogue: bytes = b'',
) -> bytes:
    delimiter = b'--' + boundary.encode()
    if close is None:
        close = b'\r\n' + delimiter + b'--\r\n'
    return b''.join(
        (
            preamble,
            delimiter + b'\r\n' + part_1 + b'\r\n' + version + b'\r\n',
            delimiter + b'\r\n' + part_2 + b'\r\n' + text,
            close,
            epilogue,
        )
    )


def encrypted(data: bytes | None = None, headers: bytes | None = None, **parts: bytes) -> bytes:
    """A whole message of today's form around packets."""
    text = armor(PACKETS_1 if data is None else data)
    return (current_headers() if headers is None else headers) + b'\r\n' + body(text, **parts)


def around(text: bytes, **parts: bytes) -> bytes:
    """A whole message of today's form around armor text."""
    return current_headers() + b'\r\n' + body(text, **parts)


TEXT_PART = b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n'
JOIN_BOUNDARY = '18b0c1d2e3f40516'


def join(
    kind: bytes = b'vc-request',
    text: bytes | None = None,
    headers: bytes = b'',
    part: bytes = TEXT_PART,
    top: bytes = b'multipart/mixed',
    token: bytes = b'Secure-Join-Invitenumber: pQ7_3kd-9XbTz1aWm4sL0Kfe\r\n',
    preamble: bytes = b'',
    more: bytes = b'',
    epilogue: bytes = b'',
    subject: bytes = b'[...]',
) -> bytes:
    """The legacy Secure-Join request."""
    text = b'Secure-Join: ' + kind if text is None else text
    delimiter = b'--' + JOIN_BOUNDARY.encode()
    return (
        b'From: <alice@example.org>\r\n'
        b'Message-ID: <Mr.a1b2c3d4e5f.6g7h8i9j0k1@example.org>\r\n'
        b'MIME-Version: 1.0\r\n' + headers + b'To: <bob@example.net>\r\n'
        b'Subject: ' + subject + b'\r\n'
        b'Date: Thu, 15 Jan 2026 10:20:30 +0000\r\n'
        b'References: <Mr.a1b2c3d4e5f.6g7h8i9j0k1@example.org>\r\n'
        b'Chat-Version: 1.0\r\n'
        b'Secure-Join: ' + kind + b'\r\n' + token + b'Content-Type: ' + top + b';\r\n'
        b'\tboundary="' + JOIN_BOUNDARY.encode() + b'"\r\n\r\n'
        + preamble + delimiter + b'\r\n' + part + b'\r\n' + text + b'\r\n'
        + more + delimiter + b'--\r\n' + epilogue
    )  # fmt: skip


def autocrypt(sender: str = ALICE, key: bytes | None = None) -> bytes:
    """A folded Autocrypt field; the key has packets of the right kinds."""
    if key is None:
        key = (
            packet(6, b'\4' + octets(50))
            + packet(13, b'<' + sender.encode() + b'>')
            + packet(2, b'\4' + octets(140))
            + packet(14, b'\4' + octets(55))
            + packet(2, b'\4' + octets(120))
        )
    text = base64.b64encode(key)
    folded = b''.join(b'\r\n\t' + text[at : at + 76] for at in range(0, len(text), 76))
    return b'Autocrypt: addr=%b; prefer-encrypt=mutual;\r\n\tkeydata=%b\r\n' % (
        sender.encode(),
        folded.removeprefix(b'\r\n\t'),
    )
