"""The public pages: what a person with a phone meets first.

Rendered on the server, readable without scripts, in the visitor's language, with
one style sheet and nothing from anywhere else.  `pages` renders, `resources` are
the routes, `texts/` the words, `guide/` the user guide.  `site.www_dir` may replace
any file by an own one.
"""
