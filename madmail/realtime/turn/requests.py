"""What each message of a client does, and what it is answered (RFC 8656, RFC 6062).

Who cannot prove who he is gets few answers, and short ones: 401 with what he needs to
prove it, up to a rate, and then silence.  Whoever can gets signed ones, errors included.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from madmail.realtime.turn import message
from madmail.realtime.turn.allocation import Allocation, Client, sockaddr
from madmail.realtime.turn.limits import network
from madmail.realtime.turn.message import (
    ERROR,
    REQUEST,
    SUCCESS,
    Address,
    Malformed,
    Message,
    build,
    error_code,
    lifetime,
    parse,
    read_xor_address,
    xor_address,
)
from madmail.realtime.turn.ports import NoPort

if TYPE_CHECKING:
    from madmail.realtime.turn.server import Server

LIFETIME, LONGEST_LIFETIME = 600, 3600  # seconds (RFC 8656 3.2, 7.2)
CHANNELS = range(0x4000, 0x8000)  # RFC 8656 ends at 0x4FFF, RFC 5766 here

REASONS = {
    400: 'Bad Request',
    401: 'Unauthorized',
    403: 'Forbidden',
    420: 'Unknown Attribute',
    437: 'Allocation Mismatch',
    438: 'Stale Nonce',
    440: 'Family not Supported',
    441: 'Wrong Credentials',
    442: 'Unsupported Transport',
    443: 'Family Mismatch',
    446: 'Connection Exists',
    447: 'Connection Failed',
    486: 'Quota Reached',
    508: 'No Capacity',
}


class Refused(Exception):
    """A request is answered with an error."""

    def __init__(self, code: int, *attributes: tuple[int, bytes]) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = attributes


class Proved(NamedTuple):
    """A request whose sender proved who he is."""

    message: Message
    client: Client
    name: str
    key: bytes

    def answer(self, *attributes: tuple[int, bytes]) -> bytes:
        return build(SUCCESS, self.message.method, self.message.transaction, attributes, self.key)

    def refuse(self, code: int, *attributes: tuple[int, bytes]) -> bytes:
        return refusal(self.message, code, *attributes, key=self.key)


def refusal(
    request: Message, code: int, *attributes: tuple[int, bytes], key: bytes | None = None
) -> bytes:
    told = (error_code(code, REASONS[code]), *attributes)
    return build(ERROR, request.method, request.transaction, told, key)


class Requests:
    """Of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._handlers = {
            message.ALLOCATE: self._allocate,
            message.REFRESH: self._refresh,
            message.CREATE_PERMISSION: self._create_permission,
            message.CHANNEL_BIND: self._channel_bind,
            message.CONNECT: self._connect,
            message.CONNECTION_BIND: self._connection_bind,
        }

    def message(self, data: bytes, client: Client) -> bool:
        """A message from a client; False when it is none."""
        server = self._server
        try:
            received = parse(data)
        except Malformed:
            server.dropped['malformed'] += 1
            return False
        if received.kind == message.INDICATION:
            if received.method == message.SEND:
                self._send(received, client)
        elif received.kind == REQUEST:
            answer = self._request(received, client)
            if answer is not None:
                client.send(answer)
        return True

    def _request(self, request: Message, client: Client) -> bytes | None:
        """The answer; None for silence, or when it comes later."""
        server = self._server
        if request.method == message.BINDING:
            return self._binding(request, client)
        handler = self._handlers.get(request.method)
        if handler is None:
            server.dropped['malformed'] += 1
            return None
        try:
            proved = self._prove(request, client)
        except Refused as refused:
            # RFC 8656 21.1.1: answers to strangers are an amplifier.
            if not server.answers_stranger(client.ip):
                return None
            server.denied[refused.code] = server.denied.get(refused.code, 0) + 1
            return refusal(request, refused.code, *refused.attributes)
        try:
            unknown = request.unknown()
            if unknown:
                listed = b''.join(number.to_bytes(2, 'big') for number in unknown)
                raise Refused(420, (message.UNKNOWN_ATTRIBUTES, listed))
            return handler(proved)
        except Malformed:
            return proved.refuse(400)
        except Refused as refused:
            server.denied[refused.code] = server.denied.get(refused.code, 0) + 1
            return proved.refuse(refused.code, *refused.attributes)

    def _prove(self, request: Message, client: Client) -> Proved:
        """RFC 8489 9.2.4.  Raises Refused."""
        server = self._server
        keys = server.keys
        now = server.time()

        def again(code: int) -> Refused:
            nonce = server.nonces.fresh(client.ip, now)
            return Refused(code, (message.REALM, keys.realm.encode()), (message.NONCE, nonce))

        if not request.signed:
            raise again(401)
        name, realm = request.get(message.USERNAME), request.get(message.REALM)
        nonce = request.get(message.NONCE)
        if name is None or realm is None or nonce is None:
            raise Refused(400)
        if not server.nonces.valid(nonce, client.ip, now):
            raise again(438)
        if realm != keys.realm.encode() or len(name) > 64 or not name.isascii():
            raise again(401)
        text = name.decode()
        if text in server.ended:
            raise again(401)
        allocation = client.allocation
        if allocation is not None and allocation.account.name == text:
            # Also when the credentials have ended meanwhile: calls may be long.
            candidates = [allocation.key]
        else:
            candidates = keys.of(text, now)
        for key in candidates:
            if request.verifies(key):
                return Proved(request, client, text, key)
        raise again(401)

    # -- methods

    def _binding(self, request: Message, client: Client) -> bytes | None:
        if not self._server.answers_stranger(client.ip):
            return None
        unknown = request.unknown()
        if unknown:
            listed = b''.join(number.to_bytes(2, 'big') for number in unknown)
            return refusal(request, 420, (message.UNKNOWN_ATTRIBUTES, listed))
        mapped = xor_address(client.address, request.transaction)
        attributes = [(message.XOR_MAPPED_ADDRESS, mapped)]
        return build(SUCCESS, message.BINDING, request.transaction, attributes)

    def _allocate(self, proved: Proved) -> bytes:
        server, request, client = self._server, proved.message, proved.client
        existing = client.allocation
        if existing is not None:
            if existing.transaction == request.transaction and existing.key == proved.key:
                return self._allocated(proved, existing)  # it was said before, and was lost
            raise Refused(437)
        transport = request.get(message.REQUESTED_TRANSPORT)
        if transport is None or len(transport) != 4:
            raise Refused(400)
        if transport[0] not in (message.UDP, message.TCP):
            raise Refused(442)
        stream = transport[0] == message.TCP
        if stream and not client.stream:
            raise Refused(400)  # RFC 6062 5.1
        token = request.get(message.RESERVATION_TOKEN)
        asked = request.get(message.REQUESTED_ADDRESS_FAMILY)
        additional = request.get(message.ADDITIONAL_ADDRESS_FAMILY)
        even = request.get(message.EVEN_PORT)
        pair = bool(even and even[0] & 0x80)
        if token is not None and (
            len(token) != 8 or even is not None or asked is not None or additional is not None
        ):
            raise Refused(400)
        if asked is not None and (len(asked) != 4 or additional is not None):
            raise Refused(400)
        if even is not None and (len(even) != 1 or (pair and additional is not None)):
            raise Refused(400)
        if stream and (
            token is not None or even is not None or request.get(message.DONT_FRAGMENT) is not None
        ):
            raise Refused(400)  # RFC 6062 5.1
        family = asked[0] if asked else message.IPV4
        if family not in server.ports.families():
            raise Refused(440)
        if not server.admits(proved.name, network(client.ip)):
            raise Refused(486)
        if server.full():
            raise Refused(486)  # and not 508, which says that something is wrong here
        if not server.may_allocate(client.ip):
            raise Refused(486)
        reservation = b''
        port = None
        try:
            if token is not None:
                relay = server.ports.redeem(token)
                if relay is None:
                    raise Refused(508)
                family = message.IPV6 if ':' in relay.getsockname()[0] else message.IPV4
            elif server.shared is not None and not stream:
                if pair:
                    raise NoPort
                port = server.shared.choose(family, proved.name, even=even is not None)
                relay = port.socket
            elif pair:
                reservation = os.urandom(8)
                relay = server.ports.open_pair(family, reservation)
            else:
                relay = server.ports.open(family, even=even is not None, stream=stream)
        except NoPort:
            raise Refused(508) from None
        allocation = server.allocate(
            client, proved.name, proved.key, request.transaction, relay, family, stream, port
        )
        if allocation is None:
            raise Refused(508)
        allocation.reservation = reservation
        self._prolong(allocation, request)
        return self._allocated(proved, allocation)

    def _allocated(self, proved: Proved, allocation: Allocation) -> bytes:
        transaction = proved.message.transaction
        left = max(int(allocation.expires - self._server.now() + 0.5), 0)
        attributes = [
            (message.XOR_RELAYED_ADDRESS, xor_address(allocation.relayed, transaction)),
            lifetime(left),
            (message.XOR_MAPPED_ADDRESS, xor_address(proved.client.address, transaction)),
        ]
        if allocation.reservation:
            attributes.append((message.RESERVATION_TOKEN, allocation.reservation))
        return proved.answer(*attributes)

    def _prolong(self, allocation: Allocation, request: Message) -> int:
        wanted = self._lifetime(request)
        seconds = LIFETIME if wanted is None else max(LIFETIME, min(wanted, LONGEST_LIFETIME))
        allocation.expires = self._server.now() + seconds
        self._server.look_at(allocation, allocation.expires)
        return seconds

    def _lifetime(self, request: Message) -> int | None:
        value = request.get(message.LIFETIME)
        if value is not None and len(value) != 4:
            raise Refused(400)
        return None if value is None else int.from_bytes(value, 'big')

    def _own(self, proved: Proved) -> Allocation:
        """The allocation of the client, if it is this user's.  Raises Refused."""
        allocation = proved.client.allocation
        if allocation is None:
            raise Refused(437)
        if allocation.account.name != proved.name:
            raise Refused(441)
        return allocation

    def _refresh(self, proved: Proved) -> bytes:
        allocation = self._own(proved)
        asked = proved.message.get(message.REQUESTED_ADDRESS_FAMILY)
        if asked is not None and (len(asked) != 4 or asked[0] != allocation.family):
            raise Refused(443)
        if self._lifetime(proved.message) == 0:
            self._server.release(allocation)
            return proved.answer(lifetime(0))
        return proved.answer(lifetime(self._prolong(allocation, proved.message)))

    def _create_permission(self, proved: Proved) -> bytes:
        allocation = self._own(proved)
        values = proved.message.all(message.XOR_PEER_ADDRESS)
        if not values:
            raise Refused(400)
        peers = [read_xor_address(value, proved.message.transaction) for value in values]
        for peer in peers:
            if peer.family != allocation.family:
                raise Refused(443)
        for peer in peers:
            if not self._server.policy.allows(peer.host):
                raise Refused(403)
        if not allocation.permit([peer.host for peer in peers], self._server.now()):
            raise Refused(508)
        return proved.answer()

    def _peer(self, proved: Proved, allocation: Allocation) -> Address:
        value = proved.message.get(message.XOR_PEER_ADDRESS)
        if value is None:
            raise Refused(400)
        peer = read_xor_address(value, proved.message.transaction)
        if peer.family != allocation.family:
            raise Refused(443)
        if not self._server.policy.reaches(peer.host, peer.port):
            raise Refused(403)
        return peer

    def _channel_bind(self, proved: Proved) -> bytes:
        allocation = self._own(proved)
        value = proved.message.get(message.CHANNEL_NUMBER)
        if value is None or len(value) != 4 or allocation.connections is not None:
            raise Refused(400)
        number = int.from_bytes(value[:2], 'big')
        if number not in CHANNELS:
            raise Refused(400)
        peer = self._peer(proved, allocation)
        trouble = allocation.bind(number, sockaddr(peer), self._server.now())
        if trouble:
            raise Refused(400 if trouble == 'taken' else 508)
        return proved.answer()

    def _send(self, indication: Message, client: Client) -> None:
        """RFC 8656 11.2: what does not fit is dropped without a word."""
        allocation = client.allocation
        value = indication.get(message.XOR_PEER_ADDRESS)
        data = indication.get(message.DATA)
        dropped = self._server.dropped
        if allocation is None or allocation.connections is not None:
            dropped['allocation'] += 1
            return
        try:
            if value is None or data is None or indication.unknown():
                raise Malformed
            peer = read_xor_address(value, indication.transaction)
        except Malformed:
            dropped['malformed'] += 1
            return
        if peer.family != allocation.family:
            dropped['permission'] += 1
            return
        whole = indication.get(message.DONT_FRAGMENT) is not None
        allocation.from_client(data, peer, whole=whole)

    # -- RFC 6062

    def _connect(self, proved: Proved) -> bytes | None:
        allocation = self._own(proved)
        if allocation.connections is None:
            raise Refused(400)
        peer = self._peer(proved, allocation)
        server = self._server
        if peer.host in server.policy.relays and not server.relays_streams(peer):
            raise Refused(447)  # what else listens on this host is nobody's business
        if not allocation.connections.connect(peer, proved):
            raise Refused(446)
        return None  # when the peer has answered

    def _connection_bind(self, proved: Proved) -> bytes | None:
        value = proved.message.get(message.CONNECTION_ID)
        if value is None or len(value) != 4 or not proved.client.stream:
            raise Refused(400)
        if proved.client.allocation is not None:
            raise Refused(400)
        connection = self._server.pending.get(int.from_bytes(value, 'big'))
        if connection is None:
            raise Refused(400)
        if connection.allocation.account.name != proved.name:
            raise Refused(441)
        proved.client.send(proved.answer())
        if not proved.client.closed:
            connection.bind(proved.client)
        return None
