"""The invalid half of the gate corpus: text that wants to look encrypted.

Each message puts readable text, or room for it, where a weaker check would not
look.  Called by make.py.
"""

from __future__ import annotations

import base64

import forms as f
import make
from make import invalid, swap

PLAIN = b'Dear Bob,\r\n\r\nthis is not encrypted at all.\r\n'
HEAD = (
    b'From: <alice@example.org>\r\n'
    b'To: <bob@example.net>\r\n'
    b'Date: Thu, 15 Jan 2026 10:20:30 +0000\r\n'
    b'Message-ID: <1b2c3d4e@example.org>\r\n'
    b'MIME-Version: 1.0\r\n'
)
TEXT = b'Content-Type: text/plain; charset="utf-8"\r\n'
DELIMITER = b'\r\n--' + f.BOUNDARY.encode() + b'\r\n'
CLOSE = b'\r\n--' + f.BOUNDARY.encode() + b'--\r\n'


def invalid_messages() -> None:
    plaintext()
    structure()
    headers()
    octets()
    armored()
    packets()
    joins()
    reports()


def plaintext() -> None:
    invalid('plain', HEAD + TEXT + b'\r\n' + PLAIN)
    invalid('plain-no-mime', b'From: alice@example.org\r\nSubject: hi\r\n\r\n' + PLAIN)
    words = b'application/pgp-encrypted multipart/encrypted\r\n'
    invalid('words-in-body', HEAD + TEXT + b'\r\n' + words + PLAIN)
    invalid('words-in-subject', HEAD + b'Subject: ' + words + TEXT + b'\r\n' + PLAIN)
    invalid(
        'words-in-file-name',
        HEAD + (b'Content-Type: text/plain; name="application/pgp-encrypted"\r\n\r\n') + PLAIN,
    )
    invalid(
        'words-in-comment',
        HEAD + (b'Content-Type: text/plain (multipart/encrypted; boundary=x)\r\n\r\n') + PLAIN,
    )
    invalid('inline-armor', HEAD + TEXT + b'\r\n' + f.armor(f.PACKETS_1))
    invalid('html', HEAD + b'Content-Type: text/html\r\n\r\n<p>Dear Bob</p>\r\n')
    invalid(
        'setup-message',
        HEAD
        + (
            b'Subject: Autocrypt Setup Message\r\nAutocrypt-Setup-Message: v1\r\n'
            b'Content-Type: multipart/mixed; boundary=b\r\n\r\n'
            b'--b\r\nContent-Type: text/plain\r\n\r\nKeep it safe.\r\n'
            b'--b\r\nContent-Type: application/autocrypt-setup\r\n\r\n'
        )
        + f.armor(f.skesk4() + f.seipd1())
        + b'\r\n--b--\r\n',
    )
    invalid(
        'read-receipt',
        HEAD
        + (
            b'Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n'
            b'Auto-Submitted: auto-replied\r\n\r\n--b\r\n\r\nread\r\n--b\r\n'
            b'Content-Type: message/disposition-notification\r\n\r\n'
            b'Disposition: manual-action/MDN-sent-automatically; displayed\r\n\r\n--b--\r\n'
        ),
    )


