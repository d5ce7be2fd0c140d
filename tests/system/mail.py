"""Messages for tests and load tools: what Delta Chat sends, and what forgers would.

The encrypted ones carry valid OpenPGP framing (RFC 9580) around random octets:
nobody can decrypt them, and a relay must not be able to tell.  Building is
cheap: the armored payload of a size is made once and reused, only the header
block differs between messages.  All messages end with CRLF and are 7-bit.
"""

from __future__ import annotations

import base64
import functools
import os
import random
import time
import uuid
from email.utils import formatdate

CRC_INIT = 0xB704CE
CRC_POLY = 0x1864CFB
_BLOCK = 48 * 1024


def _crc_table() -> list[int]:
    table = []
    for octet in range(256):
        crc = octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= CRC_POLY
        table.append(crc)
    return table


_TABLE = _crc_table()


def crc24(data: bytes, crc: int = CRC_INIT) -> int:
    """The armor checksum of RFC 9580 6.1.1."""
    table = _TABLE
    for octet in data:
        crc = ((crc << 8) & 0xFFFFFF) ^ table[(crc >> 16) ^ octet]
    return crc


@functools.cache
def _block() -> tuple[bytes, int, tuple[list[int], list[int], list[int]]]:
    """A random block, its CRC from zero, and tables that carry a CRC across its length."""
    block = os.urandom(_BLOCK)
    columns = []
    for bit in range(24):
        crc = 1 << bit
        for _ in range(_BLOCK):
            crc = ((crc << 8) & 0xFFFFFF) ^ _TABLE[crc >> 16]
        columns.append(crc)

    def table(shift: int) -> list[int]:
        rows = []
        for octet in range(256):
            value = 0
            for bit in range(8):
                if octet >> bit & 1:
                    value ^= columns[shift + bit]
            rows.append(value)
        return rows

    return block, crc24(block, 0), (table(0), table(8), table(16))


def _filler(size: int, crc: int) -> tuple[bytes, int]:
    """`size` octets that look random and the CRC continued over them.

    PERF: beyond one block the block is repeated and its CRC carried with three
    table look-ups; 22 MB take 0.1 s instead of 3 s.
    """
    if size < 2 * _BLOCK:
        data = os.urandom(size)
        return data, crc24(data, crc)
    block, crc_block, (low, middle, high) = _block()
    count, rest = divmod(size, _BLOCK)
    for _ in range(count):
        crc = low[crc & 255] ^ middle[crc >> 8 & 255] ^ high[crc >> 16] ^ crc_block
    tail = os.urandom(rest)
    return block * count + tail, crc24(tail, crc)


def packet(tag: int, body: bytes | int) -> bytes:
    """New-format packet, or only its header when `body` is a length (RFC 9580 4.2.1)."""
    length = body if isinstance(body, int) else len(body)
    head = bytes([0xC0 | tag])
    if length < 192:
        head += bytes([length])
    elif length < 8384:
        head += bytes([(length - 192 >> 8) + 192, length - 192 & 255])
    else:
        head += b'\xff' + length.to_bytes(4, 'big')
    return head if isinstance(body, int) else head + body


def pkesk3() -> bytes:
    """Public-key encrypted session key, v3, ECDH on Curve25519, anonymous recipient."""
    point = b'\x01\x07\x40' + os.urandom(32)
    return packet(1, b'\x03' + bytes(8) + b'\x12' + point + b'\x30' + os.urandom(48))


def pkesk6() -> bytes:
    """v6, ECDH, anonymous recipient, 71 octets as current cores send."""
    point = b'\x01\x07\x40' + os.urandom(32)
    return packet(1, b'\x06\x00\x12' + point + b'\x20' + os.urandom(32))


def skesk6() -> bytes:
    """v6 with a salted S2K and OCB, 62 octets, as channels and Secure-Join v3 send."""
    s2k = b'\x01\x08' + os.urandom(8)
    fields = b'\x07\x02' + bytes([len(s2k)]) + s2k + os.urandom(15)
    return packet(3, b'\x06' + bytes([len(fields)]) + fields + os.urandom(16 + 16))


def armor(data: bytes, checksum: int | None = None, columns: int = 64) -> bytes:
    text = base64.b64encode(data)
    lines = [text[i : i + columns] for i in range(0, len(text), columns)]
    body = b'\r\n'.join(lines)
    crc = crc24(data) if checksum is None else checksum
    return b'-----BEGIN PGP MESSAGE-----\r\n\r\n%s\r\n=%s\r\n-----END PGP MESSAGE-----\r\n' % (
        body,
        base64.b64encode(crc.to_bytes(3, 'big')),
    )


