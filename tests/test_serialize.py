"""What becomes of values and entries on their way through a store: docs/format.md, from Python."""

from __future__ import annotations

import collections
import enum
import json
import math
import re
import types
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from onetrip import BadKeyError, Cache, SerializationError
from tests.values import form, values
from tests.xxh3 import xxh3

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import OpenCache, Raw

VECTORS = json.loads((Path(__file__).parent.parent / "docs/format-vectors.json").read_text())

MISSING = object()

# The containers that may stand around a value, as docs/format.md has it.
DEEPEST = 200

NAME = "test:a"


def seal(payload: bytes, content: int, name: str = NAME) -> bytes:
    """An entry that is whole, whatever its payload is."""
    preamble = bytes([0xC1, 2, content, 0])
    checksum = xxh3(payload, xxh3(name.encode(), int.from_bytes(preamble, "little")))
    return preamble + checksum.to_bytes(8, "little") + payload


def is_miss(cache: Cache, key: str = "a") -> None:
    """Fail unless the entry of `key` is a bad one, however it is read."""
    reads: list[Callable[[], bool]] = [
        lambda: cache.get(key, MISSING) is MISSING,
        lambda: key not in cache,
        lambda: cache.get_many([key]) == {},
    ]
    for number, read in enumerate(reads, 1):
        cache.reset_stats()
        assert read(), number
        stats = cache.stats()
        assert (stats.bad_entries, stats.misses, stats.hits, stats.errors) == (1, 1, 0, 0)
    cache.reset_stats()
    with cache.preload(key):
        assert cache.get(key, MISSING) is MISSING
    assert cache.stats().bad_entries >= 1
    assert cache.stats().hits == 0


class TestRoundTrips:
    @given(value=values)
    @example(value=-0.0)
    @example(value=math.nan)
    @example(value=[2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
    @example(value=datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1))
    @example(value=datetime(2026, 10, 25, 2, 30, fold=1))  # noqa: DTZ001 - it has no zone
    @example(value=time(2, 30, fold=1))
    @example(value=time(2, 30, tzinfo=timezone.utc, fold=1))
    # A time that the clock left out: it belongs to neither side, and still is what it is.
    @example(value=datetime(2026, 3, 29, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1))
    @example(value=Decimal("sNaN"))
    @example(value=Markup("<b>"))
    @example(value={"a": 1, 1: "a", None: (), (): None, frozenset([1]): {2}})
    def test_value_is_returned_unchanged(self, cache: Cache, value: Any) -> None:
        cache.set("a", value)
        assert form(cache["a"]) == form(value)
        # Alone, some values are written otherwise than within others.
        cache.set("a", [value])
        with cache.preload("a"):
            assert form(cache["a"]) == form([value])
            assert form(cache["a"]) == form([value])

    @given(value=values)
    def test_value_set_in_a_scope(self, cache: Cache, value: Any) -> None:
        with cache.scope():
            cache.set("a", value)
            assert form(cache["a"]) == form(value)
            assert form(cache.get_many(["a"])["a"]) == form(value)

    @given(value=values, compression=st.sampled_from(["zstd", "lz4"]))
    def test_signed_and_compressed_entries(
        self, open_cache: OpenCache, value: Any, compression: str
    ) -> None:
        cache = open_cache(secret="s", compression=compression, compression_min=0)
        cache.set("a", [value] * 5)
        assert form(cache["a"]) == form([value] * 5)
        cache.close()

    def test_dict_order_is_kept(self, cache: Cache) -> None:
        cache.set("a", {str(number): number for number in reversed(range(100))})
        assert list(cache["a"].values()) == list(reversed(range(100)))

    def test_large_values(self, cache: Cache) -> None:
        for size in (255, 256, 65_535, 65_536, 1_000_000):
            large = {"text": "é" * size, "bytes": b"\xff" * size, "list": [None] * size}
            cache.set("a", (large, bytearray(size), 256**size))
            assert cache["a"] == (large, bytearray(size), 256**size)


def _inside(wrap: Callable[[Any], Any], leaf: Any, times: int) -> Any:
    for _ in range(times):
        leaf = wrap(leaf)
    return leaf


WRAPS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "list": (lambda inner: [inner], 1),
    "dict": (lambda inner: {"k": inner}, 1),
    # A tag is a level of its own.
    "tuple": (lambda inner: (inner,), 2),
    "frozenset": (lambda inner: frozenset([inner]), 2),
}
LEAVES: list[Any] = [
    *[1, 2**64, None, "text", b"", 1.5, Decimal(1), UUID(int=1), Markup("x")],
    *[date(2026, 1, 1), time(1), datetime(2026, 1, 1, tzinfo=timezone.utc), (), frozenset()],
]


