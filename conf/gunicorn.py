# Settings of gunicorn, which serves HTTP for the relay.  Copy this file beside the
# relay's configuration file to change them; without it the defaults in
# madmail/web/gunicorn_settings.py hold.  All names are in gunicorn's manual.  Listeners and
# worker processes are settings of the relay (listen.http, listen.https, processes.web) and
# not read here.  Applied when the relay starts and on reload.

# Connections that one worker holds at a time.
# worker_connections = 10000

# Seconds an idle connection is kept, and a request's header may take.
# keepalive = 75

# Seconds without a sign of life after which a worker is replaced.
# timeout = 30

# Seconds that requests get to end when a worker is replaced.
# graceful_timeout = 60
