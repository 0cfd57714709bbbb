"""Responses that are made while they are sent, as part of the page that they belong to."""

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
    """An iterator whose every step is made in the context of its page.

    The server that iterates keeps its own context: it belongs to no page, and its thread will
    serve others. `done` is called once, when nothing more is to come, and `fail` before it if that
    is so for an error. A reader who leaves is none.
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
        """Give up: the reader has left."""
        self._end()

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._context.run(done)


class AsyncStream:
    """The same for an asynchronous iterator."""

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
        """Give up: the reader has left. Django calls this in a thread, which may block."""
        done, self._done = self._done, None
        if done is not None:
            self._context.run(self._give_up)


def _is_error(error: BaseException) -> bool:
    """Whether content ended by it did not come to its end. A cancellation is a reader who left."""
    return isinstance(error, Exception) and not isinstance(
        error, (StopIteration, StopAsyncIteration)
    )


@types.coroutine
def within(context: Context, work: Callable[[], Awaitable[Any]]) -> Generator[Any, Any, Any]:
    """Await `work()` in another context than that of the task, which runs it nonetheless."""
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
        except BaseException as error:  # noqa: BLE001 - a cancellation is for the work to hear of
            step = partial(steps.throw, error)