def structure() -> None:
    good = f.armor(f.PACKETS_1)
    top = f.current_headers() + b'\r\n'
    delimiter = b'--' + f.BOUNDARY.encode()
    first = delimiter + b'\r\n' + f.PART_1 + b'\r\n' + f.VERSION
    invalid('part-1-only', top + first + CLOSE)
    invalid('part-2-plaintext', f.around(PLAIN))
    invalid('part-2-plaintext-between', f.around(f.BEGIN + b'\r\n' + PLAIN + f.END))
    invalid('third-part', f.around(good + DELIMITER + TEXT + b'\r\n' + PLAIN))
    invalid(
        'third-part-html',
        f.around(
            good
            + DELIMITER
            + (b'Content-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n<p>hi</p>')
        ),
    )
    invalid('no-close', f.around(good, close=b'\r\n'))
    invalid('delimiter-for-close', f.around(good, close=DELIMITER))
    invalid('preamble-text', f.around(good, preamble=PLAIN))
    invalid(
        'preamble-known-and-text',
        f.around(good, preamble=make.THUNDERBIRD_PREAMBLE + b'See you at nine.\r\n'),
    )
    invalid('epilogue-text', f.around(good, epilogue=PLAIN))
    invalid('text-before-close', f.around(good + PLAIN))
    invalid('text-after-close', f.around(good, close=b'\r\n' + delimiter + b'-- Dear Bob\r\n'))
    invalid(
        'text-after-delimiter',
        swap(f.encrypted(), delimiter + b'\r\n', delimiter + b' Dear Bob\r\n'),
    )
    invalid('text-before-begin', f.around(PLAIN + good))
    invalid('version-text', f.around(good, version=b'Version: 1\r\nDear Bob\r\n'))
    invalid('version-2', f.around(good, version=b'Version: 2\r\n'))
    invalid('version-missing', f.around(good, version=b''))
    invalid(
        'parts-swapped',
        top
        + delimiter
        + b'\r\n'
        + f.PART_2
        + b'\r\n'
        + good
        + DELIMITER
        + f.PART_1
        + b'\r\n'
        + f.VERSION
        + CLOSE,
    )
    nested = b'Content-Type: multipart/mixed; boundary=inner\r\n'
    invalid('part-2-nested', f.around(b'--inner\r\n\r\n' + PLAIN + b'--inner--\r\n', part_2=nested))
    invalid('part-1-nested', f.around(good, part_1=nested))
    invalid(
        'inside-mixed',
        HEAD
        + b'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n'
        + TEXT
        + b'\r\n'
        + PLAIN
        + b'--b\r\n'
        + f.PART_1
        + b'\r\n'
        + f.VERSION
        + b'--b\r\n'
        + f.PART_2
        + b'\r\n'
        + good
        + b'\r\n--b--\r\n',
    )
    for name, old, new in (
        ('type-text', b'application/octet-stream', b'text/plain'),
        ('type-comment', b'application/octet-stream', b'application/octet-stream (Dear Bob)'),
        ('charset-utf-7', b'application/octet-stream; charset="utf-8"',
         b'application/octet-stream; charset="utf-7"'),
        ('part-name', b'application/octet-stream; charset="utf-8"',
         b'application/octet-stream; nam="Dear Bob"'),
        ('extra-field', f.PART_2, f.PART_2 + b'X-Text: Dear Bob\r\n'),
        ('part-subject', f.PART_1, f.PART_1 + b'Subject: Dear Bob\r\n'),
        ('duplicate-part-type', f.PART_2, f.PART_2 + TEXT),
        ('uuencode', b'7bit\r\n\r\n-----', b'x-uuencode\r\n\r\n-----'),
        ('binary', b'7bit\r\n\r\n-----', b'binary\r\n\r\n-----'),
        ('base64-lie', b'7bit\r\n\r\n-----', b'base64\r\n\r\n-----'),
        ('version-base64', b'7bit\r\n\r\nVersion: 1', b'base64\r\n\r\nVmVyc2lvbjogMQ=='),
    ):  # fmt: skip
        invalid('part-' + name.removeprefix('part-'), swap(f.encrypted(), old, new))
    invalid(
        'part-disposition-text',
        f.around(
            good,
            part_2=f.PART_2 + (b'Content-Disposition: inline; filename="Dear Bob.asc"; size=3\r\n'),
        ),
        only='out append',
    )
    invalid(
        'part-description-text',
        f.around(good, part_2=f.PART_2 + b'Content-Description: Dear Bob\r\n'),
        only='out append',
    )
    invalid('part-headers-missing', f.around(good, part_2=b''))
    encoded = base64.encodebytes(PLAIN).replace(b'\n', b'\r\n')
    base64_part = swap(f.PART_2, b'7bit', b'base64')
    quoted_part = swap(f.PART_2, b'7bit', b'quoted-printable')
    invalid('base64-plaintext', f.around(encoded, part_2=base64_part))
    encoded = base64.encodebytes(good).replace(b'\n', b'\r\n')
    invalid('base64-then-text', f.around(encoded + b'\r\n' + PLAIN, part_2=base64_part))
    invalid(
        'base64-text-within',
        f.around(encoded[:760] + b'Dear Bob!\r\n' + encoded[760:], part_2=base64_part),
    )
    invalid('quoted-lower-case', f.around(swap(good, b'\r\n=', b'\r\n=3d'), part_2=quoted_part))
    invalid('quoted-plaintext', f.around(PLAIN, part_2=quoted_part))
    for name, kind in (
        ('type-no-boundary', b'multipart/encrypted; protocol="application/pgp-encrypted"'),
        ('type-two-boundaries', f.CONTENT_TYPE[14:-2] % b'x' + b'; boundary=' +
         f.BOUNDARY.encode()),
        ('type-rfc2231', b'multipart/encrypted; protocol="application/pgp-encrypted"; boundary*='
         + f.BOUNDARY.encode()),
        ('type-extra', f.CONTENT_TYPE[14:-2] % f.BOUNDARY.encode() + b'; title="Dear Bob"'),
        ('type-comment', f.CONTENT_TYPE[14:-2] % f.BOUNDARY.encode() + b' (Dear Bob)'),
        ('type-smime', f.CONTENT_TYPE[14:-2].replace(b'pgp-encrypted', b'pkcs7-mime')
         % f.BOUNDARY.encode()),
        ('type-boundary-blank', b'multipart/encrypted; protocol="application/pgp-encrypted";'
         b' boundary="' + f.BOUNDARY.encode() + b' "'),
    ):  # fmt: skip
        message = swap(f.encrypted(), f.CONTENT_TYPE[14:-2] % f.BOUNDARY.encode(), kind)
        invalid(name, message)
    tricky = '---END PGP MESSAGE-----'
    invalid(
        'boundary-is-end-line',
        f.current_headers(boundary=tricky) + b'\r\n' + f.body(good, boundary=tricky),
    )
    invalid(
        'top-base64',
        swap(f.encrypted(), b'Subject:', b'Content-Transfer-Encoding: base64\r\nSubject:'),
    )
    invalid(
        'top-description',
        swap(f.encrypted(), b'Subject:', b'Content-Description: Dear Bob\r\nSubject:'),
        only='out',
    )


