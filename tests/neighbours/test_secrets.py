"""Secrets of service tokens come to the key that the other services compute from them."""

import random
import string

import pytest

from inference.auth.signing import secret_bytes

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits
N_SECRETS = 5000


def lenient(text: str, last_two: str) -> bytes | None:
    """Decode base64 as the services' language does without validation; None: it refuses.

    Characters outside of the alphabet are dropped; complete padding ends the text, an incomplete group is an error.
    """
    if not text.isascii():
        return None
    alphabet = ALPHABET + last_two
    if last_two == "-_":  # both forms are read then
        text = text.replace("-", "+").replace("_", "/")
        alphabet = ALPHABET + "+/"
    bits, n_group, n_pads = "", 0, 0
    for character in text + "=" * (-len(text) % 4):
        if character == "=":
            n_pads += n_group >= 2
            if n_group >= 2 and n_group + n_pads >= 4:
                return _whole_bytes(bits)
        elif character in alphabet:
            bits += f"{alphabet.index(character):06b}"
            n_group, n_pads = (n_group + 1) % 4, 0
    return None if n_group else _whole_bytes(bits)


def _whole_bytes(bits: str) -> bytes:
    return bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits) // 8 * 8, 8))


def key_of_the_others(secret: str) -> bytes:
    for last_two in ("-_", "+/"):
        decoded = lenient(secret.strip(), last_two)
        if decoded is not None and len(decoded) >= 32:
            return decoded
    return secret.strip().encode()


@pytest.mark.parametrize(
    ("characters", "lengths"),
    [
        (ALPHABET + string.punctuation, (32, 96)),
        (ALPHABET + "!@#$%^&*-_=+", (32, 64)),
        (ALPHABET + "-_", (32, 96)),
        (ALPHABET + "+/=", (43, 90)),
        (string.printable.strip() + "äß€", (40, 80)),
    ],
)
def test_random_secrets(characters: str, lengths: tuple[int, int]) -> None:
    generator = random.Random(21)
    secrets = ["".join(generator.choices(characters, k=generator.randint(*lengths))) for _ in range(N_SECRETS)]
    differing = [secret for secret in secrets if secret_bytes("JWT_SECRET", secret) != key_of_the_others(secret)]
    assert differing == []


def test_the_spaces_around_a_secret_do_not_count() -> None:
    assert secret_bytes("JWT_SECRET", f" {'!' * 40}\n") == b"!" * 40
