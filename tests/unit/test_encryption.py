"""Sealing texts, and what is refused."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably_web import codec
from durably_web.encryption import AesGcmCodec
from durably_web.errors import DecryptionFailed, NotSerializable

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
TEXTS = ["", "a", '{"word":"ü🦆\\u0000"}', "x" * 100_000, "sealed:1:"]


@given(st.lists(st.text(st.characters(codec="utf-8"))))
async def test_what_was_sealed_comes_back(texts: list[str]) -> None:
    cipher = AesGcmCodec(OLD)
    assert await cipher.unseal(await cipher.seal(texts)) == texts


async def test_nothing_of_a_text_can_be_seen() -> None:
    cipher = AesGcmCodec(OLD)
    sealed = await cipher.seal(["canary", "canary"])
    assert "canary" not in str(sealed)
    assert sealed[0] != sealed[1], "equal values must not look alike"
    assert all(text.isascii() and text.startswith("1:") for text in sealed)
    assert "canary" not in repr(cipher) and OLD.hex() not in repr(cipher)


async def test_keys_can_be_replaced_one_after_another() -> None:
    before = await AesGcmCodec(OLD).seal(TEXTS)
    between = AesGcmCodec([NEW, OLD])
    after = await between.seal(TEXTS)
    assert await between.unseal([*before, *after, before[1]]) == [*TEXTS, *TEXTS, TEXTS[1]]
    assert await AesGcmCodec(NEW).unseal(after) == TEXTS
    with pytest.raises(DecryptionFailed, match="pass that key too"):
        await AesGcmCodec(NEW).unseal([*after, *before])


def changes(sealed: str) -> list[str]:
    version, key, body = sealed.split(":")
    swapped = "B" if body[20] == "A" else "A"
    return [
        f"{version}:{key}:{body[:20]}{swapped}{body[21:]}",
        f"{version}:{key}:{body[:-8]}",
        f"{version}:{key}:{body[4:]}",
        f"{version}:{key}:",
        f"{version}:{key}:?",
        f"{version}:{key}",
    ]


async def test_a_changed_text_is_refused() -> None:
    cipher = AesGcmCodec(OLD)
    [sealed] = await cipher.seal(["a value that matters"])
    for changed in changes(sealed):
        with pytest.raises(DecryptionFailed, match="changed after it was stored"):
            await cipher.unseal([sealed, changed])
    with pytest.raises(DecryptionFailed, match="newer durably_web"):
        await cipher.unseal([sealed.replace("1:", "2:", 1)])


async def test_a_text_is_bound_to_its_key() -> None:
    [sealed] = await AesGcmCodec(OLD).seal(["a"])
    [other] = await AesGcmCodec(OTHER).seal(["a"])
    forged = ":".join([*other.split(":")[:2], sealed.split(":")[2]])
    with pytest.raises(DecryptionFailed):
        await AesGcmCodec([OLD, OTHER]).unseal([forged])


def test_values_are_encoded_by_the_codec_inside() -> None:
    cipher = AesGcmCodec(OLD)
    value = {"ids": {1, 2}, "pair": (1, b"")}
    assert cipher.decode(cipher.encode(value)) == value
    assert codec.store(value, cipher) == codec.store(value)
    with pytest.raises(NotSerializable):
        cipher.encode(object())

    class Upper:
        def encode(self, value: object, /) -> str:
            return str(value).upper()

        def decode(self, text: str, /) -> object:
            return text.lower()

    assert AesGcmCodec(OLD, Upper()).encode("a") == "A"


def test_without_the_key_it_says_what_is_missing() -> None:
    with pytest.raises(DecryptionFailed, match=r"Durably\(codec=AesGcmCodec\(key\)\)"):
        codec.decode("sealed:1:00000000:AAAA")


@pytest.mark.parametrize("key", [b"", b"short", "0" * 32, [], [OLD, b"short"], bytearray(32), 32, None])
def test_what_is_no_key_is_refused(key: object) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        AesGcmCodec(key)  # type: ignore[arg-type]
    assert "32 random bytes" in str(raised.value)


def test_without_cryptography_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ImportError, match=r"durably-web\[crypto\]"):
        AesGcmCodec(OLD)


async def test_each_text_has_a_nonce_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = os.urandom

    def urandom(size: int) -> bytes:
        taken.append(size)
        return real(size)

    monkeypatch.setattr(os, "urandom", urandom)
    cipher = AesGcmCodec(OLD)
    await cipher.seal(["a", "b"])
    await cipher.seal(["a"])
    assert taken == [12, 12, 12]