def headers() -> None:
    good = f.encrypted()
    sender = b'From: <alice@example.org>\r\n'
    victim = b'From: <victim@example.org>\r\n'
    for name, value in (
        ('second-from', sender + victim),
        ('second-from-first', victim + sender),
        ('from-group', b'From: friends: <alice@example.org>;\r\n'),
        ('from-list', b'From: <alice@example.org>, <victim@example.org>\r\n'),
        ('from-empty', b'From: \r\n'),
        ('from-8-bit', b'From: <\xc3\xa4lice@example.org>\r\n'),
        ('from-unclosed', b'From: <alice@example.org\r\n'),
        ('from-route', b'From: <@victim.example:alice@example.org>\r\n'),
        ('from-missing', b''),
        ('field-without-colon', sender + b'Dear Bob\r\n'),
        ('field-blank-before-colon', sender + b'X-Text : Dear Bob\r\n'),
        ('second-subject', sender + b'Subject: one\r\n'),
        ('second-content-type', sender + TEXT),
        ('second-message-id', sender + b'Message-ID: <x@localhost>\r\n'),
        ('second-mime-version', sender + b'MIME-Version: 1.0\r\n'),
        ('header-nul', sender + b'X-Text: a\0b\r\n'),
        ('header-bare-cr', sender + b'X-Text: a\rFrom: <victim@example.org>\r\n'),
        ('header-bare-lf', sender + b'X-Text: a\nFrom: <victim@example.org>\r\n'),
        ('many-fields', sender + b'X: y\r\n' * 201),
        ('large-block', sender + (b'X-Text: ' + b'x' * 900 + b'\r\n') * 80),
        ('long-line', sender + b'X-Text: ' + b'x' * 9000 + b'\r\n'),
        ('starts-folded', b' Dear Bob\r\n' + sender),
    ):
        invalid(name, swap(good, sender, value), 554)
    for name, value in (
        ('from-other', victim),
        ('from-quoted-angle', b'From: "<alice@example.org>" <victim@example.org>\r\n'),
        ('from-comment-angle', b'From: (<alice@example.org>) victim@example.org\r\n'),
        ('from-folded', b'From:\r\n <victim@example.org>\r\n'),
        ('from-folded-name', b'From: "alice@example.org"\r\n <victim@example.org>\r\n'),
        ('from-plus', b'From: <alice+x@example.org>\r\n'),
        ('from-subdomain', b'From: <alice@x.example.org>\r\n'),
    ):
        invalid(name, swap(good, sender, value), 500, only='out')
        make.case(f'invalid/{name}.eml', 'in', 'encrypted', null_sender=True)
    invalid('8-bit-in-other-field', swap(good, sender, sender + b'X-T\xe4xt: x\r\n'), 554)
    for field in (b'MIME-Version: 1.0\r\n',):
        invalid('no-mime-version', swap(good, field, b''), 554)
    date = b'Date: Thu, 15 Jan 2026 10:20:30 +0000\r\n'
    invalid('no-date', swap(good, date, b''), 554, only='out')
    invalid('date-text', swap(good, date, b'Date: Dear Bob, see you\r\n'), 554, only='out')
    invalid(
        'no-message-id',
        swap(good, b'Message-ID: <7c1d4a52-96f5-4b53-8a3f-0d7be0a2f6a1@localhost>\r\n', b''),
        554,
        only='out',
    )
    invalid(
        'hops', swap(good, sender, b'Received: from a by b; x\r\n' * 26 + sender), 554, only='in'
    )
    invalid('header-only', f.current_headers(), 554)
    invalid('empty', b'', 554)
    invalid('blank-first-line', b'\r\n' + good, 554)


