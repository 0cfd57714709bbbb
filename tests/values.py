"""Values of every type that the native serializer holds, and whether two of them are the same."""

from __future__ import annotations

import struct
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable

# Summer time, half an hour of it, an offset of seconds, one that never changes, and none.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Monrovia",
    "Asia/Kathmandu",
    "UTC",
]

_folds = st.sampled_from([0, 1])
_day = timedelta(days=1) - timedelta(microseconds=1)
_offsets = st.one_of(
    st.integers(-86_399, 86_399).map(lambda seconds: timedelta(seconds=seconds)),
    st.timedeltas(-_day, _day),
    # Python's own `fromisoformat` takes an offset of less than a second for none.
    st.integers(-999_999, 999_999).map(lambda parts: timedelta(microseconds=parts)),
).map(timezone)
_zones = st.sampled_from(ZONES).map(ZoneInfo)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

datetimes: st.SearchStrategy[datetime] = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(),
    st.one_of(st.none(), st.just(timezone.utc), _offsets, _zones),
    _folds,
)
times: st.SearchStrategy[time] = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.times(),
    st.one_of(st.none(), st.just(timezone.utc), _offsets),
    _folds,
)
decimals: st.SearchStrategy[Decimal] = st.one_of(
    st.decimals(allow_nan=True, allow_infinity=True),
    st.sampled_from(["-0", "-0.00", "0E+5", "1E+999", "sNaN", "-NaN", "NaN123", "-Infinity"]).map(
        Decimal
    ),
)
integers: st.SearchStrategy[int] = st.one_of(
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.sampled_from(
        [
            sign * 2**power + one
            for sign in (1, -1)
            for power in (31, 63, 64, 127)
            for one in (-1, 0, 1)
        ]
    ),
)

# What a set or a dict may have as a key. A signalling NaN cannot be hashed.
hashable: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        integers,
        st.floats(),
        _texts,
        st.binary(max_size=40),
        datetimes,
        st.dates(),
        times,
        st.timedeltas(),
        decimals.filter(lambda number: not number.is_snan()),
        st.uuids(),
        _texts.map(Markup),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4)
    ),
    max_leaves=4,
)

values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(hashable, decimals, st.binary(max_size=40).map(bytearray)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(hashable, inner, max_size=5),
        st.sets(hashable, max_size=5),
    ),
    max_leaves=8,
)


def form(value: Any) -> object:
    """What two values have in common only if a program cannot tell them apart."""
    kind = type(value).__name__
    if isinstance(value, (list, tuple)):
        return kind, [form(item) for item in value]
    if isinstance(value, dict):
        return kind, [(form(key), form(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        # Those of two equal sets may come in different orders.
        return kind, sorted(repr(form(item)) for item in value)
    for plain, told in _TOLD.items():
        if isinstance(value, plain):
            return kind, told(value)
    return kind, repr(value)


def _zone(zone: Any) -> object:
    return (type(zone).__name__, zone.key if isinstance(zone, ZoneInfo) else zone)


# Equality would take -0.0 for 0.0, a NaN for none, and one fold for the other.
_TOLD: dict[type, Callable[[Any], object]] = {
    float: lambda number: struct.pack(">d", number),
    Decimal: lambda number: number.as_tuple(),
    datetime: lambda moment: (moment.isoformat(), moment.fold, _zone(moment.tzinfo)),
    date: lambda day: day.isoformat(),
    time: lambda moment: (moment.isoformat(), moment.fold, _zone(moment.tzinfo)),
    UUID: lambda uuid: uuid.bytes,
}
