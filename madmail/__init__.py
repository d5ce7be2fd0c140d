"""madmail: a chatmail relay in one program."""

__version__ = '0.1.0'