def octets() -> None:
    good = f.encrypted()
    middle = len(good) * 2 // 3
    at = good.index(b'\r\n', middle) + 2
    invalid('nul-in-armor', good[: at + 3] + b'\0' + good[at + 4 :], 554)
    invalid('bare-lf-in-armor', good[: at - 2] + b'\n' + good[at:], 554)
    invalid('bare-cr-in-armor', good[: at - 2] + b'\r' + good[at:], 554)
    invalid('lf-dot-lf', good[:at] + b'\n.\n' + good[at:], 554)
    invalid('smuggled', good + b'\n.\nMAIL FROM:<victim@example.org>\r\n', 554)
    invalid('all-lf', good.replace(b'\r\n', b'\n'), 554)
    invalid('bare-lf-preamble', f.around(f.armor(f.PACKETS_1), preamble=b'\n'), 554)
    invalid('bare-lf-epilogue', f.around(f.armor(f.PACKETS_1), epilogue=b'\n\n'), 554)
    invalid('long-line-in-armor', good[:at] + b'A' * 1200 + b'\r\n' + good[at:], 554)
    invalid('long-line-in-epilogue', f.around(f.armor(f.PACKETS_1), epilogue=b' ' * 999), 554)
    invalid('nul-in-part-header', swap(good, b'charset="utf-8"\r\n', b'charset="utf\0-8"\r\n'), 554)
    invalid('8-bit-in-armor', good[: at + 3] + b'\xe4' + good[at + 4 :])


