"""What the browser's worker seals before Python is up, Python opens; the other way round: tests/js/sealing.test.js."""

from __future__ import annotations

import pytest

from durably_web.encryption import AesGcmCodec
from durably_web.errors import DecryptionFailed
from durably_web.store.sealing import PREFIX

OLD, NEW = b"\1" * 32, b"\2" * 32

# Sealed by web/sealing.js.
BY_JAVASCRIPT = [
    (
        OLD,
        "sealed:1:5a991f1c:onfo6d1jsCaLXBKAE/Ziz760b2UaoE8qV2EHRPtp5G7q6qFN/2VyRPIEpzC3oVGKehfv",
        '{"word":"ü🦆\\u0000"}',
    ),
    (OLD, "sealed:1:5a991f1c:Pchd0CHrK8KEhYPXgXm44PUbez45D+mfHk8dpg==", ""),
    (
        NEW,
        "sealed:1:559b3eee:oMPi5/TJ1SMUw7jcxNIWyM3sqy7Y01JBsPIbzeNjVXrQ34KTzBaj7Q==",
        "\ufeff[1.0,\u2028]",
    ),
    (NEW, "sealed:1:559b3eee:uqAhSLeTVs21n18TVtC7LJVnpp5BXb7YZ0wzkcU0JsnxuKMyhg==", "sealed:1:"),
]


@pytest.mark.parametrize(("key", "sealed", "text"), BY_JAVASCRIPT)
async def test_what_javascript_sealed_is_opened(key: bytes, sealed: str, text: str) -> None:
    assert await AesGcmCodec([b"\3" * 32, key]).unseal([sealed.removeprefix(PREFIX)]) == [text]


async def test_the_header_is_part_of_what_is_sealed() -> None:
    _, sealed, _ = BY_JAVASCRIPT[0]
    with pytest.raises(DecryptionFailed, match="changed"):
        await AesGcmCodec([OLD, NEW]).unseal([sealed.removeprefix(PREFIX).replace("5a991f1c", "559b3eee")])
