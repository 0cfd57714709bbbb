//! What can go wrong, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// A `Result` whose error is onetrip's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of onetrip: a [kind](ErrorKind) to branch on and a message to read.
///
/// Cloning is cheap: one failed trip may have to tell many keys.
///
/// ```
/// use onetrip::{Cache, ErrorKind};
///
/// let error = Cache::open("dispatcher-pigeon://loft").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Configuration);
/// assert!(error.to_string().contains("memory://"));
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
    /// Whether it is in the log already.
    logged: bool,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`], by what a caller would do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an option or a call that cannot work: mend the program or its settings.
    Configuration,
    /// A value that the serializer cannot hold: convert it, or choose another serializer.
    Serialization,
    /// A number was asked of an entry that does not hold one.
    NotANumber,
    /// The store has no such operation.
    Unsupported,
    /// The entry is larger than the store takes.
    TooLarge,
    /// The store refused the operation with an error of its own.
    Refused,
    /// The store did not answer within its timeout.
    Timeout,
    /// The store could not be reached, or the connection broke.
    Unavailable,
}

impl ErrorKind {
    /// Whether the store is at fault rather than the program.
    ///
    /// These failures become misses and dropped writes unless the cache was built with
    /// [`OnError::Raise`](crate::OnError::Raise); all others are always returned.
    #[must_use]
    pub fn is_store_failure(self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Refused | Self::Timeout | Self::Unavailable
        )
    }

    /// Whether nobody answered, so that what was asked for is unknown.
    #[cfg(feature = "_remote")]
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }
}

impl Error {
    /// An error of this kind with a message that says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::of(Inner {
            kind,
            message: message.into(),
            source: None,
        })
    }

    /// The same, keeping what caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::of(Inner {
            kind,
            message: message.into(),
            source: Some(source.into()),
        })
    }

    fn of(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
            logged: false,
        }
    }

    /// The same, known to be in the log.
    pub(crate) fn logged(self) -> Self {
        Self {
            logged: true,
            ..self
        }
    }

    /// Whether it is in the log already, so that it need not be told again.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
