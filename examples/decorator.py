"""A cached function, called, busted and asked for many results at once.

It prints:

    squaring 4
    16
    16
    key: square:4
    squaring 5
    squaring 6
    [16, 25, 36] in 2 trips
    squaring 4
    16 again, for it was busted
"""

from __future__ import annotations

from onetrip import Cache

cache = Cache("memory://")


@cache.cached(timeout=60, key="square:{number}")
def square(number: int) -> int:
    print("squaring", number)
    return number * number


print(square(4))
print(square(number=4))  # the same call, so the same key
print("key:", square.key(4))

with cache.watch() as seen:
    # One trip asks for all three, one stores the two that were missing.
    squares = square.many([4, 5, 6])
print(squares, "in", seen.trips, "trips")

square.bust(4)
print(square(4), "again, for it was busted")
