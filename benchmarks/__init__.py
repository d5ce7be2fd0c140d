"""Load tools and their recorded baseline; programs, never timed assertions in tests."""
