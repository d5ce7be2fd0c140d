"""IMAP: the grammar by itself, and sessions driven over a wire in memory."""
