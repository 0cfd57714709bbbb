"""XXH3 of 64 bits, as its specification has it: what seals an entry that is not signed.

Slow and short. It shares no code with the hash of the core, so each can be checked by the other.
"""

from __future__ import annotations

import struct

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)

MASK = 2**64 - 1
PRIME32_1, PRIME32_2, PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIME64_1, PRIME64_2, PRIME64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
PRIME64_4, PRIME64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
PRIME_MX1, PRIME_MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25

STRIPE, STEP, LAST = 64, 8, 7


def xxh3(data: bytes, seed: int = 0) -> int:
    """The hash of `data`."""
    if len(data) <= 16:
        return _short(data, seed)
    if len(data) <= 240:
        return _medium(data, seed)
    return _long(data, seed)


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _u64(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", data, at)[0])


def _fold(one: int, other: int) -> int:
    product = one * other
    return product & MASK ^ product >> 64


def _swap(number: int, size: int) -> int:
    return int.from_bytes(number.to_bytes(size, "little"), "big")


def _rotate(number: int, by: int) -> int:
    return (number << by | number >> 64 - by) & MASK


def _avalanche(number: int) -> int:
    number = (number ^ number >> 37) * PRIME_MX1 & MASK
    return number ^ number >> 32


def _avalanche_64(number: int) -> int:
    number = (number ^ number >> 33) * PRIME64_2 & MASK
    number = (number ^ number >> 29) * PRIME64_3 & MASK
    return number ^ number >> 32


def _short(data: bytes, seed: int) -> int:
    length = len(data)
    if length == 0:
        return _avalanche_64(seed ^ _u64(SECRET, 56) ^ _u64(SECRET, 64))
    if length <= 3:
        first, middle, last = data[0], data[length >> 1], data[-1]
        combined = first << 16 | middle << 24 | last | length << 8
        flip = (_u32(SECRET, 0) ^ _u32(SECRET, 4)) + seed & MASK
        return _avalanche_64(combined ^ flip)
    if length <= 8:
        seed ^= _swap(seed & 0xFFFFFFFF, 4) << 32
        flip = (_u64(SECRET, 8) ^ _u64(SECRET, 16)) - seed & MASK
        mixed = (_u32(data, length - 4) + (_u32(data, 0) << 32)) ^ flip
        mixed ^= _rotate(mixed, 49) ^ _rotate(mixed, 24)
        mixed = mixed * PRIME_MX2 & MASK
        mixed = (mixed ^ (mixed >> 35) + length) * PRIME_MX2 & MASK
        return mixed ^ mixed >> 28
    low = _u64(data, 0) ^ (_u64(SECRET, 24) ^ _u64(SECRET, 32)) + seed & MASK
    high = _u64(data, length - 8) ^ (_u64(SECRET, 40) ^ _u64(SECRET, 48)) - seed & MASK
    return _avalanche(length + _swap(low, 8) + high + _fold(low, high) & MASK)


def _mix(data: bytes, at: int, secret: int, seed: int) -> int:
    low, high = _u64(SECRET, secret) + seed & MASK, _u64(SECRET, secret + 8) - seed & MASK
    return _fold(_u64(data, at) ^ low, _u64(data, at + 8) ^ high)


def _medium(data: bytes, seed: int) -> int:
    length = len(data)
    total = length * PRIME64_1
    if length <= 128:
        for pair in range((length - 1) // 32, -1, -1):
            total += _mix(data, 16 * pair, 32 * pair, seed)
            total += _mix(data, length - 16 * (pair + 1), 32 * pair + 16, seed)
        return _avalanche(total & MASK)
    for part in range(8):
        total += _mix(data, 16 * part, 16 * part, seed)
    total = _avalanche(total & MASK)
    for part in range(8, length // 16):
        total += _mix(data, 16 * part, 16 * (part - 8) + 3, seed)
    return _avalanche(total + _mix(data, length - 16, 136 - 17, seed) & MASK)


def _long(data: bytes, seed: int) -> int:
    words = struct.unpack("<24Q", SECRET)
    # Added to the even ones, and taken from the odd.
    seeded = [word + (-seed if at % 2 else seed) & MASK for at, word in enumerate(words)]
    secret = struct.pack("<24Q", *seeded)
    sums = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1]

    def accumulate(at: int, key_at: int) -> None:
        for lane in range(8):
            value = _u64(data, at + 8 * lane)
            keyed = value ^ _u64(secret, key_at + 8 * lane)
            sums[lane ^ 1] = sums[lane ^ 1] + value & MASK
            sums[lane] = sums[lane] + (keyed & 0xFFFFFFFF) * (keyed >> 32) & MASK

    block = (len(secret) - STRIPE) // STEP
    stripes = (len(data) - 1) // STRIPE
    for stripe in range(stripes):
        accumulate(STRIPE * stripe, STEP * (stripe % block))
        if stripe % block == block - 1:
            for lane in range(8):
                mixed = sums[lane] ^ sums[lane] >> 47
                mixed ^= _u64(secret, len(secret) - STRIPE + 8 * lane)
                sums[lane] = mixed * PRIME32_1 & MASK
    accumulate(len(data) - STRIPE, len(secret) - STRIPE - LAST)
    total = len(data) * PRIME64_1
    for lane in range(0, 8, 2):
        one = sums[lane] ^ _u64(secret, 11 + 8 * lane)
        total += _fold(one, sums[lane + 1] ^ _u64(secret, 19 + 8 * lane))
    return _avalanche(total & MASK)
