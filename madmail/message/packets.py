"""OpenPGP packet framing of an encrypted message (RFC 9580 4 and 5, rules K1 to K8).

The sequence is: session-key packets, then one SEIPD packet that ends with the
data.  Every octet of a session-key packet must be accounted for by its
algorithm, so there is no room for text; the SEIPD payload is only counted.
"""

from __future__ import annotations

ESK_BODY_LIMIT = 1800  # octets; ML-KEM-1024 with X448 has 1701, RSA-8192 has 1036
ESK_LIMIT = 5000  # packets of one message

_PKESK, _SKESK, _MARKER, _SEIPD = 1, 3, 10, 18
_SYMMETRIC = frozenset((1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13))
_AES_KEY = {7: 16, 8: 24, 9: 32}
_NONCE = {1: 16, 2: 15, 3: 12}  # EAX, OCB, GCM
_HASHES = frozenset((2, 8, 9, 10, 11, 12, 14))
_S2K_LENGTH = {1: 10, 3: 11, 4: 20}  # salted, iterated and salted, Argon2
# Bit count of an ECDH point and its leading octet: Curve25519, P-256 and brainpool 256,
# P-384 and brainpool 384, brainpool 512, P-521.
_POINTS = {263: 0x40, 515: 0x04, 771: 0x04, 1027: 0x04, 1059: 0x04}
_SEIPD_HEAD = 68  # octets of SEIPD looked at: version to salt and two tags
_SEIPD_1_LEAST = 1 + 18 + 22
_SEIPD_2_LEAST = 4 + 32 + 32
_PARTIAL_FIRST = 512
_PARTIAL_SMALL = 64  # partial chunks below 512 octets in one message, see Packets


def _mpi(body: bytes, at: int) -> int:
    """The position behind the multiprecision integer at `at`; 0 when it is no canonical one."""
    if at + 3 > len(body):
        return 0
    bits = body[at] << 8 | body[at + 1]
    if body[at + 2].bit_length() != ((bits - 1) & 7) + 1 or not bits:
        return 0
    end = at + 2 + ((bits + 7) >> 3)
    return end if end <= len(body) else 0


def _rsa(body: bytes, at: int, version: int) -> bool:
    bits = int.from_bytes(body[at : at + 2], 'big')
    return 1000 <= bits <= 8192 and _mpi(body, at) == len(body)


def _elgamal(body: bytes, at: int, version: int) -> bool:
    second = _mpi(body, at)
    return second > at + 64 and _mpi(body, second) == len(body) > second + 64


def _ecdh(body: bytes, at: int, version: int) -> bool:
    wrapped = _mpi(body, at)
    if not wrapped or wrapped >= len(body):
        return False
    size = body[wrapped]
    return (
        _POINTS.get(body[at] << 8 | body[at + 1]) == body[at + 2]
        and 24 <= size <= 64
        and not size & 7
        and wrapped + 1 + size == len(body)
    )


def _x25519(body: bytes, at: int, version: int) -> bool:
    return _montgomery(body, at + 32, version)


def _x448(body: bytes, at: int, version: int) -> bool:
    return _montgomery(body, at + 56, version)


def _montgomery(body: bytes, at: int, version: int) -> bool:
    """RFC 9580 5.1.6: size octet, in version 3 the cipher in clear, wrapped key."""
    if at >= len(body) or at + 1 + body[at] != len(body):
        return False
    size = body[at]
    if version == 3:
        return size in (25, 33, 41) and _AES_KEY.get(body[at + 1]) == size - 9
    return size in (24, 32, 40)


def _ml_kem_768(body: bytes, at: int, version: int) -> bool:
    """RFC 9980: ephemeral X25519 key, ML-KEM ciphertext, then as for X25519."""
    return _montgomery(body, at + 32 + 1088, version)


def _ml_kem_1024(body: bytes, at: int, version: int) -> bool:
    """With X448; for keys of version 6 only."""
    return version == 6 and _montgomery(body, at + 56 + 1568, version)