def armored() -> None:
    data = f.PACKETS_1
    good = f.armor(data)
    first_line = len(f.BEGIN) + 2
    for name, text in (
        ('armor-public-key', good.replace(b'PGP MESSAGE', b'PGP PUBLIC KEY BLOCK')),
        ('armor-signed', good.replace(b'PGP MESSAGE', b'PGP SIGNED MESSAGE')),
        ('armor-comment', f.armor(data, headers=b'Comment: Dear Bob\r\n')),
        ('armor-header-long', f.armor(data, headers=b'Version: ' + b'x' * 80 + b'\r\n')),
        ('armor-headers-four', f.armor(data, headers=b'Hash: SHA256\r\n' * 4)),
        ('armor-no-empty-line', good.replace(f.BEGIN + b'\r\n', f.BEGIN)),
        ('armor-two-empty-lines', good.replace(f.BEGIN, f.BEGIN + b'\r\n')),
        ('armor-empty-line-inside', good[: first_line + 66] + b'\r\n' + good[first_line + 66 :]),
        ('armor-blank-in-line', good[:first_line] + b' ' + good[first_line + 1 :]),
        ('armor-line-77', f.armor(data, 80)),
        ('armor-text-line', good[: first_line + 66] + b'Dear Bob, hi!\r\n'
         + good[first_line + 66 :]),
        ('armor-wrong-checksum', good[:-33] + b'AAAA' + good[-29:]),
        ('armor-checksum-text', swap(good, b'\r\n=', b'\r\n=Dear Bob, how are you?\r\n=')),
        ('armor-text-after-checksum', good[: -len(f.END)] + b'DearBob\r\n' + f.END),
        ('armor-no-end', good[: -len(f.END)]),
        ('armor-twice', good + good),
        ('armor-empty', f.BEGIN + b'\r\n' + f.END),
        ('armor-url-alphabet', f.armor(data).replace(b'+', b'-').replace(b'/', b'_')),
        ('armor-padding-inside', good[: first_line + 62] + b'==' + good[first_line + 64 :]),
        ('armor-truncated', f.armor(data[:-1])),
        ('armor-short', f.armor(f.pkesk3()[:39])),
        ('armor-of-armor', f.armor(good)),
        ('armor-of-text', f.armor(PLAIN * 3)),
    ):  # fmt: skip
        invalid(name, f.around(text))
    size = next(n for n in range(400, 403) if (len(f.pkesk3()) + n + 4) % 3 == 1)
    padded = f.armor(f.pkesk3() + f.seipd1(size), crc=False)
    at = padded.index(b'==')
    loose = bytes([padded[at - 1] + 1])
    invalid('armor-padding-bits', f.around(padded[: at - 1] + loose + padded[at:]))


