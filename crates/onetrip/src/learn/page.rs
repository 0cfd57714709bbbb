//! A page: a route and its arguments.

use std::sync::Arc;

/// The name of an argument.
pub(super) type Arg = Arc<str>;

/// A page: the name of its view, and the view's arguments.
///
/// Arguments are text, as they stand in keys. Leave out arguments that change with every request
/// and do not affect what the page reads (a token, a time).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    route: Arc<str>,
    args: Vec<(Arg, Box<str>)>,
}

impl Page {
    /// Creates a page without arguments.
    pub fn new(route: impl Into<Arc<str>>) -> Self {
        Self {
            route: route.into(),
            args: Vec::new(),
        }
    }

    /// Adds an argument. The order of arguments does not matter.
    #[must_use]
    pub fn arg(mut self, name: impl Into<Arc<str>>, value: impl ToString) -> Self {
        let (name, value) = (name.into(), value.to_string().into());
        self.args.retain(|(other, _)| *other != name);
        let at = self.args.partition_point(|(other, _)| *other < name);
        self.args.insert(at, (name, value));
        self
    }

    /// Returns the name of its view.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Returns the names and values of its arguments, sorted by name.
    pub fn args(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.args.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let at = self
            .args
            .binary_search_by(|(other, _)| (**other).cmp(name))
            .ok()?;
        self.args.get(at).map(|(_, value)| &**value)
    }

    pub(super) fn shared_args(&self) -> &[(Arg, Box<str>)] {
        &self.args
    }

    /// Returns a number for its arguments, distinct among the pages of its route and the same in
    /// every process (FNV-1a).
    #[must_use]
    pub fn id(&self) -> u64 {
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut feed = |bytes: &[u8]| {
            for byte in bytes.iter().chain(&[0xFF]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
        };
        for (name, value) in &self.args {
            feed(name.as_bytes());
            feed(value.as_bytes());
        }
        hash
    }
}