# Public-key algorithms and who may send them.
_ALGORITHMS = {
    1: _rsa,
    2: _rsa,
    16: _elgamal,
    18: _ecdh,
    25: _x25519,
    26: _x448,
    35: _ml_kem_768,
    36: _ml_kem_1024,
}
_INCOMING_ONLY = frozenset((16,))


def _pkesk(body: bytes, incoming: bool) -> int:
    """The SEIPD version this packet belongs to; 0 when it is not well formed (K4)."""
    if len(body) < 12 or body.isascii():
        # Key material without one octet above 0x7F: random data never looks so.
        return 0
    version = body[0]
    if version == 3:
        at = 9
    elif version == 6:
        size = body[1]
        if size and (size, body[2]) not in ((21, 4), (33, 6)):
            return 0
        at = 2 + size
        if at >= len(body):
            return 0
    else:
        return 0
    algorithm = body[at]
    check = _ALGORITHMS.get(algorithm)
    if check is None or (algorithm in _INCOMING_ONLY and not incoming):
        return 0
    if not check(body, at + 1, version):
        return 0
    return 1 if version == 3 else 2


def _s2k(body: bytes, at: int) -> int:
    """The position behind a string-to-key specifier (RFC 9580 3.7); 0 when unknown."""
    if at >= len(body):
        return 0
    end = at + _S2K_LENGTH.get(body[at], 0)
    if end == at or end > len(body):
        return 0
    if body[at] != 4 and body[at + 1] not in _HASHES:
        return 0
    return end


def _skesk(body: bytes) -> int:
    """The SEIPD version this packet belongs to; 0 when it is not well formed (K5)."""
    size = len(body)
    if size < 12:
        return 0
    if body[0] == 4:
        end = _s2k(body, 2)
        return 1 if end and body[1] in _SYMMETRIC and size - end in (0, 17, 25, 33) else 0
    if body[0] != 6:
        return 0
    cipher, aead = body[2], body[3]
    nonce = _NONCE.get(aead, 0)
    end = _s2k(body, 5)
    if not nonce or cipher not in _AES_KEY or not end or end != 5 + body[4]:
        return 0
    if body[1] != 3 + body[4] + nonce or body[end:].isascii():
        return 0
    return 2 if size - end - nonce - 16 in (16, 24, 32) else 0


def _seipd(head: bytes) -> int:
    """The version of a SEIPD packet by its first octets; 0 when it is not well formed (K7)."""
    if head[0] == 1:
        return 1 if len(head) >= _SEIPD_1_LEAST and not head.isascii() else 0
    if head[0] != 2 or len(head) < _SEIPD_2_LEAST or head[4:].isascii():
        return 0
    return 2 if head[1] in _AES_KEY and head[2] in _NONCE and head[3] <= 16 else 0


