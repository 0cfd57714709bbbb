//! What a page is: a route and its arguments.

use std::sync::Arc;

/// The name of an argument.
pub(super) type Arg = Arc<str>;

/// The name of a page: that of its view, and what the view is called with.
///
/// Arguments are text, as they would stand in a key. Those that change from request to request and
/// tell nothing of what the page reads (a token, a time) do not belong here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    route: Arc<str>,
    args: Vec<(Arg, Box<str>)>,
}

impl Page {
    /// A page without arguments.
    pub fn new(route: impl Into<Arc<str>>) -> Self {
        Self {
            route: route.into(),
            args: Vec::new(),
        }
    }

    /// The same page with one more argument; the order in which they are given does not matter.
    #[must_use]
    pub fn arg(mut self, name: impl Into<Arc<str>>, value: impl ToString) -> Self {
        let (name, value) = (name.into(), value.to_string().into());
        self.args.retain(|(other, _)| *other != name);
        let at = self.args.partition_point(|(other, _)| *other < name);
        self.args.insert(at, (name, value));
        self
    }

    /// The name of its view.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Names and values of its arguments, by name.
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

    /// Returns a number for its arguments, among the pages of its route; the same in every process
    /// (FNV-1a).
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
