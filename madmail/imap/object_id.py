"""Object identifiers (RFC 8474).

They are digests under a salt of the account, so that they say nothing about
other accounts: neither how much mail there is, nor that two of them have the
same message.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import pack

from madmail.store.interface import Mailbox, Message


def mailbox_id(salt: bytes, mailbox: Mailbox) -> str:
    """The same over RENAME, another for every incarnation (RFC 8474 4)."""
    digest = blake2b(pack('>Q', mailbox.id), key=salt, digest_size=10, person=b'mailbox')
    return 'F' + digest.hexdigest()


def email_id(salt: bytes, message: Message) -> str:
    """The same for a message and its copies (RFC 8474 5.1).

    Numbers of bodies may be used again when the body is gone, so date and size,
    which copies share as well, are part of it.
    """
    what = pack('>QqQ', message.body_id, message.internal_date, message.size)
    return 'M' + blake2b(what, key=salt, digest_size=15, person=b'message').hexdigest()
