"""Why an operation is not done: the one exception of `madmail.admin`.

The command line prints the text and exits with 1; the admin API answers the
status of the word (`madmail.web.admin.answer`).
"""

from __future__ import annotations

from typing import Literal

Word = Literal[
    'invalid',  # what was asked for makes no sense
    'missing',  # what it is about does not exist
    'exists',
    'forbidden',  # never, whoever asks
    'unavailable',  # cannot be asked or done at the moment, or is not set up
    'busy',  # another one is under way
    'failed',  # should have worked
]

# What a shard answers, see `madmail.shard.calls`.
_SHARD: dict[str, tuple[Word, str]] = {
    'missing': ('missing', 'there is no such account'),
    'exists': ('exists', 'the account exists already'),
    'name': (
        'invalid',
        'the user name is reserved, too short, too long or has forbidden characters',
    ),
    'password': ('invalid', 'the password is too short or too long'),
    'full': ('unavailable', 'the disk or database is full'),
    'later': ('unavailable', 'too many accounts are being made; try again later'),
    'short': ('unavailable', 'the relay has no room for new accounts at the moment'),
    'busy': ('busy', 'too much work is waiting already; try again later'),
    'no-job': ('missing', 'that work is not known any more, the relay may have been restarted'),
    'no-task': ('missing', 'there is no such task'),
    'clock-behind': ('unavailable', 'the clock is behind the newest data, nothing expires by it'),
    'clock-ahead': ('unavailable', 'the clock has jumped ahead, nothing expires by it for now'),
    'no-mailbox': ('missing', 'there is no such mailbox'),
    'MailboxMissing': ('missing', 'the mailbox is gone'),
    'MailboxExists': ('exists', 'the mailbox exists already'),
    'MessageMissing': ('missing', 'there is no such message'),
    'no-message': ('missing', 'there is no such message'),
    'mailbox-name': ('invalid', 'that cannot be the name of a mailbox'),
    'mailboxes': ('forbidden', 'the account has as many mailboxes as it may have'),
    'special-use': ('invalid', 'the special use is archive, drafts, junk, sent or trash'),
    'use-taken': ('exists', 'another mailbox has this special use'),
    'inbox': ('forbidden', 'INBOX cannot be removed'),
    'below-itself': ('invalid', 'a mailbox cannot lie below itself'),
    'set': ('invalid', 'messages are named by a set such as 1:5,9,*'),
    'flag': ('invalid', 'a flag is \\Seen, \\Answered, \\Flagged, \\Deleted, \\Draft or a keyword'),
    'keywords': ('forbidden', 'the mailbox has as many keywords as it may have'),
    'empty': ('invalid', 'the message is empty'),
    'OverQuota': ('forbidden', 'the account has no room for that'),
}


class Refused(Exception):
    """The operation was not done; `text` is one clear sentence for the operator."""

    def __init__(self, word: Word, text: str) -> None:
        super().__init__(text)
        self.word = word
        self.text = text


def by_shard(word: str) -> Refused:
    """The error word of a shard call as a refusal."""
    return Refused(*_SHARD.get(word, ('failed', word)))
