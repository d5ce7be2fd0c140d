"""The relay as the real Delta Chat core sees it."""
