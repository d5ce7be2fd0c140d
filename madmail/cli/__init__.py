"""The command line: `madmail [--config F] [--state-dir D] [--json] COMMAND`, one file a family.

Commands speak to the running relay if there is one and open its stores
themselves, under the lock of the state directory, if there is none.  A command
returns a `Result`; `main` prints it for people or, with --json, as one line.
"""
