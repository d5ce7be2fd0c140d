"""The dashboard: pages in the browser from which an operator administers the relay.

They are built from the sources in `web/` (`scripts/panel`); what comes out is in `dist`
here and part of the program.  `resources` serves it at the setting `panel.path`.
"""
