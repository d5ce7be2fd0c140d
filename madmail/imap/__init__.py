"""IMAP4rev1 (RFC 3501) and its extensions.

Grammar (`framing`, `grammar*`, `mailbox_name`) and `responses` are pure; the
session, the view of a mailbox and the commands stand on top of them.
"""
