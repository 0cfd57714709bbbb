"""Law 8: no code from the cache. Pickles are opened on demand alone, and only signed ones."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onetrip import Cache, ConfigurationError, SerializationError
from tests.xxh3 import xxh3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import OpenCache, Raw

SECRET = "correct horse"
OTHER = "battery staple"
NAME = "test:a"
MISSING = object()

# What ran, which nothing should have.
ran: list[str] = []


def run(what: str) -> str:
    ran.append(what)
    return what


class Evil:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return run, ("evil",)


class Point:
    """An instance of a program's own class."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


class Fragile:
    """What raises, as the class attribute says, when it is unpickled."""

    error: BaseException | None = None

    def __reduce__(self) -> tuple[Callable[[], Fragile], tuple[()]]:
        return Fragile.revive, ()

    @classmethod
    def revive(cls) -> Fragile:
        if cls.error is not None:
            raise cls.error
        return cls()


EVIL = pickle.dumps(Evil(), 5)


def preamble(content: int, *, signed: bool) -> bytes:
    return bytes([0xC1, 2, content, signed])


def unsigned(payload: bytes, content: int = 3, name: str = NAME) -> bytes:
    head = preamble(content, signed=False)
    checksum = xxh3(payload, xxh3(name.encode(), int.from_bytes(head, "little")))
    return head + checksum.to_bytes(8, "little") + payload


def signed(payload: bytes, secret: str = SECRET, content: int = 3, name: str = NAME) -> bytes:
    head = preamble(content, signed=True)
    message = len(name.encode()).to_bytes(8, "little") + name.encode() + head + payload
    return head + hmac.digest(secret.encode(), message, hashlib.sha256) + payload


