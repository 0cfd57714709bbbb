//! The body of a response, produced in the scope of its request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::page::Page;

pin_project! {
    /// The body of a response, produced in the scope of its request; see
    /// [`PageLayer`](super::PageLayer).
    pub struct PageBody<B: Body> {
        #[pin]
        inner: B,
        stage: Stage<B::Data, B::Error>,
        // Bytes still to come, if the header announced a length.
        left: Option<u64>,
    }
}

/// How far a body has come.
enum Stage<D, E> {
    /// The scope is open while the body is produced.
    Open(Page),
    /// The scope is closing and posted writes are drained. The last frame follows.
    Closing(Closing, Last<D, E>),
    /// The scope is closed.
    Closed,
}

type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;
type Last<D, E> = Option<Result<Frame<D>, E>>;

impl<B: Body> PageBody<B> {
    /// Wraps a body that was complete with its response.
    pub(super) fn whole(inner: B) -> Self {
        Self {
            inner,
            stage: Stage::Closed,
            left: None,
        }
    }

    /// Wraps a body that is produced while it is sent.
    pub(super) fn streaming(inner: B, page: Page, head: &HeaderMap) -> Self {
        let left = head
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            inner,
            stage: Stage::Open(page),
            left,
        }
    }
}

impl<B: Body> Body for PageBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        loop {
            match this.stage {
                Stage::Closed => return this.inner.poll_frame(cx),
                Stage::Closing(closing, last) => {
                    ready!(closing.as_mut().poll(cx));
                    let last = last.take();
                    *this.stage = Stage::Closed;
                    return Poll::Ready(last);
                }
                Stage::Open(page) => {
                    let inner = this.inner.as_mut();
                    let frame = ready!(page.within_blocking(|| inner.poll_frame(cx)));
                    if let (Some(Ok(frame)), Some(left)) = (&frame, &mut this.left) {
                        let sent = frame.data_ref().map_or(0, Buf::remaining);
                        *left = left.saturating_sub(sent as u64);
                    }
                    // Servers poll no further after an error, the last frame, or as many bytes as
                    // were announced.
                    let more = matches!(frame, Some(Ok(_)))
                        && !this.inner.is_end_stream()
                        && *this.left != Some(0);
                    if more {
                        return Poll::Ready(frame);
                    }
                    if let Stage::Open(mut page) = std::mem::replace(this.stage, Stage::Closed) {
                        if matches!(frame, Some(Err(_))) {
                            page.discard();
                        }
                        *this.stage = Stage::Closing(Box::pin(page.close()), frame);
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Closed) && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.stage {
            // Its last frame was taken out of it already.
            Stage::Closing(..) => SizeHint::default(),
            _ => self.inner.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for PageBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Open(_) => "open",
            Stage::Closing(..) => "closing",
            Stage::Closed => "closed",
        };
        f.debug_struct("PageBody")
            .field("scope", &stage)
            .finish_non_exhaustive()
    }
}