@functools.lru_cache(maxsize=32)
def payload(size: int, keys: int = 2, form: str = 'v1') -> bytes:
    """An armored OpenPGP message of about `size` octets; `form` is v1, v2 or symmetric."""
    if form == 'v1':
        head = b''.join(pkesk3() for _ in range(keys))
        lead = b'\x01'
    else:
        sealed = (skesk6,) if form == 'symmetric' else (pkesk6,) * keys
        head = b''.join(make() for make in sealed)
        lead = b'\x02\x07\x02\x07' + os.urandom(32)
    content = max(size * 48 // 65 - len(head) - 60, 64)
    head += packet(18, len(lead) + content) + lead
    filler, crc = _filler(content, crc24(head))
    return armor(head + filler, crc)


def message_id() -> str:
    return f'{uuid.uuid4()}@localhost'


def date() -> str:
    # Delta Chat moves the date back by up to six days.
    return formatdate(time.time() - random.random() * 518_000)


def sealed(
    headers: str,
    armored: bytes,
    *,
    boundary: str = '18a5b0c2d1e_f3a_9c1d',
    version: bytes = b'Version: 1\r\n',
    preamble: bytes = b'\r\n',
    middle: bytes = b'',
    epilogue: bytes = b'',
) -> bytes:
    """multipart/encrypted (RFC 3156 4) with the given outer header lines."""
    head = (
        f'{headers}Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; \r\n'
        f'\tboundary="{boundary}"\r\n\r\n'
    ).encode()
    edge = boundary.encode()
    return b''.join(
        (
            head,
            preamble,
            b'--%s\r\nContent-Type: application/pgp-encrypted; charset="utf-8"\r\n' % edge,
            b'Content-Transfer-Encoding: 7bit\r\n\r\n%s\r\n' % version,
            b'--%s\r\nContent-Type: application/octet-stream; charset="utf-8"\r\n' % edge,
            b'Content-Transfer-Encoding: 7bit\r\n\r\n%s\r\n' % armored,
            middle,
            b'--%s--\r\n' % edge,
            epilogue,
        )
    )


def outer(sender: str, ident: str | None = None, *extra: str, to: str = '') -> str:
    lines = (
        f'From: <{sender}>',
        f'Date: {date()}',
        f'Message-ID: <{ident or message_id()}>',
        'MIME-Version: 1.0',
        f'To: {to or chr(34) + "hidden-recipients" + chr(34) + ": ;"}',
        'Subject: [...]',
        'Chat-Version: 1.0',
        *extra,
    )
    return ''.join(line + '\r\n' for line in lines)


def encrypted(
    sender: str,
    to: str = '',
    size: int = 3000,
    *,
    ident: str | None = None,
    keys: int = 2,
    form: str = 'v1',
    post: bool = False,
) -> bytes:
    """What current Delta Chat sends; about `size` octets in all, a little more for tiny ones."""
    extra = ('Chat-Is-Post-Message: 1',) if post else ()
    headers = outer(sender, ident, *extra, to=f'<{to}>' if to else '')
    return sealed(headers, payload(max(size - 820, 600), keys, form))


def plain(
    sender: str, to: str, text: str = 'Hello in the clear.', ident: str | None = None
) -> bytes:
    headers = outer(sender, ident, 'Content-Type: text/plain; charset="utf-8"', to=f'<{to}>')
    return f'{headers}Content-Transfer-Encoding: 7bit\r\n\r\n{text}\r\n'.encode()


def securejoin(
    sender: str,
    to: str,
    step: str = 'vc-request',
    text: str | None = None,
    extra_part: str = '',
    token: str = 'rNhf8U-k3xTWmpNuMhtJtQ4j',
) -> bytes:
    """The legacy first step of Secure-Join, the only plain text that may pass."""
    headers = outer(
        sender,
        None,
        f'Secure-Join: {step}',
        f'Secure-Join-Invitenumber: {token}',
        'Content-Type: multipart/mixed; boundary="4f1_2a_77"',
        to=f'<{to}>',
    )
    body = text if text is not None else f'Secure-Join: {step}'
    return (
        f'{headers}\r\n--4f1_2a_77\r\n'
        'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
        f'{body}\r\n\r\n{extra_part}--4f1_2a_77--\r\n'
    ).encode()


SECRET = 'Meet me at the old mill.'


def forgeries(sender: str, to: str) -> dict[str, bytes]:
    """Plaintext that pretends to be encrypted, by the name of the trick; each must be refused."""
    good = payload(1200)
    head = outer(sender)
    ascii_seipd = armor(pkesk3() + packet(11, b't\0' + bytes(4) + SECRET.encode() * 4))
    truncated = armor(base64.b64decode(b''.join(good.split(b'\r\n')[2:-3]))[:-9])
    return {
        'pgp-type-named-in-the-body': plain(sender, to, f'application/pgp-encrypted {SECRET}'),
        'pgp-type-named-in-the-subject': plain(sender, to, SECRET).replace(
            b'Subject: [...]', b'Subject: application/pgp-encrypted'
        ),
        'plaintext-in-second-part': sealed(head, SECRET.encode() + b'\r\n'),
        'plaintext-dressed-as-armor': sealed(
            head,
            b'-----BEGIN PGP MESSAGE-----\r\n\r\n%s\r\n-----END PGP MESSAGE-----\r\n'
            % base64.b64encode(SECRET.encode() * 3),
        ),
        'literal-packet-instead-of-ciphertext': sealed(head, ascii_seipd),
        'truncated-ciphertext': sealed(head, truncated),
        'text-behind-the-armor': sealed(head, good + SECRET.encode() + b'\r\n'),
        'text-before-the-armor': sealed(head, SECRET.encode() + b'\r\n' + good),
        'armor-comment': sealed(
            head, good.replace(b'-----\r\n\r\n', f'-----\r\nComment: {SECRET}\r\n\r\n'.encode(), 1)
        ),
        'wrong-checksum': sealed(head, armor(pkesk3() + packet(18, b'\1' + bytes(80)), 0x123456)),
        'text-in-the-preamble': sealed(head, good, preamble=SECRET.encode() + b'\r\n'),
        'text-in-the-epilogue': sealed(head, good, epilogue=SECRET.encode() + b'\r\n'),
        'third-part': sealed(
            head,
            good,
            middle=b'--18a5b0c2d1e_f3a_9c1d\r\nContent-Type: text/plain\r\n\r\n%s\r\n'
            % SECRET.encode(),
        ),
        'text-behind-version': sealed(
            head, good, version=b'Version: 1\r\n%s\r\n' % SECRET.encode()
        ),
        'second-from': sealed(head + f'From: <{to}>\r\n', good),
        'securejoin-with-free-text': securejoin(sender, to, text=f'Secure-Join: {SECRET}'),
        'securejoin-with-second-part': securejoin(
            sender, to, extra_part=f'--4f1_2a_77\r\nContent-Type: text/plain\r\n\r\n{SECRET}\r\n'
        ),
        'securejoin-other-step': securejoin(sender, to, step='vc-anything'),
        'report-from-an-account': (
            outer(
                sender,
                None,
                'Auto-Submitted: auto-replied',
                'Content-Type: multipart/report; report-type=delivery-status; boundary=r',
            )
            + f'\r\n--r\r\nContent-Type: text/plain\r\n\r\n{SECRET}\r\n--r--\r\n'
        ).encode(),
        'nul-octet': sealed(head, good.replace(b'\r\n\r\n', b'\r\n\r\n\0', 1)),
        'line-of-2000-octets': sealed(head + 'X-Long: ' + 'x' * 2000 + '\r\n', good),
    }


def old_style(sender: str, to: str, armored: bytes | None = None) -> bytes:
    """As cores of some years ago wrote it: part headers, references, a real To, no CTE."""
    ident = message_id()
    keydata = base64.b64encode(
        packet(
            6,
            b'\x04'
            + bytes(4)
            + b'\x16\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01\x01\x07\x40'
            + os.urandom(32),
        )
    ).decode()
    return (
        (
            f'From: <{sender}>\r\nDate: {date()}\r\nMessage-ID: <{ident}>\r\n'
            f'In-Reply-To: <{ident}>\r\nReferences: <{message_id()}>\r\n <{ident}>\r\n'
            f'Chat-Version: 1.0\r\nAutocrypt: addr={sender}; prefer-encrypt=mutual;\r\n'
            f' keydata={keydata}\r\nMIME-Version: 1.0\r\nTo: <{to}>\r\nSubject: ...\r\n'
            'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted";\r\n'
            ' boundary="Y4mK7v9GbO"\r\n\r\n\r\n'
            '--Y4mK7v9GbO\r\nContent-Type: application/pgp-encrypted\r\n'
            'Content-Description: PGP/MIME version identification\r\n\r\nVersion: 1\r\n\r\n\r\n'
            '--Y4mK7v9GbO\r\nContent-Type: application/octet-stream; name="encrypted.asc"\r\n'
            'Content-Description: OpenPGP encrypted message\r\n'
            'Content-Disposition: inline; filename="encrypted.asc";\r\n\r\n'
        ).encode()
        + (armored or payload(1500))
        + b'\r\n\r\n--Y4mK7v9GbO--\r\n\r\n'
    )


def dotted(message: bytes) -> bytes:
    """As the DATA phase carries it: dots stuffed, end of data appended (RFC 5321 4.5.2)."""
    if message.startswith(b'.'):
        message = b'.' + message
    return message.replace(b'\r\n.', b'\r\n..') + b'.\r\n'
