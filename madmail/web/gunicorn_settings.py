"""gunicorn's settings: bounds, not tuning.  Addresses and processes are set in `server`.

An operator's own `gunicorn.py` beside the configuration file of the relay is
read after this one; `conf/gunicorn.py` is a sample.
"""

bind: list[str] = []  # the sockets are passed on by the master
worker_class = 'madmail.web.worker.Worker'
worker_connections = 10000  # of one worker
backlog = 4096

# Seconds.  A worker whose loop does not turn for `timeout` is killed; the time
# for one request has its own rules, see `upload`.
timeout = 30
graceful_timeout = 60
keepalive = 75  # between two requests, and for a request's header

# A header: [F] puts all recipients of a domain into one request, a line each.
# The header as a whole may have worker.HEADER_LIMIT octets.
limit_request_line = 4094
limit_request_fields = 4000
limit_request_field_size = 65536

# What a peer says about addresses and schemes is not believed: nobody is in front.
forwarded_allow_ips = '127.0.0.1'
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ''
header_map = 'drop'  # names with an underscore could pose as others
http_parser = 'python'
http_protocols = 'h1'

accesslog = None
logger_class = 'madmail.web.gunicorn_log.GunicornLog'
loglevel = 'info'
capture_output = False
preload_app = False  # what the apps open must not cross a fork
control_socket_disable = True
sendfile = False
