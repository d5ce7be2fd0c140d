"""The admin API: POST with an envelope, one family of resources a module.

`endpoint` is the HTTP side: envelope, token, limits.  `registry` knows the
families; each of their handlers checks the body (`fields`), calls an operation
of `madmail.admin` and returns an `answer.Answer`.
"""