def packets() -> None:
    esk, payload = f.pkesk3(), f.seipd1()
    ascii_key = b'meet me at the station at nine o clock, bring the money'
    literal = f.packet(11, b'b\0' + bytes(4) + PLAIN * 2)
    for name, data in (
        ('seipd-alone', payload),
        ('esk-alone', esk),
        ('seipd-twice', esk + payload + payload),
        ('seipd-then-literal', esk + payload + literal),
        ('literal', literal),
        ('literal-after-esk', esk + literal),
        ('compressed', f.packet(8, b'\0' + literal)),
        ('signature-and-literal', f.packet(2, b'\4' + f.octets(90)) + literal),
        ('esk-after-seipd', payload + esk),
        ('trailing-octets', esk + payload + b'Dear Bob'),
        ('sed', esk + f.packet(9, f.octets(300))),
        ('aead-draft', esk + f.packet(20, b'\1\x09\2\x10' + f.octets(300))),
        ('padding-packet', f.pkesk6() + f.packet(21, f.octets(100)) + f.seipd2()),
        ('unknown-tag', f.packet(60, PLAIN) + esk + payload),
        ('user-id', f.packet(13, b'Dear Bob, see you') + esk + payload),
        ('marker-text', f.packet(10, b'hey') + esk + payload),
        ('marker-after-esk', esk + f.packet(10, b'PGP') + payload),
        ('indeterminate', esk + bytes([0x80 | 9 << 2 | 3]) + f.octets(300)),
        ('old-seipd-impossible', esk + f.old_packet(2, f.octets(100))),
        ('truncated-seipd', esk + payload[:-7]),
        ('length-too-long', esk + bytes([0xC0 | 18, 255]) + b'\0\1\0\0' + payload[3:]),
        ('length-too-short', esk + bytes([0xC0 | 18, 60]) + payload[3:]),
        ('empty-seipd', esk + f.packet(18, b'') + b'\0' * 3),
        ('seipd-too-small', esk + f.packet(18, b'\1' + f.octets(39))),
        ('seipd-version-3', esk + f.packet(18, b'\3' + f.octets(300))),
        ('seipd-text', esk + f.packet(18, b'\1' + PLAIN * 9)),
        ('seipd2-text', f.pkesk6() + f.packet(18, b'\2\7\2\7' + PLAIN * 9)),
        ('seipd2-cipher', f.pkesk6() + f.seipd2(head=b'\2\2\2\7')),
        ('seipd2-aead', f.pkesk6() + f.seipd2(head=b'\2\7\4\7')),
        ('seipd2-chunk', f.pkesk6() + f.seipd2(head=b'\2\7\2\x11')),
        ('seipd2-short', f.pkesk6() + f.seipd2(31)),
        ('versions-3-2', esk + f.seipd2()),
        ('versions-6-1', f.pkesk6() + payload),
        ('versions-mixed', esk + f.pkesk6() + payload),
        ('pkesk-ascii', f.packet(1, b'\3' + bytes(8) + b'\x12' + ascii_key) + payload),
        (
            'pkesk-ascii-rsa',
            f.packet(1, b'\3ABCDEFGH\1' + (8 * 200 - 1).to_bytes(2, 'big') + (ascii_key * 4)[:200])
            + payload,
        ),
        (
            'pkesk-ascii-x25519',
            f.packet(1, b'\6\0\x19' + (ascii_key * 2)[:32] + b'\x28' + (ascii_key * 2)[:40])
            + f.seipd2(),
        ),
        ('pkesk-version-2', f.packet(1, b'\2' + esk[3:]) + payload),
        ('pkesk-algorithm', f.pkesk3(17, f.mpi(2048)) + payload),
        ('pkesk-trailing', f.packet(1, esk[2:] + b'hi') + payload),
        ('pkesk-rsa-short', f.pkesk3(1, f.mpi(512)) + payload),
        ('pkesk-rsa-bits', f.pkesk3(1, b'\7\xff' + b'\xff' + f.octets(255)) + payload),
        ('pkesk-ecdh-point', f.pkesk3(18, f.mpi(300) + b'\x30' + f.octets(48)) + payload),
        (
            'pkesk-ecdh-wrapped',
            f.pkesk3(18, f.mpi(263, b'\x40') + b'\x31' + f.octets(49)) + payload,
        ),
        ('pkesk-large', f.packet(1, b'\3' + f.octets(1300)) + payload),
        ('pkesk-partial', f.partial(1, b'\3' + f.octets(1000), (9,)) + payload),
        ('pkesk6-fingerprint', f.pkesk6(key=b'\x15\6' + f.octets(20)) + f.seipd2()),
        ('skesk-version-5', f.packet(3, b'\5' + f.skesk6()[3:]) + f.seipd2()),
        ('skesk4-s2k', f.packet(3, b'\4\x09\2\x08' + f.octets(8) + b'\x60') + payload),
        ('skesk4-text', f.packet(3, b'\4\x09\3\x08' + f.octets(8) + b'\x60Dear Bob') + payload),
        ('skesk6-count', f.packet(3, b'\6\x1d' + f.skesk6()[4:]) + f.seipd2()),
        ('partial-first-small', esk + f.partial(18, b'\1' + f.octets(3000), (8, 9))),
        ('partial-many-small', esk + f.partial(18, b'\1' + f.octets(3000), (9,) + (0,) * 65)),
        ('partial-unfinished', esk + bytes([0xC0 | 18, 0xE9]) + b'\1' + f.octets(511)),
    ):
        invalid(name, f.encrypted(data))


