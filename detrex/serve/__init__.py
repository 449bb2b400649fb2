"""A model over HTTP: ``detrex serve``.

The application is :func:`detrex.serve.app.create_app`; it needs the extra ``serve``.
"""
