"""Push notifications: telling a phone, by way of the notification service, that there is mail.

A delivery makes the account's tokens due in its own transaction (`store.devices`).  The
courier process sends: `sender` takes what is due from all shards, `service` makes the
requests, `schedule` says when a token and when the service may be tried.
"""
