"""Writes the gate corpus: valid/*.eml, invalid/*.eml and index.toml beside this file.

Run it as `python tests/corpora/gate/make.py`.  Everything is built from
tests/message/forms.py with a fixed seed, so a second run writes the same
octets.  The messages named pgpy-* hold real OpenPGP made with PGPy by keys
that exist only for the corpus; new keys are made on every run, so these files
are written only when they are missing.  Messages named core-* are captures of
the real Delta Chat core; they are no business of this script, stand in no
index and have to pass in every direction.

index.toml: one [[case]] for each message and direction, with

  message      path of the file, below this directory
  direction    out | in | append
  kind         what it is accepted as, or
  code         the reply code it is refused with
  reverse_path, own, null_sender   where they differ from the usual ones
"""

from __future__ import annotations

import base64
import quopri
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / 'message'))
sys.path.insert(0, str(HERE.parents[2]))

import forms as f  # noqa: E402

CASES: list[str] = []
NAMES: set[str] = set()


def case(message: str, direction: str, expected: str | int, **more: str | bool) -> None:
    facts = {'message': message, 'direction': direction}
    facts['kind' if isinstance(expected, str) else 'code'] = expected  # type: ignore[assignment]
    facts.update(more)  # type: ignore[arg-type]
    lines = ['[[case]]']
    for key, value in facts.items():
        text = f"'{value}'" if isinstance(value, str) else str(value).lower()
        lines.append(f'{key} = {text}')
    CASES.append('\n'.join(lines) + '\n')


def write(path: str, data: bytes) -> None:
    assert path not in NAMES, path
    NAMES.add(path)
    (HERE / path).write_bytes(data)


def valid(
    name: str, data: bytes, kind: str = 'encrypted', only: str = 'out in append', refused: int = 523
) -> None:
    """A message that passes in the directions of `only` and is refused in the others."""
    path = f'valid/{name}.eml'
    write(path, data)
    for direction in ('out', 'in', 'append'):
        case(path, direction, kind if direction in only.split() else refused)


def invalid(name: str, data: bytes, code: int = 523, only: str = 'out in append') -> None:
    path = f'invalid/{name}.eml'
    write(path, data)
    for direction in only.split():
        case(path, direction, code)


