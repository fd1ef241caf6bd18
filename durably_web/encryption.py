"""Values that only who has the key can read: AES-256-GCM around what another codec makes."""

from __future__ import annotations

import binascii
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from durably_web.codec import Codec, JsonCodec, store
from durably_web.errors import DecryptionFailed

_VERSION = "1"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class AesGcmCodec:
    """Seals what the database keeps of inputs, outputs, results, errors, log lines, progress and signals.

        durably = Durably("app.db", jobs=jobs, codec=AesGcmCodec(key))

    `key` is 32 random bytes, such as those of `os.urandom(32)`; keep it outside of the database: without it the values
    are lost. Of several keys the first seals and all open, so that a key can be replaced while old values are read.
    Values from before there was a key are read as they are.

    Not sealed, because the database searches by them: the names of jobs, steps and signals, labels, idempotency keys,
    concurrency keys; and instants, statuses, and how long a value is. A text is sealed with a fresh nonce each time,
    and one that was changed is refused; that one sealed value was put in the place of another is not noticed.

    On a server it needs the extra `durably-web[crypto]`; in a browser it uses what that has.
    """

    def __init__(self, key: bytes | Sequence[bytes], inner: Codec | None = None) -> None:
        keys = [key] if isinstance(key, bytes) else list(key) if isinstance(key, list | tuple) else []
        if not keys or any(type(one) is not bytes or len(one) != _KEY_BYTES for one in keys):
            raise ValueError(
                f"a key is {_KEY_BYTES} random bytes, such as os.urandom({_KEY_BYTES}); pass one or several"
            )
        self._inner: Codec = JsonCodec() if inner is None else inner
        cipher = _BrowserCipher if sys.platform == "emscripten" else _NativeCipher
        self._ciphers: dict[str, _Cipher] = {_key_id(one): cipher(one) for one in keys}
        self._first = _key_id(keys[0])

    def __repr__(self) -> str:
        return f"<AesGcmCodec {', '.join(self._ciphers)}>"

    def encode(self, value: Any, /) -> str:
        return self._inner.encode(value)

    def decode(self, text: str, /) -> Any:
        return self._inner.decode(text)

    def _store(self, value: object) -> tuple[str, Any]:
        return store(value, self._inner)

    async def seal(self, texts: list[str], /) -> list[str]:
        """Each text under the first key, as `1:<key id>:<base64>`."""
        header = f"{_VERSION}:{self._first}:"
        nonces = [os.urandom(_NONCE_BYTES) for _ in texts]
        plain = [text.encode() for text in texts]
        sealed = await self._ciphers[self._first].encrypt(header.encode(), list(zip(nonces, plain, strict=True)))
        return [
            header + binascii.b2a_base64(nonce + body, newline=False).decode()
            for nonce, body in zip(nonces, sealed, strict=True)
        ]

    async def unseal(self, texts: list[str], /) -> list[str]:
        """What `seal` was given. Raises `DecryptionFailed`."""
        by_key: dict[str, list[int]] = {}
        bodies = []
        for index, text in enumerate(texts):
            version, _, rest = text.partition(":")
            key_id, _, body = rest.partition(":")
            if version != _VERSION:
                raise DecryptionFailed("the value was sealed by a newer durably_web: update it")
            if key_id not in self._ciphers:
                raise DecryptionFailed(
                    f"the value was sealed with the key {key_id}, and there are only {', '.join(self._ciphers)}: pass "
                    "that key too, AesGcmCodec([new_key, old_key])"
                )
            by_key.setdefault(key_id, []).append(index)
            try:
                bodies.append(binascii.a2b_base64(body, strict_mode=True))
            except ValueError:
                raise _changed() from None
        opened = [""] * len(texts)
        for key_id, indexes in by_key.items():
            parts = [(bodies[index][:_NONCE_BYTES], bodies[index][_NONCE_BYTES:]) for index in indexes]
            plain = await self._ciphers[key_id].decrypt(f"{_VERSION}:{key_id}:".encode(), parts)
            for index, data in zip(indexes, plain, strict=True):
                opened[index] = data.decode()
        return opened


def _changed() -> DecryptionFailed:
    return DecryptionFailed("a sealed value was changed after it was stored, or was cut off: restore the database")


def _key_id(key: bytes) -> str:
    # Not at the top: Pyodide takes its time to load it, and only this needs it.
    import hashlib

    return hashlib.sha256(b"durably_web key " + key).hexdigest()[:8]


class _Cipher(Protocol):
    """AES-256-GCM with one key, over pairs of a nonce and data."""

    async def encrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]: ...

    async def decrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]: ...


class _NativeCipher:
    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ImportError("AesGcmCodec needs the package cryptography: install durably-web[crypto]") from None
        self._aes = AESGCM(key)

    async def encrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
        return [self._aes.encrypt(nonce, data, header) for nonce, data in parts]

    async def decrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
        from cryptography.exceptions import InvalidTag

        try:
            return [self._aes.decrypt(nonce, data, header) for nonce, data in parts]
        except (InvalidTag, ValueError):
            raise _changed() from None


class _BrowserCipher:
    """WebCrypto: all values of a batch at once, in one crossing and back."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._imported: Any = None

    async def encrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
        return await self._each("encrypt", header, parts)

    async def decrypt(self, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
        from pyodide.ffi import JsException

        try:
            return await self._each("decrypt", header, parts)
        except JsException:
            raise _changed() from None

    async def _each(self, action: str, header: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
        from js import Object, Promise, crypto
        from pyodide.ffi import to_js

        if self._imported is None:
            usages = to_js(["encrypt", "decrypt"])
            self._imported = await crypto.subtle.importKey("raw", to_js(self._key), "AES-GCM", False, usages)
        act = getattr(crypto.subtle, action)
        promises = []
        for nonce, data in parts:
            # Copies, all of them: nothing of Python's is left over in JavaScript.
            how = {"name": "AES-GCM", "iv": nonce, "additionalData": header}
            promises.append(act(to_js(how, dict_converter=Object.fromEntries), self._imported, to_js(data)))
        buffers = await Promise.all(to_js(promises))
        return [buffer.to_bytes() for buffer in buffers]
