"""The kiosk: a drawing page and an HTTP API over one engine. Needs the extra ``serve``, is started by ``serve_cli``."""
