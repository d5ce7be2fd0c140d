"""The tasks of upkeep: their names, how often they are done, and the setting that steers each."""

from __future__ import annotations

from dataclasses import dataclass

from madmail.settings import Settings

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    aliases: tuple[str, ...]
    description: str
    period: int  # seconds; 0 = only by hand
    settings: tuple[str, ...] = ()  # it is on when one of them is not 0; none = always
    ages: bool = True  # it removes what is older than a time that can be given by hand

    def enabled(self, settings: Settings) -> bool:
        """Whether it is done by itself."""
        if not self.period:
            return False
        return not self.settings or any(settings[name] for name in self.settings)


TASKS = (
    Task(
        'prune-old-messages',
        ('prune-messages', 'retention'),
        'Remove messages and large messages that are older than the limit, from all folders',
        HOUR,
        ('retention.messages', 'retention.large'),
    ),
    Task(
        'purge-seen',
        ('purge-read', 'auto-purge-seen'),
        'Remove messages that were read and are older than the limit',
        HOUR,
        ('retention.read',),
    ),
    Task(
        'prune-unread-older',
        ('purge-unread-older', 'prune-unread'),
        'Remove messages that were not read and are older than a given time',
        0,
    ),
    Task(
        'prune-dormant-accounts',
        ('prune-dormant', 'dormant-accounts'),
        'Delete accounts that nobody has logged in to for long',
        DAY,
        ('retention.dormant_accounts',),
    ),
    Task(
        'prune-unused-accounts',
        ('prune-unused', 'unused-accounts'),
        'Delete accounts that nobody has ever logged in to',
        DAY,
        ('retention.unused_accounts',),
    ),
    Task(
        'sweep-blobs',
        ('sweep', 'sweep-files'),
        'Remove files of large messages that no message refers to',
        DAY,
        ages=False,
    ),
)


def find(word: str) -> Task | None:
    """The task of a name or an alias."""
    word = word.strip().lower()
    return next((task for task in TASKS if word == task.name or word in task.aliases), None)
