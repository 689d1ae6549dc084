"""Detection and redaction of secrets in storage options and URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = ("secret", "token", "password", "access_key", "connection_string", "credential", "authorization", "cookie")

# user:password@ after a scheme, unless the text after the colon is a port; in an http URL a user alone may be a token.
_USER = re.compile(r"(?<=://)[^/?#@\s\[]*:(?!\d*(?:[/?#\s]|$))\S*@")
_HTTP_USER = re.compile(r"(https?://)[^/?#@\s]+@")
# Parameters of a query that sign or authenticate it, such as X-Amz-Signature, sig and access_token.
_QUERY = re.compile(r"([?&](?:[^=&\s]*(?:secret|token|password|signature|credential|key)|sig)=)[^&\s'\"]+", re.IGNORECASE)


def refuse_secrets(config: Mapping[str, Any]) -> None:
    """Refuse a secret in a configuration, which is stored with its run.

    Raises:
        ValueError: if there is a secret; it names the key, not the value.
    """
    if secret := _secret_option(config["storage"]):
        raise ValueError(f"storage.{secret} is a secret: give it in the environment (AWS_ACCESS_KEY_ID, ...), not in a file")
    if secret := _secret_url(config, ""):
        raise ValueError(f"{secret} is a URL with a secret in it: give it in the environment (AWS_ACCESS_KEY_ID, ...), not in a URL")


def redact(text: str) -> str:
    """Replace the secrets in the URLs of a text by three asterisks."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1***", _HTTP_USER.sub(r"\1***@", _USER.sub("***@", text)))


def _secret_option(options: Mapping[str, Any]) -> str | None:
    """Return the dotted name of the first option that is a secret, at any depth."""
    for name, value in options.items():
        lower = str(name).lower()
        if lower.endswith("key") or any(word in lower for word in _WORDS):
            return str(name)
        if isinstance(value, dict) and (inner := _secret_option(value)):
            return f"{name}.{inner}"
    return None


def _secret_url(value: Any, name: str) -> str | None:
    """Return the dotted name of the first URL with a secret.

    Args:
        value: tree of mappings and lists.
    """
    if isinstance(value, str):
        return name if redact(value) != value else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((secret for key, item in items if (secret := _secret_url(item, f"{name}.{key}".lstrip(".")))), None)
