"""The replies of the encryption gate, as values.

The texts are what Delta Chat and the tests of other chatmail relays look for.
`cause` names the rule for counters and never reaches the peer.
"""

from __future__ import annotations

from madmail.smtp.reply import Fault, Reply


def unencrypted(cause: str) -> Reply:
    """The gate's own refusal; 523 is no registered code, but clients know it."""
    return Reply(523, '', 'Encryption Needed: Invalid Unencrypted Mail', cause, Fault.POLICY)


def malformed(cause: str) -> Reply:
    return Reply(554, '5.6.0', 'Malformed data', cause, Fault.PEER)


def too_big() -> Reply:
    return Reply(552, '5.3.4', 'Message exceeds maximum size', 'size', Fault.PEER)


def loop() -> Reply:
    return Reply(554, '5.4.6', 'Too many hops, possible mail loop', 'loop', Fault.PEER)


def invalid_from(found: str, expected: str) -> Reply:
    text = f'Invalid FROM <{found}> for <{expected}>'
    return Reply(500, '5.7.1', text, 'from', Fault.POLICY)
