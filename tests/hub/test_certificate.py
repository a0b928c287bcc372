"""`hub.certificate`: one rule from a certificate to a device, and fingerprints as people write them."""

from typing import Any

import pytest

from hub.certificate import check_fingerprint, first_fingerprint, read_certificate
from hub.errors import BadRequestError

DATES = {"notBefore": "Jan  1 00:00:00 2026 GMT", "notAfter": "Jan  1 00:00:10 2026 GMT"}
CN = "commonName"


@pytest.mark.parametrize(
    ("fields", "device", "namespace"),
    [
        pytest.param({"subject": (((CN, "pump"),),)}, "pump", "default", id="common name"),
        pytest.param(
            {"subject": ((("organizationName", "ACME"),), ((CN, "pump"),)), "subjectAltName": (("DNS", "other"),)},
            "pump", "default", id="common name before DNS",
        ),
        pytest.param(
            {"subject": (), "subjectAltName": (("IP Address", "192.0.2.1"), ("DNS", "pump"), ("DNS", "b"))},
            "pump", "default", id="first DNS name",
        ),
        pytest.param(
            {"subject": (((CN, "pump"),),), "subjectAltName": (("URI", "spiffe://x"), ("URI", "telemetry-hub:north"))},
            "pump", "north", id="namespace",
        ),
        pytest.param(
            {"subject": (((CN, "pump"),),), "subjectAltName": (("URI", "Telemetry-Hub:North"),)},
            "pump", "North", id="scheme in capitals",
        ),
        pytest.param(
            {"subject": (((CN, "a"),),), "subjectAltName": (("URI", "telemetry-hub:x"), ("URI", "telemetry-hub:y"))},
            "", "x", id="two namespaces",
        ),
        pytest.param({"subject": (((CN, "a"),), ((CN, "b"),))}, "", "default", id="two common names"),
        pytest.param({}, "", "default", id="no name"),
    ],
)  # fmt: skip
def test_name_and_namespace(fields: dict[str, Any], device: str, namespace: str) -> None:
    """The common name, else the first DNS name; the namespace from a URI of ours, else the default one."""
    found = read_certificate({**DATES, **fields}, b"der")

    assert (found.device, found.namespace) == (device, namespace)


def test_dates_and_fingerprint() -> None:
    """Dates are epoch nanoseconds, the fingerprint is the SHA-256 of the whole certificate."""
    found = read_certificate(DATES, b"")

    assert (found.begins_ns, found.ends_ns) == (1_767_225_600_000_000_000, 1_767_225_610_000_000_000)
    assert found.fingerprint == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_fingerprints_as_tools_print_them() -> None:
    """Upper case, colons and a prefix are taken; anything else is said to be none."""
    assert check_fingerprint("SHA256:" + ":".join(["AB"] * 32)) == "ab" * 32
    with pytest.raises(BadRequestError, match="64 hex digits"):
        check_fingerprint("ab" * 20)


@pytest.mark.parametrize(
    "pem",
    ["", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----\nA",
     "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"],
    ids=["empty", "key", "cut off", "no base64"],
)  # fmt: skip
def test_no_certificate_has_no_fingerprint(pem: str) -> None:
    """A fingerprint that is made up would be revoked in the place of the right one."""
    assert first_fingerprint(pem) is None


def test_first_certificate_of_a_chain_counts() -> None:
    """Whatever stands before it and whatever follows."""
    first, second = (f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in ("", "AAAA"))

    assert first_fingerprint("text\n" + first + second) == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