def swap(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1, old
    return data.replace(old, new, 1)


def pgpy_messages() -> dict[str, bytes]:
    """Armor of real messages; PGPy writes PKESK 3 and SEIPD 1."""
    warnings.simplefilter('ignore')
    import pgpy
    from pgpy.constants import (
        CompressionAlgorithm,
        EllipticCurveOID,
        HashAlgorithm,
        KeyFlags,
        PubKeyAlgorithm,
        SymmetricKeyAlgorithm,
    )

    def key(address: str, algorithm: object, size: object) -> object:
        signing = PubKeyAlgorithm.RSAEncryptOrSign
        made = pgpy.PGPKey.new(signing, 2048)
        made.add_uid(
            pgpy.PGPUID.new('', email=address),
            usage={KeyFlags.Sign, KeyFlags.Certify},
            hashes=[HashAlgorithm.SHA256],
            ciphers=[SymmetricKeyAlgorithm.AES256],
            compression=[CompressionAlgorithm.ZLIB],
        )
        made.add_subkey(pgpy.PGPKey.new(algorithm, size), usage={KeyFlags.EncryptCommunications})
        return made

    def encrypt(keys: list[object], text: str) -> bytes:
        message = pgpy.PGPMessage.new(text)
        message |= keys[0].sign(message)  # type: ignore[attr-defined]
        cipher = SymmetricKeyAlgorithm.AES256
        session = cipher.gen_key()
        for one in keys:
            message = one.pubkey.encrypt(message, cipher=cipher, sessionkey=session)  # type: ignore
        return str(message).replace('\n', '\r\n').encode().rstrip(b'\r\n') + b'\r\n'

    curve = PubKeyAlgorithm.ECDH
    alice = key(f.ALICE, curve, EllipticCurveOID.Curve25519)
    bob = key(f.BOB, curve, EllipticCurveOID.Curve25519)
    prime = key(f.BOB, curve, EllipticCurveOID.NIST_P256)
    rsa = key(f.BOB, PubKeyAlgorithm.RSAEncryptOrSign, 3072)
    text = 'Content-Type: text/plain; charset="utf-8"; protected-headers="v1"\r\n\r\nHello Bob\r\n'
    password = pgpy.PGPMessage.new(text).encrypt('correct horse battery staple')
    return {
        'pgpy-curve25519': encrypt([alice, bob], text),
        'pgpy-p256': encrypt([alice, prime], text),
        'pgpy-rsa': encrypt([alice, rsa], text * 40),
        'pgpy-password': str(password).replace('\n', '\r\n').encode().rstrip(b'\r\n') + b'\r\n',
    }


def relay_sample(armor: bytes) -> bytes:
    """The form of the message that online tests of chatmail relays send."""
    return b''.join(
        (
            b'From: alice@example.org\r\n'
            b'To: bob@example.net\r\n'
            b'Subject: some free subject\r\n'
            b'Date: Sun, 15 Oct 2023 16:43:21 +0000\r\n'
            b'Message-ID: <Mr.Zq0vT2n4bXc.kP9sWm1LdRe@example.org>\r\n'
            b'In-Reply-To: <Mr.Aa1bB2cC3dD.eE4fF5gG6hH@example.org>\r\n'
            b'References: <Mr.Ii7jJ8kK9lL.mM0nN1oO2pP@example.org>\r\n'
            b'\t<Mr.Aa1bB2cC3dD.eE4fF5gG6hH@example.org>\r\n'
            b'Chat-Version: 1.0\r\n',
            f.autocrypt(),
            b'MIME-Version: 1.0\r\n'
            b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted";\r\n'
            b'\tboundary="OdFqsTLhaBYCTR8mjNn2Q6rLcQZ5pD"\r\n'
            b'\r\n\r\n'
            b'--OdFqsTLhaBYCTR8mjNn2Q6rLcQZ5pD\r\n'
            b'Content-Description: PGP/MIME version identification\r\n'
            b'Content-Type: application/pgp-encrypted\r\n'
            b'\r\nVersion: 1\r\n\r\n\r\n'
            b'--OdFqsTLhaBYCTR8mjNn2Q6rLcQZ5pD\r\n'
            b'Content-Description: OpenPGP encrypted message\r\n'
            b'Content-Disposition: inline; filename="encrypted.asc";\r\n'
            b'Content-Type: application/octet-stream; name="encrypted.asc"\r\n'
            b'\r\n',
            armor,
            b'\r\n\r\n--OdFqsTLhaBYCTR8mjNn2Q6rLcQZ5pD--\r\n\r\n',
        )
    )


def thunderbird(armor: bytes, preamble: bytes) -> bytes:
    return b''.join(
        (
            b'Return-Path: <alice@example.org>\r\n'
            b'Received: from mail.example.org (mail.example.org [192.0.2.7])\r\n'
            b'\tby relay.example.net; Thu, 15 Jan 2026 10:20:31 +0000\r\n'
            b'DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; bh=AAAA; b=BBBB\r\n'
            b'Message-ID: <3e5b5d2c-1111-2222-3333-444455556666@example.org>\r\n'
            b'Date: Thu, 15 Jan 2026 11:20:30 +0100\r\n'
            b'MIME-Version: 1.0\r\n'
            b'User-Agent: Mozilla Thunderbird\r\n'
            b'Content-Language: en-US\r\n'
            b'From: "Alice A. Example" <alice@example.org>\r\n'
            b'To: Bob <bob@example.net>\r\n'
            b'Cc: Carol <carol@example.com>\r\n',
            f.autocrypt(),
            b'Subject: ...\r\n'
            b'Content-Type: multipart/encrypted;\r\n'
            b' protocol="application/pgp-encrypted";\r\n'
            b' boundary="------------0pQ2rS4tU6vW8xY0zA2bC4dE"\r\n'
            b'\r\n',
            preamble,
            b'--------------0pQ2rS4tU6vW8xY0zA2bC4dE\r\n'
            b'Content-Type: application/pgp-encrypted\r\n'
            b'Content-Description: PGP/MIME version identification\r\n'
            b'\r\nVersion: 1\r\n\r\n'
            b'--------------0pQ2rS4tU6vW8xY0zA2bC4dE\r\n'
            b'Content-Type: application/octet-stream; name="encrypted.asc"\r\n'
            b'Content-Description: OpenPGP encrypted message\r\n'
            b'Content-Disposition: inline; filename="encrypted.asc"\r\n'
            b'\r\n',
            armor,
            b'\r\n--------------0pQ2rS4tU6vW8xY0zA2bC4dE--\r\n',
        )
    )


THUNDERBIRD_PREAMBLE = b'This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)\r\n'


def valid_messages() -> None:
    missing = [
        name
        for name in ('pgpy-curve25519', 'pgpy-p256', 'pgpy-rsa', 'pgpy-password')
        if not (HERE / f'valid/{name}.eml').exists()
    ]
    made = pgpy_messages() if missing else {}
    for name in ('pgpy-curve25519', 'pgpy-p256', 'pgpy-rsa', 'pgpy-password'):
        path = HERE / f'valid/{name}.eml'
        data = f.around(made[name]) if name in missing else path.read_bytes()
        valid(name, data)

    valid('current-seipd1', f.encrypted())
    valid('current-seipd2', f.encrypted(f.PACKETS_2))
    valid('current-broadcast', f.encrypted(f.skesk6() + f.seipd2(900)))
    valid('current-post-message', swap(
        f.encrypted(f.pkesk6() + f.seipd2(150000)), b'Chat-Version: 1.0\r\n',
        b'Chat-Version: 1.0\r\nChat-Is-Post-Message: 1\r\n'))  # fmt: skip
    valid('relay-sample', relay_sample(f.armor(f.PACKETS_1)))
    valid('older-deltachat', b''.join((
        b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted";\r\n'
        b'\tboundary="' + f.BOUNDARY.encode() + b'"\r\n'
        b'MIME-Version: 1.0\r\n'
        b'To: <bob@example.net>, <carol@example.com>\r\n'
        b'Subject: [...]\r\n'
        b'From: "Alice" <alice@example.org>\r\n'
        b'Date: Thu, 15 Jan 2026 10:20:30 +0000\r\n'
        b'Message-ID: <Gr.a1B2c3D4e5F.g6H7i8J9k0L@example.org>\r\n'
        b'References: <Gr.a1B2c3D4e5F.g6H7i8J9k0L@example.org>\r\n'
        b'Chat-Disposition-Notification-To: alice@example.org\r\n'
        b'Auto-Submitted: auto-generated\r\n', f.autocrypt(), b'\r\n',
        f.body(f.armor(f.pkesk3(key_id=f.octets(8)) + f.seipd1(300)),
               part_1=b'Content-Type: application/pgp-encrypted\r\n'
               b'Content-Description: PGP/MIME version identification\r\n',
               part_2=b'Content-Type: application/octet-stream; name="encrypted.asc"\r\n'
               b'Content-Description: OpenPGP encrypted message\r\n'
               b'Content-Disposition: inline; filename="encrypted.asc";\r\n'))))  # fmt: skip
    odd = '1767687657/562150/131174/example.org'
    valid('gateway-boundary', f.current_headers(boundary=odd) + b'\r\n'
          + f.body(f.armor(f.PACKETS_1), boundary=odd))  # fmt: skip
    valid('letter-case', swap(
        f.encrypted(), b'multipart/encrypted; protocol="application/pgp-encrypted"',
        b'Multipart/Encrypted; PROTOCOL="Application/PGP-Encrypted"'))  # fmt: skip
    valid('unquoted-protocol', swap(f.encrypted(), b'"application/pgp-encrypted"; ',
                                    b'application/pgp-encrypted;'))  # fmt: skip
    valid('no-checksum', f.around(f.armor(f.PACKETS_1, crc=False)))
    for pad in range(3):
        size = next(n for n in range(400, 403) if -(len(f.pkesk3()) + n + 4) % 3 == pad)
        data = f.pkesk3() + f.seipd1(size)
        valid(f'padding-{pad}-checksum', f.around(f.armor(data)))
        valid(f'padding-{pad}-no-checksum', f.around(f.armor(data, crc=False)))
    valid('lines-76', f.around(f.armor(f.PACKETS_1, 76)))
    valid('lines-60', f.around(f.armor(f.PACKETS_1, 60)))
    valid('lines-61', f.around(f.armor(f.PACKETS_2, 61)))
    # A line of one character cannot end with padding.
    head = f.pkesk3()
    size = next(n for n in range(60, 63) if (len(head) + n + 3) % 3 == 0)
    valid('lines-1', f.around(f.armor(head + f.seipd1(size), 1)))
    valid('recipients-300', f.encrypted(b''.join(f.pkesk3() for _ in range(300)) + f.seipd1()))
    valid('pkesk3-rsa-2048', f.encrypted(f.pkesk3(1, f.mpi(2048)) + f.seipd1()))
    valid('pkesk3-rsa-4096', f.encrypted(f.pkesk3(1, f.mpi(4093)) + f.seipd1()))
    valid('pkesk3-x25519', f.encrypted(
        f.pkesk3(25, f.octets(32) + b'\x29\x09' + f.octets(40)) + f.seipd1()))  # fmt: skip
    valid('pkesk3-x448', f.encrypted(
        f.pkesk3(26, f.octets(56) + b'\x19\x07' + f.octets(24)) + f.seipd1()))  # fmt: skip
    valid('pkesk6-fingerprints', f.encrypted(
        f.pkesk6(key=b'\x15\4' + f.octets(20)) + f.pkesk6(key=b'\x21\6' + f.octets(32))
        + f.pkesk6(18, f.ecdh(32)) + f.pkesk6(1, f.mpi(2047)) + f.seipd2()))  # fmt: skip
    valid('skesk4', f.encrypted(f.skesk4() + f.seipd1()))
    valid('skesk6-argon2', f.encrypted(
        f.skesk6(b'\4' + f.octets(16) + b'\3\4\x10', 9, 3, 32) + f.seipd2()))  # fmt: skip
    valid('partial-lengths', f.encrypted(
        f.pkesk3() + f.partial(18, b'\1' + f.octets(6000), (12, 9, 0, 3))))  # fmt: skip
    valid('five-octet-lengths', f.encrypted(
        f.packet(1, f.pkesk3()[2:], 5) + f.packet(18, b'\1' + f.octets(99), 5)))  # fmt: skip
    valid('revealing-headers', swap(
        f.encrypted(), b'Chat-Version',
        b'Received: from laptop.example.org ([198.51.100.23])\r\n\tby x; Thu, 15 Jan 2026\r\n'
        b'X-Originating-IP: [198.51.100.23]\r\nX-Mailer: Example 1.0\r\n'
        b'User-Agent: Example/1.0 (198.51.100.23)\r\nBcc: <carol@example.com>\r\n'
        b'X-Anything: text\r\nReply-To: <dave@example.com>\r\nChat-Version'))  # fmt: skip
    valid('literal-address', swap(f.encrypted(), b'<alice@example.org>', b'<alice@192.0.2.1>'))
    CASES[-3:] = []
    for direction, path in (('out', 'alice@[192.0.2.1]'), ('in', 'alice@192.0.2.1')):
        own = {'own': 'alice@[192.0.2.1]'} if direction == 'out' else {}
        case('valid/literal-address.eml', direction, 'encrypted', reverse_path=path, **own)
    valid('foreign-from', swap(f.encrypted(), b'<alice@example.org>', b'<carol@example.com>'),
          only='in append', refused=500)  # fmt: skip
    CASES[-2:-1] = []
    case('valid/foreign-from.eml', 'in', 'encrypted', null_sender=True)

    # From elsewhere only
    text = f.armor(f.PACKETS_1, 76)
    valid('thunderbird', thunderbird(text, THUNDERBIRD_PREAMBLE), only='in append')
    valid('thunderbird-no-preamble', thunderbird(text, b'\r\n'))
    valid('armor-version-header', f.around(
        f.armor(f.PACKETS_1, headers=b'Version: Example 1.0\r\n')), only='in')  # fmt: skip
    valid('old-packet-headers', f.encrypted(
        f.old_packet(1, f.pkesk3()[2:]) + f.seipd1()), only='in append')  # fmt: skip
    valid('marker', f.encrypted(f.packet(10, b'PGP') + f.PACKETS_1), only='in append')
    valid('elgamal', f.encrypted(
        f.pkesk3(16, f.mpi(2048) + f.mpi(2046)) + f.seipd1()), only='in append')  # fmt: skip
    valid('no-protocol', swap(f.encrypted(), b' protocol="application/pgp-encrypted";', b''),
          only='in append')  # fmt: skip
    encoded = base64.encodebytes(f.armor(f.PACKETS_1)).replace(b'\n', b'\r\n')
    base64_part = swap(f.PART_2, b'7bit', b'base64')
    valid('base64-part', f.around(encoded, part_2=base64_part), only='in append')
    encoded = base64.encodebytes(f.armor(f.PACKETS_1).replace(b'\r\n', b'\n')).replace(
        b'\n', b'\r\n')  # fmt: skip
    valid('base64-part-lf', f.around(encoded, part_2=base64_part), only='in append')
    encoded = quopri.encodestring(f.armor(f.PACKETS_1).replace(b'\r\n', b'\n'))
    valid('quoted-printable-part', f.around(
        encoded.replace(b'\n', b'\r\n'),
        part_2=swap(f.PART_2, b'7bit', b'quoted-printable')), only='in append')  # fmt: skip
    valid('foreign-file-name', f.around(f.armor(f.PACKETS_1), part_2=(
        b'Content-Type: application/octet-stream; name="letter to bob.pgp"\r\n'
        b'Content-Disposition: attachment; filename="letter to bob.pgp"\r\n')),
        only='in')  # fmt: skip
    valid('long-seal', swap(f.encrypted(), b'From:', b'ARC-Seal: ' + b'x' * 3000 + b'\r\nFrom:'),
          only='in append', refused=554)  # fmt: skip

    # Secure-Join
    for kind in (b'vc-request', b'vg-request'):
        valid(f'join-{kind.decode()}', f.join(kind, headers=f.autocrypt()), 'securejoin')
    valid('join-lower-case', f.join(text=b'secure-join: vc-request\r\n\r\n\r\n'), 'securejoin')
    valid('join-old-subject', f.join(subject=b'Message from alice@example.org'), 'securejoin')
    valid('join-part-id', f.join(
        part=b'Message-ID: <Mr.x.y@example.org>\r\nContent-Type: text/plain; charset=us-ascii;'
        b' format=flowed; delsp=no\r\n'), 'securejoin')  # fmt: skip

    write('valid/report.eml', report())
    case('valid/report.eml', 'in', 'report', reverse_path='')
    case('valid/report.eml', 'in', 523, reverse_path='mailer-daemon@example.org')
    case('valid/report.eml', 'out', 523, reverse_path='MAILER-DAEMON@example.org',
         own='mailer-daemon@example.org')  # fmt: skip
    case('valid/report.eml', 'append', 523)
    write('valid/report-whole-original.eml', report(
        third=b'message/rfc822', original=f.encrypted()))  # fmt: skip
    case('valid/report-whole-original.eml', 'in', 'report', reverse_path='')
    write('valid/report-no-original.eml', report(third=b''))
    case('valid/report-no-original.eml', 'in', 'report', reverse_path='')


STATUS = (
    b'Reporting-MTA: dns; mx.example.org\r\n'
    b'X-Queue-ID: 4F2A\r\n'
    b'\r\n'
    b'Final-Recipient: rfc822; bob@example.org\r\n'
    b'Original-Recipient: rfc822;bob@example.org\r\n'
    b'Action: failed\r\n'
    b'Status: 5.1.1\r\n'
    b'Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n'
)
ORIGINAL = f.current_headers() + b'X-Text: whatever\r\n'


def report(
    sender: bytes = b'MAILER-DAEMON@example.org (Mail Delivery System)',
    status: bytes = STATUS,
    third: bytes = b'text/rfc822-headers',
    original: bytes = ORIGINAL,
    auto: bytes = b'Auto-Submitted: auto-replied\r\n',
    kind: bytes = b'report-type=delivery-status',
    more: bytes = b'',
) -> bytes:
    part = (
        b'--report/1\r\nContent-Description: Undelivered Message\r\n'
        b'Content-Type: ' + third + b'\r\n\r\n' + original + b'\r\n'
    )
    return b''.join(
        (
            b'Date: Thu, 15 Jan 2026 10:20:30 +0000 (UTC)\r\n'
            b'From: ' + sender + b'\r\n'
            b'Subject: Undelivered Mail Returned to Sender\r\n'
            b'To: alice@example.net\r\n',
            auto,
            b'MIME-Version: 1.0\r\n'
            b'Content-Type: multipart/report; ' + kind + b';\r\n'
            b'\tboundary="report/1"\r\n'
            b'Message-Id: <20260115102030.4F2A@mx.example.org>\r\n'
            b'\r\n'
            b'This is a MIME-encapsulated message.\r\n\r\n'
            b'--report/1\r\n'
            b'Content-Description: Notification\r\n'
            b'Content-Type: text/plain; charset=us-ascii\r\n'
            b'\r\n'
            b'This is the mail system at host mx.example.org.\r\n\r\n'
            b'--report/1\r\n'
            b'Content-Description: Delivery report\r\n'
            b'Content-Type: message/delivery-status\r\n'
            b'\r\n',
            status,
            b'\r\n',
            part if third else b'',
            more,
            b'--report/1--\r\n',
        )
    )


def main() -> None:
    from forged import invalid_messages

    for kind in ('valid', 'invalid'):
        (HERE / kind).mkdir(exist_ok=True)
    valid_messages()
    invalid_messages()
    head = '# Written by make.py; see there for the meaning of the keys.\n\n'
    (HERE / 'index.toml').write_text(head + '\n'.join(CASES), encoding='ascii')
    known = {HERE / name for name in NAMES}
    for stray in sorted({*HERE.glob('*/*.eml')} - {*HERE.glob('valid/core-*.eml')} - known):
        print(f'not in the index: {stray.relative_to(HERE)}')
    print(f'{len(NAMES)} messages, {len(CASES)} cases')


if __name__ == '__main__':
    sys.modules['make'] = sys.modules['__main__']
    main()
