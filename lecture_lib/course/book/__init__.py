"""The course as a book in the browser: notebooks, library, records and explorer as one folder of HTML.

`staging` lays the sources out, `notebooks` and `library` turn chapters and modules into pages, Sphinx does
the rest with `docs/conf.py`. No notebook is executed: pages show what is stored.
"""