@pytest.fixture(autouse=True)
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What reaches `pickle.loads`."""
    seen: list[bytes] = []
    original = pickle.loads

    def loads(payload: bytes) -> Any:
        seen.append(payload)
        return original(payload)

    monkeypatch.setattr(pickle, "loads", loads)
    ran.clear()
    yield seen
    ran.clear()
    Fragile.error = None


def never_reads(cache: Cache) -> None:
    """Fail if `cache` takes the entry for anything but a bad one, in any way of reading."""
    assert cache.get("a", MISSING) is MISSING
    assert "a" not in cache
    assert cache.get_many(["a"]) == {}
    with pytest.raises(KeyError):
        cache["a"]
    assert cache.stats().bad_entries == 4
    with cache.preload("a"):
        assert cache.get("a", MISSING) is MISSING
    cached = cache.cached(key="a")(lambda: "computed")
    with cache.scope():
        assert cached() == "computed"
        assert cached.many([()]) == ["computed"]
    assert cache.stats().errors == 0


FORGED: dict[str, bytes] = {
    "bare": EVIL,
    "unsigned": unsigned(EVIL),
    "signed by another": signed(EVIL, OTHER),
    "signed by nobody": preamble(3, signed=True) + bytes(32) + EVIL,
    "signed for another key": signed(EVIL, name="test:b"),
    "signed without the name": signed(EVIL, name=""),
    "signed as what it is not": preamble(3, signed=True) + signed(EVIL, content=2)[4:],
    "flagged as signed": preamble(3, signed=True) + unsigned(EVIL)[4:],
    "with a checksum behind the flag": preamble(3, signed=True) + unsigned(EVIL)[4:8] + EVIL,
    "unflagged": preamble(3, signed=False) + signed(EVIL)[4:],
    "cut short": signed(EVIL)[:-1],
    "lengthened": signed(EVIL) + b".",
    "compressed by nobody": unsigned(EVIL, 0x13),
    "signed with an empty secret": signed(EVIL, ""),
}

forged = pytest.mark.parametrize("entry", FORGED.values(), ids=FORGED.keys())


def test_malicious_pickle_runs_if_signed(
    open_cache: OpenCache, raw: Raw, loads: list[bytes]
) -> None:
    # Without this, none of the tests that follow would show anything.
    raw[NAME] = signed(EVIL)
    assert open_cache(serializer="pickle", secret=SECRET)["a"] == "evil"
    assert ran == ["evil"]
    assert loads == [EVIL]


class TestNativeCache:
    @pytest.mark.parametrize("secret", [None, SECRET])
    @pytest.mark.parametrize("entry", [*FORGED.values(), signed(EVIL)], ids=[*FORGED, "signed"])
    def test_never_unpickles(
        self, open_cache: OpenCache, raw: Raw, loads: list[bytes], secret: str | None, entry: bytes
    ) -> None:
        raw[NAME] = entry
        never_reads(open_cache(secret=secret))
        assert (ran, loads) == ([], [])

    def test_raw_cache_never_unpickles(
        self, open_cache: OpenCache, raw: Raw, loads: list[bytes]
    ) -> None:
        raw[NAME] = signed(EVIL)
        assert open_cache(serializer="raw")["a"] == signed(EVIL)
        assert (ran, loads) == ([], [])

    @pytest.mark.parametrize("secret", [None, SECRET])
    @given(payload=st.binary(max_size=20))
    def test_pickle_bytes_with_another_content_type_are_not_unpickled(
        self,
        open_cache: OpenCache,
        raw: Raw,
        loads: list[bytes],
        secret: str | None,
        payload: bytes,
    ) -> None:
        seal = signed if secret else unsigned
        cache = open_cache(secret=secret)
        for content in (0, 1, 2):
            raw[NAME] = seal(EVIL + payload, content=content)
            cache.get("a")
        assert (ran, loads) == ([], [])
        cache.close()


class TestPickleCache:
    @forged
    def test_forged_entry_is_not_unpickled(
        self, open_cache: OpenCache, raw: Raw, loads: list[bytes], entry: bytes
    ) -> None:
        raw[NAME] = entry
        never_reads(open_cache(serializer="pickle", secret=SECRET))
        assert (ran, loads) == ([], [])

    def test_secret_is_required(self) -> None:
        secrets: list[Any] = [None, [], ()]
        for secret in secrets:
            with pytest.raises(ConfigurationError, match='serializer="pickle" needs secret='):
                Cache(serializer="pickle", secret=secret)

    def test_stores_picklable_objects(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        value = [Point(1), {"k": Point(2)}, 1j, range(3), ValueError]
        cache.set("a", value)
        assert raw[NAME] == signed(pickle.dumps(value, 5))
        assert cache["a"] == value
        assert cache["a"][0] is not cache["a"][0]
        with cache.preload("a"):
            cache["a"][0].x = 5
            assert cache["a"] == value

    def test_text_bytes_and_integers_are_not_pickled(
        self, open_cache: OpenCache, raw: Raw, loads: list[bytes]
    ) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        for value, entry in (
            ("text", signed(b"text", content=1)),
            (b"bytes", signed(b"bytes", content=0)),
            (42, b"42"),
        ):
            cache.set("a", value)
            assert raw[NAME] == entry
            assert cache["a"] == value
        cache.set("a", 1)
        assert cache.incr("a") == 2
        assert loads == []

    def test_stores_lone_surrogates(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        cache.set("a", ["\ud800"])
        assert cache["a"] == ["\ud800"]
        cache.set("a", "\ud800")
        assert cache["a"] == "\ud800"

    def test_reads_entries_of_a_native_cache(self, open_cache: OpenCache) -> None:
        native = open_cache(secret=SECRET)
        native.set("a", (1, "a"))
        assert open_cache(serializer="pickle", secret=SECRET)["a"] == (1, "a")

    def test_compresses_before_it_signs(
        self, open_cache: OpenCache, raw: Raw, loads: list[bytes]
    ) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET, compression="zstd")
        cache.set("a", [Point(1)] * 1000)
        entry = raw[NAME]
        assert entry == signed(entry[36:], content=0x13)
        assert cache["a"] == [Point(1)] * 1000
        assert len(loads) == 1
        raw[NAME] = signed(entry[36:], OTHER, content=0x13)
        assert "a" not in cache
        assert len(loads) == 1

    @pytest.mark.parametrize("kind", ["function", "generator", "module"])
    def test_unpicklable_value_raises(self, open_cache: OpenCache, kind: str) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        values = {"function": lambda: 1, "generator": (n for n in range(1)), "module": pickle}
        value = values[kind]
        with pytest.raises(SerializationError) as caught:
            cache.set("a", value)
        assert f"a value of type {kind} cannot be pickled: " in str(caught.value)
        assert "cache a part that can" in str(caught.value)
        assert caught.value.__cause__ is not None
        assert "a" not in cache

    def test_an_interruption_while_pickling_passes_through(self, open_cache: OpenCache) -> None:
        class Slow:
            def __reduce__(self) -> str:
                raise KeyboardInterrupt

        cache = open_cache(serializer="pickle", secret=SECRET)
        with pytest.raises(KeyboardInterrupt):
            cache.set("a", Slow())
        cache.set("a", 1)
        assert cache["a"] == 1

    def test_plain_data_is_not_pickled(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        for value in ({"a": [1, (2.5, None)]}, None, {3}, Decimal("1.5")):
            cache.set("a", value)
            assert raw[NAME] == signed(raw[NAME][36:], content=2)
            assert open_cache(secret=SECRET)["a"] == value
        cache.set("a", [{"a": Point(1)}])
        assert raw[NAME] == signed(raw[NAME][36:], content=3)

    def test_data_with_shared_references_is_pickled(self, open_cache: OpenCache) -> None:
        # Each holds the one before twice: pickle writes it once.
        value: list[Any] = []
        for _ in range(60):
            value = [value, value]
        cache = open_cache(serializer="pickle", secret=SECRET)
        cache.set("a", value)
        copy = cache["a"]
        assert copy[0] is copy[1]


class TestSecrets:
    @pytest.mark.parametrize("serializer", ["native", "pickle"])
    def test_rotation_keeps_entries_readable(
        self, open_cache: OpenCache, raw: Raw, serializer: str
    ) -> None:
        before = open_cache(serializer=serializer, secret=OTHER)
        between = open_cache(serializer=serializer, secret=[SECRET, OTHER])
        after = open_cache(serializer=serializer, secret=SECRET)
        # What is pickled, where that is asked for, is what native does not hold.
        one, two = (Point(1), Point(2)) if serializer == "pickle" else ([1], [2])
        before.set("a", one)
        assert between["a"] == one
        assert "a" not in after
        # The first signs.
        between.set("a", two)
        assert after["a"] == two
        assert "a" not in before
        kind = 3 if serializer == "pickle" else 2
        assert raw[NAME] == signed(raw[NAME][36:], SECRET, content=kind)

    def test_may_be_text_or_bytes(self, open_cache: OpenCache) -> None:
        open_cache(secret="ключ").set("a", [1])
        assert open_cache(secret="ключ".encode())["a"] == [1]
        assert open_cache(secret=(b"\xff", "ключ"))["a"] == [1]

    def test_different_secrets_do_not_read_each_other(self, open_cache: OpenCache) -> None:
        open_cache(secret=SECRET).set("a", [1])
        for secret in (None, OTHER, SECRET[:-1], SECRET + "x", [OTHER, "x"]):
            cache = open_cache(secret=secret)
            assert "a" not in cache
            assert cache.stats().bad_entries == 1
        open_cache().set("a", [1])
        assert "a" not in open_cache(secret=SECRET)

    def test_signature_covers_the_key(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(secret=SECRET)
        cache.set("is_admin:eve", "no")
        cache.set("is_admin:root", "yes")
        raw["test:is_admin:eve"] = raw["test:is_admin:root"]
        assert "is_admin:eve" not in cache
        assert cache["is_admin:root"] == "yes"

    def test_secret_is_never_shown(self, open_cache: OpenCache) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        cache.set("a", [1])
        with cache.watch() as seen:
            cache.get("a")
        assert SECRET not in repr(cache) + repr(seen.records) + repr(cache.stats())


class TestUnreadablePickles:
    @pytest.fixture
    def fragile(self, open_cache: OpenCache) -> Cache:
        cache = open_cache(serializer="pickle", secret=SECRET)
        cache.set("a", Fragile())
        assert isinstance(cache["a"], Fragile)
        cache.reset_stats()
        return cache

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("x"),
            AttributeError("x"),
            ImportError("x"),
            RecursionError("x"),
            MemoryError(),
            AssertionError(),
            pickle.UnpicklingError("x"),
            UnicodeDecodeError("utf-8", b"", 0, 0, "x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_is_a_miss(self, fragile: Cache, error: Exception) -> None:
        Fragile.error = error
        never_reads(fragile)
        # `never_reads` has computed it anew.
        assert fragile["a"] == "computed"

    def test_moved_class_is_a_miss(self, open_cache: OpenCache, raw: Raw) -> None:
        cache = open_cache(serializer="pickle", secret=SECRET)
        raw[NAME] = signed(b"cno_such_module\nThing\n.")
        assert cache.get("a", MISSING) is MISSING
        raw[NAME] = signed(b"cos\nno_such_name\n.")
        assert cache.get("a", MISSING) is MISSING
        raw[NAME] = signed(b"not a pickle")
        assert cache.get("a", MISSING) is MISSING
        assert cache.stats().bad_entries == 3

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_interruption_while_unpickling_passes_through(
        self, fragile: Cache, stop: type[BaseException]
    ) -> None:
        Fragile.error = stop()

        @fragile.cached(key="a")
        def cached() -> object:
            pytest.fail("computed")

        reads: list[Callable[[], object]] = [
            lambda: fragile.get("a"),
            lambda: fragile["a"],
            lambda: "a" in fragile,
            lambda: fragile.get_many(["b", "a", "c"]),
            lambda: fragile.get_or_set("a", 1),
            cached,
            lambda: cached.many([()]),
        ]
        for read in reads:
            with pytest.raises(stop):
                read()
            with fragile.preload("a", "b"), pytest.raises(stop):
                read()
        Fragile.error = None
        assert isinstance(fragile["a"], Fragile)
