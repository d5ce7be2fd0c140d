"""COMPRESS=DEFLATE (RFC 4978): a layer between a session and its wire.

To the session it is the stream it reads and writes, to the wire it is the
session.  Both ways are raw deflate (RFC 1951).

Output: every batch of answers is a deflate stream of its own that ends on a
sync flush, so a client can read it at once, and nothing is kept between two
batches.  PERF: a compressor with a window of 4 KiB takes 0.5 us to make; what
the lost history costs is about 20 octets a batch.

Input: clients refer back to up to 32 KiB of what they have sent, and zlib keeps
40 KiB for that.  When a client is silent, or LIVE others have spoken since, its
last flush is checked to be the end of a block; then the history is kept in
compressed form (commands shrink to a tenth and less) and the decompressor is made
anew from it when something comes.  A client that does not flush to the octet keeps
its decompressor.

What comes in is inflated in steps of at most STEP octets, and only while the
session's input is below INPUT_LIMIT: a few octets that stand for a gigabyte are
bounded like any other input.
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any

from madmail.shard.turns import yield_to_others
from madmail.shard.wire import CORK_LIMIT, INPUT_LIMIT

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.shard.wire import Wire

WINDOW = 32768  # octets a client may refer back to (RFC 1951 section 2)
STEP = 65536  # octets inflated at once
TAKE = 16384  # compressed octets given to zlib at once
QUIET = 2.0  # seconds of silence after which the decompressor is given up
# PERF: without a bound a reconnect storm leaves the heap in holes, 23 KB a session.
LIVE = 32  # decompressors of sessions that have spoken last
TURN = 16  # steps after which others get the loop

LEVEL = 1
WBITS = -12  # a window of 4 KiB; negative: without zlib's header
MEMORY = 5
ARMOR = b'-----BEGIN PGP MESSAGE'
END_OF_BLOCK = b'\x00\x00\xff\xff'  # how a sync flush ends
LAST_BLOCK = b'\x01\x00\x00\xff\xff'  # an empty one, which ends a stream

_live: dict[Compressed, None] = {}  # sessions with a decompressor, who spoke last is last


class Compressed:
    """A session's stream and a wire's session at once."""

    __slots__ = (
        '_corked',
        '_corked_size',
        '_decompressor',
        '_heard',
        '_history',
        '_packed',
        '_steps',
        '_tail',
        '_unread',
        '_wire',
        'input',
        'session',
    )

    def __init__(self, wire: Wire, session: ImapSession) -> None:
        """Octets in the wire's input and all that follow are compressed."""
        self.input = bytearray()
        self.session = session
        self._wire = wire
        self._corked: list[bytes] = []
        self._corked_size = 0
        self._decompressor: Any = None
        self._history = bytearray()  # what was inflated last, at most WINDOW octets
        self._packed = b''  # the same compressed, while there is no decompressor
        self._tail = b''  # the last octets that came over the wire
        self._unread = False  # the decompressor may hold more
        self._heard = 0.0
        self._steps = 0

    # -- as a stream, see madmail.shard.wire.Stream

    @property
    def eof(self) -> bool:
        return self._wire.eof

    @property
    def closing(self) -> bool:
        return self._wire.closing

    @property
    def unsent(self) -> int:
        return self._corked_size + self._wire.unsent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._corked.append(bytes(data))
        self._corked_size += len(data)
        if self._corked_size > CORK_LIMIT:
            self.flush()

    def flush(self) -> None:
        self._deflate()
        self._wire.flush()

    def drain(self) -> None:
        self._deflate()
        self._wire.drain()

    def wait(self, timeout: float) -> bool:
        self._deflate()
        if self._inflate():
            self._wire.flush()
            return True
        while self._wire.wait(timeout):
            if self._inflate():
                return True
            if self._wire.closing:
                break
        return False

    def close(self) -> None:
        self._deflate()
        self._wire.close()

    # -- as a session, see madmail.shard.wire.Session

    def run(self) -> None:
        try:
            while True:
                more = self._inflate()
                self.session.run()
                if not more or self._wire.closing:
                    return
        finally:
            self._deflate()

    def tick(self, now: float) -> None:
        self.session.tick(now)
        if self._decompressor is not None and now - self._heard > QUIET:
            self._give_up_window()

    def retire(self) -> None:
        self.session.retire()

    def ended(self) -> None:
        self._decompressor = None
        _live.pop(self, None)
        self.session.ended()

    # -- moving to another process

    def freeze(self) -> dict[str, Any] | None:
        """As ImapSession's; None too while the client is in the middle of a block."""
        if self.input or self._wire.input or self._corked or not self._give_up_window():
            return None
        state = self.session.freeze()
        return None if state is None else {**state, 'deflate': self._packed}

    @classmethod
    def thaw(cls, wire: Wire, session: ImapSession, packed: bytes) -> Compressed:
        """The layer as it was, under a session that was thawed on `wire`."""
        layer = cls(wire, session)
        layer._packed = packed
        session.wire = layer
        return layer

    # -- inside

    def _deflate(self) -> None:
        """Give what is corked to the wire, readable for the client without anything behind."""
        if not self._corked:
            return
        data = self._corked[0] if len(self._corked) == 1 else b''.join(self._corked)
        self._corked.clear()
        self._corked_size = 0
        # PERF: ciphertext in base64 has no repetitions to look for: 64 KiB take 1 ms with
        # Huffman coding only and 2 ms otherwise, for the same 76 %.
        armored = self.session.in_literal or ARMOR in data
        strategy = zlib.Z_HUFFMAN_ONLY if armored else zlib.Z_DEFAULT_STRATEGY
        deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, WBITS, MEMORY, strategy)
        self._wire.write(deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))

    def _inflate(self) -> bool:
        """Inflate one step of what has come; whether the session's input has grown.

        May switch to other greenlets.
        """
        raw, wire = self._wire.input, self._wire
        grown = 0
        while not grown and (raw or self._unread) and len(self.input) < INPUT_LIMIT:
            if wire.closing:
                break
            inflate = self._decompressor
            if inflate is None:
                inflate = self._decompressor = self._renewed()
            _live.pop(self, None)
            _live[self] = None
            piece = bytes(raw[:TAKE])
            try:
                data = inflate.decompress(piece, STEP)
            except zlib.error:
                self._corrupt()
                break
            used = len(piece) - len(inflate.unconsumed_tail)
            if used:
                del raw[:used]
                self._tail = (self._tail + piece[:used])[-len(END_OF_BLOCK) :]
            self._unread = len(data) == STEP
            if inflate.eof:
                self._corrupt()  # RFC 4978 knows no end of compression
                break
            if data:
                self.input += data
                grown = len(data)
                history = self._history
                history += data
                if len(history) > WINDOW:
                    del history[:-WINDOW]
        self._heard = time.monotonic()
        if grown and (raw or self._unread):
            self._steps += 1
            if self._steps % TURN == 0:
                yield_to_others()
        return bool(grown)

    def _corrupt(self) -> None:
        self._wire.input.clear()
        self._unread = False
        self.session.goodbye('Compressed data is corrupt')

    def _renewed(self) -> Any:
        """A decompressor that knows the history; those of others may go for it."""
        if len(_live) >= LIVE:
            oldest = next(iter(_live))
            if not oldest._give_up_window():
                _live[oldest] = _live.pop(oldest)  # in the middle of a block: later
        if self._packed:
            self._history = bytearray(zlib.decompress(self._packed))
            self._packed = b''
        if self._history:
            return zlib.decompressobj(-15, zdict=bytes(self._history))
        return zlib.decompressobj(-15)

    def _give_up_window(self) -> bool:
        """Keep the history only; False if the client is in the middle of a block."""
        inflate = self._decompressor
        if inflate is None:
            return True
        if self._unread or self._wire.input or self._tail != END_OF_BLOCK:
            return False
        # Octets like these may stand inside a block as well: there, a last block is not one.
        probe = inflate.copy()
        try:
            if probe.decompress(LAST_BLOCK, 1) or not probe.eof:
                return False
        except zlib.error:
            return False
        self._decompressor = None
        _live.pop(self, None)
        self._packed = zlib.compress(bytes(self._history), LEVEL) if self._history else b''
        self._history = bytearray()
        return True