def joins() -> None:
    two = b'--' + f.JOIN_BOUNDARY.encode() + b'\r\n' + TEXT + b'\r\n' + PLAIN
    for name, message in (
        ('join-text', f.join(text=b'Secure-Join: vc-request\r\nDear Bob')),
        ('join-text-same-line', f.join(text=b'Secure-Join: vc-request Dear Bob')),
        ('join-other-step', f.join(b'vc-auth-required')),
        ('join-anything', f.join(b'vc-anything')),
        ('join-mismatch', f.join(text=b'Secure-Join: vg-request')),
        ('join-second-part', f.join(more=two)),
        ('join-preamble', f.join(preamble=b'Dear Bob\r\n')),
        ('join-epilogue', f.join(epilogue=PLAIN)),
        ('join-no-token', f.join(token=b'')),
        ('join-token-text', f.join(token=b'Secure-Join-Invitenumber: Dear Bob, see you\r\n')),
        ('join-html', f.join(part=b'Content-Type: text/html\r\n')),
        ('join-part-name', f.join(part=b'Content-Type: text/plain; name="Dear Bob"\r\n')),
        (
            'join-part-base64',
            f.join(part=b'Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n'),
        ),
        ('join-part-field', f.join(part=f.TEXT_PART + b'X-Text: Dear Bob\r\n')),
        ('join-no-part-type', f.join(part=b'Content-Transfer-Encoding: 7bit\r\n')),
        ('join-alternative', f.join(top=b'multipart/alternative')),
        ('join-parameter', f.join(top=b'multipart/mixed; title="Dear Bob"')),
        ('join-not-multipart', swap(f.join(), b'multipart/mixed', b'text/plain')),
        ('join-long', f.join(text=b'Secure-Join: vc-request' + b'\r\n' * 80)),
    ):
        invalid(name, message)
    invalid('join-lf', f.join(text=b'Secure-Join: vc-request\n\n'), 554)


def reports() -> None:
    def bounce(name: str, data: bytes, code: int = 523, reverse_path: str = '') -> None:
        make.write(f'invalid/{name}.eml', data)
        make.case(f'invalid/{name}.eml', 'in', code, reverse_path=reverse_path)

    for path in ('mailer-daemon@evil.example', 'x-mailer-daemon-x@example.org',
                 'a@mailer-daemon.example'):  # fmt: skip
        name = path.partition('@')[0] + '-' + path.partition('@')[2].partition('.')[0]
        data = HEAD + TEXT + b'\r\nmultipart/report\r\n' + PLAIN
        make.write(f'invalid/sender-{name}.eml', data)
        make.case(f'invalid/sender-{name}.eml', 'in', 523, reverse_path=path)
    own = 'mailer-daemon1@example.org'
    data = swap(make.report(), b'MAILER-DAEMON@example.org', own.encode())
    make.write('invalid/report-from-account.eml', data)
    make.case('invalid/report-from-account.eml', 'out', 523, reverse_path=own, own=own)
    make.case('invalid/report-from-account.eml', 'in', 523, reverse_path='')
    bounce('report-ordinary-sender', make.report(sender=b'<carol@example.org>'))
    bounce('report-not-automatic', make.report(auto=b''))
    bounce('report-automatic-no', make.report(auto=b'Auto-Submitted: no\r\n'))
    bounce('report-other-type', make.report(kind=b'report-type=feedback-report'))
    bounce('report-no-status', make.report(status=PLAIN))
    bounce('report-no-recipient', make.report(status=make.STATUS.partition(b'\r\n\r\n')[0]))
    bounce('report-html-original', make.report(third=b'text/html', original=b'<p>hi</p>'))
    bounce('report-fourth-part', make.report(more=b'--report/1\r\n' + TEXT + b'\r\n' + PLAIN))
    bounce('report-text-only', make.report().partition(b'--report/1\r\nContent-Desc')[0])
    bounce('report-large', make.report(original=b'X: ' + b'x' * 900 + b'\r\n' * 140000))
    bounce('report-lf', make.report(status=make.STATUS.replace(b'\r\n', b'\n')), 554)