class Packets:
    """Streaming judge of a packet sequence.

    Holds at most one session-key packet; the cost is linear.  Partial lengths
    (RFC 9580 4.2.1.4) are taken on SEIPD only; because a chunk may be as small as
    one octet, at most 64 chunks below 512 octets are taken.
    """

    __slots__ = (
        '_buffer',
        '_esks',
        '_incoming',
        '_last',
        '_left',
        '_seipd',
        '_small',
        '_versions',
        'faulty',
    )

    def __init__(self, incoming: bool) -> None:
        self.faulty = False
        self._incoming = incoming
        self._buffer = b''  # not yet consumed
        self._esks = 0
        self._versions = 0  # bits of the SEIPD versions the session keys belong to
        self._seipd = False  # inside the last packet
        self._left = 0  # octets left of its current chunk
        self._last = False  # the current chunk is the last one
        self._small = 0

    def feed(self, data: bytes) -> None:
        if self._seipd:
            if len(data) <= self._left:
                self._left -= len(data)
                return
            if self._last:
                self.faulty = True
                return
        if self.faulty:
            return
        if self._buffer:
            data = self._buffer + data
        at, self._left = self._left, 0
        while at < len(data) and not self.faulty:
            step = self._chunk(data, at) if self._seipd else self._packet(data, at)
            if not step:
                break
            at += step
        self._buffer = data[at:]

    def finish(self) -> bool:
        """Whether the data was one whole, well-formed sequence."""
        return (
            not self.faulty and self._seipd and self._last and not self._left and not self._buffer
        )

    def _fail(self) -> int:
        self.faulty = True
        return 0

    def _packet(self, data: bytes, at: int) -> int:
        """Octets of the whole packet at `at`, or of SEIPD as far as present; 0 = wait or faulty."""
        first = data[at]
        if first & 0xC0 != 0xC0:
            return self._old_packet(data, at, first)
        tag = first & 0x3F
        if tag not in (_PKESK, _SKESK, _SEIPD, _MARKER):
            return self._fail()
        length, start, partial = _length(data, at + 1)
        if not start:
            return 0
        if tag == _SEIPD:
            return self._open_seipd(data, at, start, length, partial)
        if partial:
            return self._fail()
        return self._whole(data, at, start, tag, length)

    def _old_packet(self, data: bytes, at: int, first: int) -> int:
        # RFC 9580 4.2.2; tags of one hex digit, so never SEIPD.
        kind = first & 3
        tag = first >> 2 & 15
        if not first & 0x80 or not self._incoming or kind == 3:
            return self._fail()
        if tag not in (_PKESK, _SKESK, _MARKER):
            return self._fail()
        start = at + 1 + (1 << kind)
        if start > len(data):
            return 0
        return self._whole(data, at, start, tag, int.from_bytes(data[at + 1 : start], 'big'))

    def _whole(self, data: bytes, at: int, start: int, tag: int, length: int) -> int:
        if length > ESK_BODY_LIMIT:
            return self._fail()
        end = start + length
        if end > len(data):
            return 0
        body = data[start:end]
        if tag == _MARKER:
            # Only before the session keys, and counted so that nobody sends a million.
            if not self._incoming or self._esks or body != b'PGP' or self._small >= _PARTIAL_SMALL:
                return self._fail()
            self._small += 1
            return end - at
        version = _pkesk(body, self._incoming) if tag == _PKESK else _skesk(body)
        self._esks += 1
        if not version or self._esks > ESK_LIMIT:
            return self._fail()
        self._versions |= version
        return end - at

    def _open_seipd(self, data: bytes, at: int, start: int, length: int, partial: bool) -> int:
        if not self._esks or (partial and length < _PARTIAL_FIRST):
            return self._fail()
        if length < _SEIPD_1_LEAST:
            return self._fail()
        head = min(length, _SEIPD_HEAD)
        if len(data) < start + head:
            return 0
        # RFC 9580 10.3.2.1: session keys of the other version may not stand before it (K8).
        if _seipd(data[start : start + head]) != self._versions:
            return self._fail()
        self._seipd = True
        self._last = not partial
        return self._count(data, at, start, length)

    def _chunk(self, data: bytes, at: int) -> int:
        """The next partial chunk of SEIPD; 0 = wait or faulty."""
        if self._last:
            return self._fail()
        length, start, partial = _length(data, at)
        if not start:
            return 0
        self._last = not partial
        if partial and length < _PARTIAL_FIRST:
            self._small += 1
            if self._small > _PARTIAL_SMALL:
                return self._fail()
        return self._count(data, at, start, length)

    def _count(self, data: bytes, at: int, start: int, length: int) -> int:
        taken = min(length, len(data) - start)
        self._left = length - taken
        return start + taken - at


def _length(data: bytes, at: int) -> tuple[int, int, bool]:
    """New-format length (RFC 9580 4.2.1): length, where the body starts (0 = wait), partial."""
    size = len(data)
    if at >= size:
        return 0, 0, False
    first = data[at]
    if first < 192:
        return first, at + 1, False
    if first < 224:
        if at + 2 > size:
            return 0, 0, False
        return (first - 192 << 8) + data[at + 1] + 192, at + 2, False
    if first == 255:
        if at + 5 > size:
            return 0, 0, False
        return int.from_bytes(data[at + 1 : at + 5], 'big'), at + 5, False
    return 1 << (first & 0x1F), at + 1, True
