"""What must not be written down or shown: secrets in options and in URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORDS = ("secret", "token", "password", "access_key", "connection_string", "credential", "authorization", "cookie")

# user:password@ after a scheme, where what follows the colon is no port; over http a user alone may be a token.
_USER = re.compile(r"(?<=://)[^/?#@\s\[]*:(?!\d*(?:[/?#\s]|$))\S*@")
_HTTP_USER = re.compile(r"(https?://)[^/?#@\s]+@")
# A part of a query that signs it or says who asks, such as X-Amz-Signature, sig and access_token.
_QUERY = re.compile(r"([?&](?:[^=&\s]*(?:secret|token|password|signature|credential|key)|sig)=)[^&\s'\"]+", re.IGNORECASE)


def refuse_secrets(config: Mapping[str, Any]) -> None:
    """Raises a ValueError that names a secret's place and not the secret: a configuration is written into what it makes."""
    if secret := _secret_option(config["storage"]):
        raise ValueError(f"storage.{secret} is a secret: give it in the environment (AWS_ACCESS_KEY_ID, ...), not in a file")
    if secret := _secret_url(config, ""):
        raise ValueError(f"{secret} is a URL with a secret in it: give it in the environment (AWS_ACCESS_KEY_ID, ...), not in a URL")


def redact(text: str) -> str:
    """A text with the secrets in its URLs replaced by three asterisks."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1***", _HTTP_USER.sub(r"\1***@", _USER.sub("***@", text)))


def _secret_option(options: Mapping[str, Any]) -> str | None:
    """The dotted name of the first option that is a secret, also in options within options."""
    for name, value in options.items():
        lower = str(name).lower()
        if lower.endswith("key") or any(word in lower for word in _WORDS):
            return str(name)
        if isinstance(value, dict) and (inner := _secret_option(value)):
            return f"{name}.{inner}"
    return None


def _secret_url(value: Any, name: str) -> str | None:
    """The dotted name of the first text in a tree of mappings and lists that is a URL with a secret in it."""
    if isinstance(value, str):
        return name if redact(value) != value else None
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for key, item in inner if (found := _secret_url(item, f"{name}.{key}".lstrip(".")))), None)
