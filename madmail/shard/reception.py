"""The first frame on a shard's socket, and what comes of it.

A gate hands a session over, another process opens a call connection.  Until
the account is known to be right, the connection belongs to nobody here and
costs one wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from madmail import log
from madmail.account.registry import Login, Verdict
from madmail.bus.frame import FrameError, Unframer
from madmail.imap.session import ImapSession
from madmail.shard.calls import CallServer, Methods
from madmail.shard.sessions import Sessions
from madmail.shard.wire import Session, Wire
from madmail.smtp.session import SmtpSession

if TYPE_CHECKING:
    from madmail.shard.services import ShardServices
    from madmail.store.interface import Account

FIRST_FRAME_TIME = 30.0  # seconds
_log = log.get('shard')


class Reception:
    """The session of a wire that has just been accepted."""

    def __init__(
        self,
        wire: Wire,
        services: ShardServices,
        sessions: Sessions,
        methods: Methods,
        now: Callable[[], float],
    ) -> None:
        self._wire = wire
        self._services = services
        self._sessions = sessions
        self._methods = methods
        self._deadline = now() + FIRST_FRAME_TIME
        self._unframer = Unframer()

    def run(self) -> None:
        wire = self._wire
        try:
            frame = self._unframer.next(wire.input)
            wire.input.clear()
            if frame is None:
                return
            wire.input += self._unframer.rest()
        except FrameError:
            wire.close()
            return
        kind = frame.get('kind')
        if kind == 'session':
            self._receive(frame)
        elif kind == 'call':
            wire.become(CallServer(wire, self._methods))
        else:
            wire.close()

    def tick(self, now: float) -> None:
        if now > self._deadline:
            self._wire.close()

    def retire(self) -> None:
        self._wire.close()

    def ended(self) -> None:
        pass

    def _receive(self, frame: dict[str, Any]) -> None:
        protocol = frame['proto']
        login = Login(Verdict.WELCOME) if protocol == 'inbound' else self._login(frame)
        account = login.account
        if account is not None and not self._sessions.room_for(account.id):
            login = Login(Verdict.FULL)
        wire = self._wire
        wire.write(login.verdict.value.encode())
        if login.verdict not in (Verdict.WELCOME, Verdict.CREATED):
            wire.close()
            return
        wire.input += frame['ahead']
        session = self._session(protocol, frame, account)
        if account is not None:
            self._sessions.add(account.id, wire)
        wire.become(session)

    def _login(self, frame: dict[str, Any]) -> Login:
        try:
            return self._services.accounts.login(
                frame['user'], frame['password'], tuple(frame['origin'])
            )
        except Exception:
            # The client must learn that this is not about its password.
            _log.exception('login failed')
            return Login(Verdict.TROUBLE)

    def _session(self, protocol: str, frame: dict[str, Any], account: Account | None) -> Session:
        if protocol == 'imap':
            assert account is not None
            return ImapSession(self._wire, self._services, account, frame['tag'])
        return SmtpSession(self._wire, self._services, account, frame)
