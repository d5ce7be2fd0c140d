"""What the relay says over HTTP: federation now, later the site, administration and WebIMAP.

`process` is the child of the master.  It starts `server`, which is gunicorn
with our `worker`, and watches it.  In the workers `application` puts the Falcon
apps together; `federation` is POST /mxdeliv.  What the apps share in a worker
is `services`.

Everything a peer sends is read in bounded pieces (`upload`), every limit is in
`gunicorn_settings` or beside its use, and nothing personal is logged.
"""
