//! The errors of onetrip, by what a caller can do about them.

use std::fmt;
use std::sync::Arc;

/// A `Result` with an [`Error`] of onetrip.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of onetrip: a [kind](ErrorKind) to branch on and a message to read.
///
/// Cloning is cheap: one failed trip may be the error of many keys.
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
    /// Whether it was logged.
    logged: bool,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`], by what a caller can do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A URL, an option or a call that cannot work: fix the program or its settings.
    Configuration,
    /// A value that the serializer cannot encode: convert it, or choose another serializer.
    Serialization,
    /// The entry is not a number.
    NotANumber,
    /// The store does not have the operation.
    Unsupported,
    /// The entry is larger than the store allows.
    TooLarge,
    /// The store refused the operation with an error of its own.
    Refused,
    /// The store did not answer within its timeout.
    Timeout,
    /// The store could not be reached, or the connection broke.
    Unavailable,
}

impl ErrorKind {
    /// Returns whether the store is at fault and not the program.
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

    /// Returns whether the store did not answer, so that the outcome is unknown.
    #[cfg(feature = "_remote")]
    pub(crate) fn is_silence(self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable)
    }
}

impl Error {
    /// Returns an error of this kind. The message says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::of(Inner {
            kind,
            message: message.into(),
            source: None,
        })
    }

    /// Returns an error with its cause as the source.
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

    /// Returns the error marked as logged.
    pub(crate) fn logged(self) -> Self {
        Self {
            logged: true,
            ..self
        }
    }

    /// Returns whether it was logged, and need not be logged again.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// Returns the error of `what`, which needs a `feature` that is off.
    pub(crate) fn feature_missing(what: &str, feature: &str) -> Self {
        Self::configuration(format!(
            "{what} needs the feature \"{feature}\" of the crate onetrip, which is not built in"
        ))
    }

    /// Returns the kind of this error.
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
