"""Runs streamed responses in the context of their page."""

from __future__ import annotations

import types
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Iterator,
    )
    from contextvars import Context

    from typing_extensions import Self


class Stream:
    """An iterator that runs each step in the context of its page.

    The server keeps its own context, since its thread serves other pages too. `done` is called once
    at the end. `fail` is called before it after an error; a reader who leaves is not an error.
    """

    def __init__(
        self,
        content: Iterable[Any],
        context: Context,
        fail: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._content: Iterator[Any] = context.run(iter, content)
        self._context = context
        self._fail = fail
        self._done: Callable[[], None] | None = done

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._context.run(next, self._content)
        except BaseException as error:
            if _is_error(error):
                self._fail()
            self._end()
            raise

    def close(self) -> None:
        """Ends the stream: the reader has left."""
        self._end()

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._context.run(done)


class AsyncStream:
    """A `Stream` over an asynchronous iterator."""

    def __init__(
        self,
        content: AsyncIterable[Any],
        context: Context,
        fail: Callable[[], None],
        done: Callable[[], Awaitable[None]],
        give_up: Callable[[], None],
    ) -> None:
        self._content: AsyncIterator[Any] = context.run(aiter, content)
        self._context = context
        self._fail = fail
        self._done: Callable[[], Awaitable[None]] | None = done
        self._give_up = give_up

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await within(self._context, self._content.__anext__)
        except BaseException as error:
            if _is_error(error):
                self._fail()
            done, self._done = self._done, None
            if done is not None:
                await within(self._context, done)
            raise

    def close(self) -> None:
        """Ends the stream: the reader has left. Django calls this in a thread that may block."""
        done, self._done = self._done, None
        if done is not None:
            self._context.run(self._give_up)


def _is_error(error: BaseException) -> bool:
    """Returns whether `error` means failure: not the end, and not a cancellation by the reader."""
    return isinstance(error, Exception) and not isinstance(
        error, (StopIteration, StopAsyncIteration)
    )


@types.coroutine
def within(context: Context, work: Callable[[], Awaitable[Any]]) -> Generator[Any, Any, Any]:
    """Awaits `work()` in `context` instead of the task's own context."""
    steps: Any = context.run(lambda: work().__await__())
    step: Callable[[], Any] = partial(next, steps)
    while True:
        try:
            waits_for = context.run(step)
        except StopIteration as end:
            return end.value
        try:
            value = yield waits_for
            step = partial(steps.send, value)
        except GeneratorExit:
            context.run(steps.close)
            raise
        except BaseException as error:  # noqa: BLE001 - the work must see a cancellation
            step = partial(steps.throw, error)