class TestDepth:
    @pytest.mark.parametrize("kind", WRAPS)
    @pytest.mark.parametrize("leaf", LEAVES, ids=repr)
    def test_accepted_depth_can_be_read(self, cache: Cache, kind: str, leaf: Any) -> None:
        wrap, levels = WRAPS[kind]
        fits = []
        for count in range(DEEPEST // levels - 2, DEEPEST // levels + 2):
            value = _inside(wrap, leaf, count)
            try:
                cache.set("a", value)
            except SerializationError as error:
                assert "nests deeper than 200 containers" in str(error)  # noqa: PT017 - or it fits
            else:
                fits.append(count)
                assert cache["a"] == value
        first = DEEPEST // levels - 2
        assert fits == list(range(first, first + len(fits)))
        assert 1 <= len(fits) <= 3

    def test_limit_is_the_documented_one(self, cache: Cache) -> None:
        cache.set("a", _inside(lambda inner: [inner], 1, DEEPEST))
        with pytest.raises(SerializationError, match="nests deeper than 200 containers"):
            cache.set("a", _inside(lambda inner: [inner], 1, DEEPEST + 1))
        assert cache["a"] == _inside(lambda inner: [inner], 1, DEEPEST)

    def test_recursive_value_raises(self, cache: Cache) -> None:
        a: list[Any] = []
        a.append(a)
        b: dict[str, Any] = {}
        b["b"] = [({"c": b},)]
        for value in (a, b, [a], (b,)):
            with pytest.raises(SerializationError, match="or contains itself"):
                cache.set("a", value)
        assert "a" not in cache


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Zone(tzinfo):
    """A zone that has no name to find it by."""

    def utcoffset(self, _moment: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _moment: datetime | None, /) -> None:
        return None

    def tzname(self, _moment: datetime | None, /) -> None:
        return None


def derived(base: type, *args: Any) -> Any:
    """An instance of a class that inherits `base`: it would come back as something else."""
    return type(f"Derived{base.__name__.title()}", (base,), {})(*args)


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - a plain one, without types

REFUSED: list[tuple[Any, str]] = [
    (object(), "object"),
    (1j, "complex"),
    (range(3), "range"),
    (print, "builtin_function_or_method"),
    (lambda: 1, "function"),
    (iter([]), "list_iterator"),
    (memoryview(b""), "memoryview"),
    (type, "type"),
    (json, "module"),
    (ValueError("x"), "ValueError"),
    (..., "ellipsis"),
    (types.MappingProxyType({}), "mappingproxy"),
    (collections.OrderedDict(), "collections.OrderedDict"),
    (collections.defaultdict(), "collections.defaultdict"),
    (collections.Counter(), "collections.Counter"),
    (collections.deque(), "collections.deque"),
    (Point(1, 2), "Point"),
    (Colour.RED, "Colour"),
    (Number.ONE, "Number"),
    (re.compile("x"), "Pattern"),
    (ZoneInfo("UTC"), "ZoneInfo"),
    (timezone.utc, "timezone"),
    (datetime(2026, 1, 1, tzinfo=Zone()), "datetime.datetime"),
    (time(1, tzinfo=ZoneInfo("Europe/Berlin")), "datetime.time"),
    *[
        (derived(base, *args), f"Derived{base.__name__.title()}")
        for base, args in [
            (str, ()),
            (bytes, ()),
            (bytearray, ()),
            (int, ()),
            (float, ()),
            (list, ()),
            (tuple, ()),
            (dict, ()),
            (set, ()),
            (frozenset, ()),
            (date, (2026, 1, 1)),
            (datetime, (2026, 1, 1)),
            (time, ()),
            (timedelta, ()),
            (Decimal, ()),
            (Markup, ()),
        ]
    ],
]


class TestRefusedValues:
    @pytest.mark.parametrize(("value", "named"), REFUSED, ids=[named for _, named in REFUSED])
    def test_error_names_the_type_and_what_to_do(
        self, cache: Cache, value: Any, named: str
    ) -> None:
        for within in (value, [value], {"k": (1, value)}):
            for write in (
                lambda within: cache.set("a", within),
                lambda within: cache.set_many({"a": within}),
                lambda within: cache.add("a", within),
                lambda within: cache.get_or_set("a", lambda: within),
            ):
                with pytest.raises(SerializationError) as caught:
                    write(within)
                assert f"{named} cannot be cached as it is: convert it" in str(caught.value)
                assert 'serializer="pickle" and a secret' in str(caught.value)
        assert "a" not in cache

    @pytest.mark.parametrize(
        "value", ["\ud800", "a\udfffb", ["\ud800"], {"\ud800": 1}, ("\ud800",)]
    )
    def test_lone_surrogates_raise(self, cache: Cache, value: Any) -> None:
        with pytest.raises(SerializationError, match="lone surrogates, which UTF-8 cannot hold"):
            cache.set("a", value)

    def test_class_with_an_odd_module_raises(self, cache: Cache) -> None:
        class Odd(tzinfo):
            __module__ = 5  # type: ignore[assignment]  # nothing forbids it

            def utcoffset(self, _moment: datetime | None, /) -> None: ...
            def dst(self, _moment: datetime | None, /) -> None: ...
            def tzname(self, _moment: datetime | None, /) -> None: ...

        for value in (Odd(), datetime(2026, 1, 1, tzinfo=Odd()), time(1, tzinfo=Odd())):
            with pytest.raises(SerializationError, match="cannot be cached as it is"):
                cache.set("a", value)
        with pytest.raises(BadKeyError, match=r"not .*Odd"):
            cache.get(Odd())  # type: ignore[call-overload]  # no key

    def test_error_is_a_type_error(self, cache: Cache) -> None:
        with pytest.raises(TypeError):
            cache["a"] = object()


def _read(value: Any) -> Any:
    """A value of the vectors, as their `about` explains."""
    if isinstance(value, list):
        return [_read(item) for item in value]
    if isinstance(value, dict):
        [*only] = value.items()
        if len(only) == 1 and only[0][0].startswith("$"):
            (mark, inner) = only[0]
            return READ[mark](inner)
        return {key: _read(item) for key, item in value.items()}
    return value


def _datetime(text: str) -> datetime:
    moment, _, zone = text.partition("[")
    read = datetime.fromisoformat(moment)
    return read.replace(tzinfo=ZoneInfo(zone.rstrip("]"))) if zone else read


READ: dict[str, Callable[[Any], Any]] = {
    "$bytes": bytes.fromhex,
    "$bytearray": bytearray.fromhex,
    "$float": float,
    "$integer": int,
    "$map": lambda pairs: {_read(key): _read(value) for key, value in pairs},
    "$tuple": lambda items: tuple(map(_read, items)),
    "$set": lambda items: set(map(_read, items)),
    "$frozenset": lambda items: frozenset(map(_read, items)),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$datetime": _datetime,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$markup": Markup,
}

# A key of Python is text, so one name of the vectors is none that it could use.
GOOD = [vector for vector in VECTORS["good"] if "name" in vector]
BAD = VECTORS["bad"]


def _opened(open_cache: OpenCache, vector: dict[str, Any]) -> tuple[Cache, str]:
    """A cache that a vector is an entry of, and its key."""
    prefix, _, key = vector["name"].partition(":")
    serializer = "pickle" if vector.get("kind") == "pickle" else "native"
    return open_cache(prefix=prefix, secret=vector["secret"], serializer=serializer), key


class TestVectors:
    def test_no_vector_is_missing(self) -> None:
        assert len(VECTORS["good"]) - len(GOOD) == 1
        assert len(GOOD) > 40
        assert len(BAD) > 60

    @pytest.mark.parametrize("vector", GOOD, ids=lambda vector: vector["title"])
    def test_good_vectors_are_read(
        self, open_cache: OpenCache, raw: Raw, vector: dict[str, Any]
    ) -> None:
        cache, key = _opened(open_cache, vector)
        raw[vector["name"]] = bytes.fromhex(vector["entry"])
        assert form(cache[key]) == form(_read(vector["value"]))
        with cache.preload(key):
            assert form(cache[key]) == form(_read(vector["value"]))
        assert cache.stats().bad_entries == 0

    @pytest.mark.parametrize(
        "vector",
        # Compressors are free to find a shorter form, what native holds is not pickled, and a plain
        # write tells no fields.
        [
            v
            for v in GOOD
            if v["compression"] is None and v["kind"] != "pickle" and "fields" not in v
        ],
        ids=lambda vector: vector["title"],
    )
    def test_good_vectors_are_written(
        self, open_cache: OpenCache, raw: Raw, vector: dict[str, Any]
    ) -> None:
        cache, key = _opened(open_cache, vector)
        cache.set(key, _read(vector["value"]))
        assert raw[vector["name"]].hex() == vector["entry"]

    @pytest.mark.parametrize("vector", BAD, ids=lambda vector: vector["title"])
    def test_bad_vectors_are_misses(
        self, open_cache: OpenCache, raw: Raw, vector: dict[str, Any]
    ) -> None:
        cache, key = _opened(open_cache, vector)
        raw[vector["name"]] = bytes.fromhex(vector["entry"])
        is_miss(cache, key)
        # What cannot be read can be replaced.
        cache.set(key, "good")
        assert cache[key] == "good"


def _is_integer(entry: bytes) -> bool:
    return re.fullmatch(rb"0|-?[1-9][0-9]*", entry) is not None and -(2**63) <= int(entry) < 2**63


class Damage(NamedTuple):
    """What happens to an entry: some bits of one byte flip, and its end is cut off."""

    at: int
    bits: int
    cut: int = 0

    def __call__(self, entry: bytes) -> bytes:
        changed = bytearray(entry)
        changed[self.at % len(entry)] ^= self.bits
        return bytes(changed[: len(entry) - self.cut % len(entry)])


damages = st.builds(
    Damage, st.integers(0, 1000), st.integers(1, 255), st.sampled_from([0, 0, 1, 7, 40])
)


class TestBadBytes:
    @given(entry=st.one_of(st.binary(max_size=60), st.from_regex(rb"[ +-]?[0-9]{0,25}\n?")))
    def test_random_bytes_are_misses(self, cache: Cache, raw: Raw, entry: bytes) -> None:
        raw[NAME] = entry
        if _is_integer(entry):
            assert cache["a"] == int(entry)
        else:
            is_miss(cache)

    @given(entry=st.binary(max_size=40).map(lambda rest: b"\xc1\x02" + rest))
    def test_bytes_with_a_valid_beginning_are_misses(
        self, open_cache: OpenCache, raw: Raw, entry: bytes
    ) -> None:
        raw[NAME] = entry
        for secret in (None, "s"):
            cache = open_cache(secret=secret)
            is_miss(cache)
            cache.close()

    @given(
        value=values.filter(lambda value: type(value) is not int),
        secret=st.sampled_from([None, "secret"]),
        damage=damages,
    )
    def test_damaged_entries_are_misses(
        self, open_cache: OpenCache, raw: Raw, *, value: Any, secret: str | None, damage: Damage
    ) -> None:
        cache = open_cache(secret=secret)
        cache.set("a", value)
        changed = damage(raw[NAME])
        raw[NAME] = changed
        if not _is_integer(changed):
            is_miss(cache)
        cache.close()

    def test_every_flipped_bit_is_a_miss(self, open_cache: OpenCache, raw: Raw) -> None:
        for secret in (None, "secret"):
            cache = open_cache(secret=secret)
            cache.set("a", {"k": [1, "text"]})
            entry = raw[NAME]
            for bit in range(len(entry) * 8):
                raw[NAME] = Damage(bit // 8, 1 << bit % 8)(entry)
                cache.reset_stats()
                assert cache.get("a", MISSING) is MISSING, bit
                assert cache.stats().bad_entries == 1
            for length in range(len(entry)):
                raw[NAME] = entry[:length]
                assert cache.get("a", MISSING) is MISSING, length
            raw[NAME] = entry
            assert cache["a"] == {"k": [1, "text"]}

    @given(payload=st.binary(max_size=60), kind=st.integers(0, 15), compression=st.integers(0, 3))
    @example(payload=b"\x81\x90\xc0", kind=2, compression=0)  # a list is no key of a dict
    @example(payload=b"\xc7\x03\x02\x91\x91\xc0", kind=2, compression=0)  # nor an item of a set
    @example(payload=b"\xc7\x03\x05\xa2xy", kind=2, compression=0)  # no decimal number
    @example(payload=b"\xc7\x03\x07\xa2xy", kind=2, compression=0)  # no date and time
    @example(payload=b"\xc7\x02\x06\xc4\x00", kind=2, compression=0)  # no UUID
    @example(payload=b"\xc7\x01\x7f\xc0", kind=2, compression=0)  # an unknown tag
    def test_signed_garbage_is_not_an_error(
        self, cache: Cache, raw: Raw, payload: bytes, kind: int, compression: int
    ) -> None:
        raw[NAME] = seal(payload, compression << 4 | kind)
        found = cache.get("a", MISSING)
        stats = cache.stats()
        assert (found is MISSING) == (stats.bad_entries == 1)
        assert stats.errors == 0
        assert ("a" in cache) == (found is not MISSING)
        if kind == 3 or kind > 3 or compression == 3:
            assert found is MISSING
        elif (kind, compression) == (0, 0):
            assert found == payload
        elif found is not MISSING:
            # What was read is a value like any other.
            cache.set("a", found)
            assert form(cache["a"]) == form(found)
        cache.reset_stats()

    @pytest.mark.parametrize(
        "text",
        [
            "2026-07-01T12:00:00+02:00[Nowhere/Land]",
            "2026-07-01T12:00:00+02:00[../../etc/passwd]",
            "2026-07-01T12:00:00+02:00[/etc/passwd]",
            "2026-07-01T12:00:00+02:00[]",
            "2026-07-01T12:00:00+02:00[_fold=1",
            "2026-07-01T12:00:00[_fold=2]",
            "0001-01-01T00:00:00+23:59[America/New_York]",
            "9999-99-99",
            "",
        ],
    )
    def test_invalid_times_are_misses(self, cache: Cache, raw: Raw, text: str) -> None:
        inner = b"\xd9" + bytes([len(text)]) + text.encode()
        raw[NAME] = seal(b"\xc7" + bytes([len(inner)]) + b"\x07" + inner, 2)
        is_miss(cache)

    def test_instant_survives_changed_zone_rules(self, cache: Cache, raw: Raw) -> None:
        text = b"2026-07-01T12:00:00+05:00[Europe/Berlin]"
        inner = b"\xd9" + bytes([len(text)]) + text
        raw[NAME] = seal(b"\xc7" + bytes([len(inner)]) + b"\x07" + inner, 2)
        assert cache["a"] == datetime(2026, 7, 1, 7, tzinfo=timezone.utc)
        assert cache["a"].tzinfo is ZoneInfo("Europe/Berlin")
        assert cache["a"].hour == 9


CODES = {"zstd": 1, "lz4": 2}


@pytest.mark.parametrize("compression", CODES)
class TestCompression:
    def test_makes_entries_smaller(self, open_cache: OpenCache, raw: Raw, compression: str) -> None:
        cache = open_cache(compression=compression)
        for value in ("a" * 5000, b"a" * 5000, ["a"] * 5000, {"k": "a" * 5000}):
            cache.set("a", value)
            assert raw[NAME][2] >> 4 == CODES[compression]
            assert len(raw[NAME]) < 300
            assert cache["a"] == value
            # Whoever reads needs no such option.
            assert open_cache()["a"] == value

    @pytest.mark.parametrize("least", [0, 1, 1000, 1024])
    def test_begins_at_its_threshold(
        self, open_cache: OpenCache, raw: Raw, compression: str, least: int
    ) -> None:
        options = {} if least == 1024 else {"compression_min": least}
        cache = open_cache(compression=compression, **options)
        for length in (max(least, 200) - 1, max(least, 200)):
            cache.set("a", "a" * length)
            assert (raw[NAME][2] >> 4 > 0) is (length >= least)
            assert cache["a"] == "a" * length

    def test_incompressible_values_are_left_alone(
        self, open_cache: OpenCache, raw: Raw, compression: str
    ) -> None:
        cache = open_cache(compression=compression, compression_min=0)
        for value in ("", "a", bytes(range(256))):
            cache.set("a", value)
            assert raw[NAME][2] >> 4 == 0
            assert cache["a"] == value

    def test_integers_are_not_compressed(
        self, open_cache: OpenCache, raw: Raw, compression: str
    ) -> None:
        cache = open_cache(compression=compression, compression_min=0)
        cache.set("a", 10**15)
        assert raw[NAME] == b"1000000000000000"
        assert cache.incr("a") == 10**15 + 1

    def test_expansion_is_limited(self, open_cache: OpenCache, raw: Raw, compression: str) -> None:
        cache = open_cache(compression=compression)
        cache.set("a", "a" * 100_000)
        entry = raw[NAME]
        payload = entry[12:]
        assert payload[:4] == (100_000).to_bytes(4, "little")
        for claimed in (0, 1, 99_999, 100_001, 128 << 20, (128 << 20) + 1, 2**32 - 1):
            raw[NAME] = seal(claimed.to_bytes(4, "little") + payload[4:], entry[2])
            is_miss(cache)
        raw[NAME] = seal(payload, entry[2])
        assert cache["a"] == "a" * 100_000

    @given(damage=damages)
    def test_damaged_but_resealed_entry_is_not_an_error(
        self, open_cache: OpenCache, raw: Raw, compression: str, damage: Damage
    ) -> None:
        cache = open_cache(compression=compression)
        cache.set("a", ["some text", 1, None] * 200)
        entry = raw[NAME]
        raw[NAME] = seal(damage(entry[12:]), entry[2])
        found = cache.get("a", MISSING)
        assert (found is MISSING) == (cache.stats().bad_entries == 1)
        cache.close()


class TestRawSerializerInterchange:
    def test_reads_bytes_of_other_programs(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(serializer="raw")
        for entry in (b"", b"text", b"\xc1", b"\xc1\x02\x03\x00", b"\x80\x05N.", b"12", b"-0"):
            raw[NAME] = entry
            assert cache["a"] == entry
            assert cache.get_many(["a"]) == {"a": entry}
            with cache.preload("a"):
                assert cache["a"] == entry
        assert cache.stats().bad_entries == 0

    @given(value=st.binary(max_size=100))
    def test_writes_bytes_unchanged(self, open_cache: OpenCache, raw: Raw, value: bytes) -> None:
        cache = open_cache(serializer="raw")
        cache.set("a", value)
        assert raw[NAME] == value
        assert cache["a"] == value
        cache.close()
