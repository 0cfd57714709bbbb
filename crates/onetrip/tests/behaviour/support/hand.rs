//! Calls made by hand: the test decides when their trips depart, are exchanged and arrive.

use std::sync::Arc;

use bytes::Bytes;
use onetrip::internals::codec::Decode;
use onetrip::internals::entry::{BadEntry, Content, Kind};
use onetrip::internals::{Caller, Context, Fetch, Outcome, Scope, Stage, Step, Work};
use onetrip::trip::{Op, Replies, Trip};
use onetrip::{Cache, Page, Ttl};

/// Decodes texts, as a binding would.
#[derive(Debug)]
pub(crate) struct Text;

impl Decode for Text {
    type Value = String;

    fn decode(&self, content: &Content) -> Result<String, BadEntry> {
        let text = std::str::from_utf8(&content.payload);
        text.map(str::to_owned).map_err(|_| BadEntry::Undecodable)
    }
}

/// The answers of a read, one for each key; empty for a write.
pub(crate) type Answer = Vec<Option<String>>;

/// A call in progress.
pub(crate) enum Called<'a> {
    /// Answered without a trip.
    Done(Answer),
    /// The trip has departed. The function takes the replies on arrival.
    Away(Trip, Box<dyn FnOnce(Replies) -> Answer + 'a>),
}

impl Called<'_> {
    /// Returns the answer of a call that needs no trip.
    pub(crate) fn held(self) -> Answer {
        match self {
            Self::Done(answer) => answer,
            Self::Away(trip, _) => panic!("it travels: {trip:?}"),
        }
    }
}

/// A caller: a request with a scope, or code without one.
#[derive(Clone, Debug)]
pub(crate) struct Hand {
    cache: Cache,
    at: Context,
    scope: Option<Arc<Scope>>,
}

impl Hand {
    /// Creates a caller without a scope.
    pub(crate) fn alone(cache: &Cache) -> Self {
        Self {
            cache: cache.clone(),
            at: Context::default(),
            scope: None,
        }
    }

    /// Creates a caller with a new scope.
    pub(crate) fn within(cache: &Cache, work: Work) -> Self {
        let (scope, _) = cache.policy().enter(&Context::default(), work);
        Self {
            cache: cache.clone(),
            at: Context::default().with_scope(Arc::clone(&scope)),
            scope: Some(scope),
        }
    }

    /// Creates a GET of `page`.
    pub(crate) fn visiting(cache: &Cache, page: Page) -> Self {
        let hand = Self::within(cache, Work::SafeRequest);
        cache.policy().begin_visit(hand.scope(), page);
        hand
    }

    /// Creates the caller that `owner` runs to compute what `fetch` missed.
    pub(crate) fn computing(owner: &Self, fetch: &Fetch<'_, &'static str, Text>) -> Self {
        Self {
            cache: owner.cache.clone(),
            at: owner.at.with_computing(fetch.computing()),
            scope: owner.scope.clone(),
        }
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        self.scope.as_ref().expect("it has a scope")
    }

    pub(crate) fn at(&self) -> &Context {
        &self.at
    }

    /// Ends the scope and its visits.
    pub(crate) fn close(&self) {
        if let Step::Ask(trip, finish) = self.cache.policy().close(self.scope()) {
            finish(self.exchange(&trip));
        }
    }

    /// Carries out a trip.
    pub(crate) fn exchange(&self, trip: &Trip) -> Replies {
        self.cache.send_blocking(&self.at, trip).unwrap()
    }

    pub(crate) fn get(&self, key: &'static str) -> Called<'_> {
        match self.cache.policy().get(&self.at, key.as_bytes(), &Text) {
            Step::Done(value) => Called::Done(vec![value]),
            Step::Ask(trip, finish) => {
                Called::Away(trip, Box::new(|replies| vec![finish(replies)]))
            }
        }
    }

    pub(crate) fn get_many(&self, keys: &'static [&'static str]) -> Called<'_> {
        match self.cache.policy().get_many(&self.at, keys, &Text) {
            Step::Done(values) => Called::Done(values),
            Step::Ask(trip, finish) => Called::Away(trip, Box::new(finish)),
        }
    }

    pub(crate) fn preload(&self, keys: &'static [&'static str]) -> Called<'_> {
        begin_write(self.cache.policy().preload(&self.at, keys))
    }

    pub(crate) fn set(&self, key: &'static str, text: &str) -> Called<'_> {
        self.set_many(&[(key, text)])
    }

    pub(crate) fn set_many(&self, texts: &[(&'static str, &str)]) -> Called<'_> {
        let entries = texts.iter().map(|(key, text)| (*key, self.seal(key, text)));
        let entries: Vec<_> = entries.collect();
        let policy = self.cache.policy();
        begin_write(policy.set_many(&self.at, entries, Ttl::Default))
    }

    /// Returns `true`, or an empty answer.
    pub(crate) fn add(&self, key: &'static str, text: &str) -> Called<'_> {
        let entry = self.seal(key, text);
        let policy = self.cache.policy();
        let step = policy.add(&self.at, key.as_bytes(), entry, Ttl::Default);
        begin(step, |added| vec![added.then(|| "true".to_owned())])
    }

    pub(crate) fn delete(&self, keys: &'static [&'static str]) -> Called<'_> {
        begin(self.cache.policy().delete_many(&self.at, keys), |_| vec![])
    }

    pub(crate) fn touch(&self, keys: &'static [&'static str]) -> Called<'_> {
        let policy = self.cache.policy();
        begin(policy.touch_many(&self.at, keys, Ttl::Never), |_| vec![])
    }

    pub(crate) fn clear(&self) -> Called<'_> {
        begin(self.cache.policy().clear(&self.at), |_| vec![])
    }

    pub(crate) fn seal(&self, key: &str, text: &str) -> Bytes {
        let text = |out: &mut Vec<u8>| {
            out.extend_from_slice(text.as_bytes());
            Ok::<_, onetrip::Error>(Kind::Str)
        };
        self.cache.policy().seal(key.as_bytes(), text).unwrap()
    }

    /// Completes a call at once.
    pub(crate) fn finish(&self, called: Called<'_>) -> Answer {
        match called {
            Called::Done(answer) => answer,
            Called::Away(trip, arrive) => arrive(self.exchange(&trip)),
        }
    }

    /// Begins a fetch of one key.
    pub(crate) fn fetch(&self, key: &'static str, caller: Caller) -> Fetch<'_, &'static str, Text> {
        let keys: &'static [&'static str; 1] = Box::leak(Box::new([key]));
        let policy = self.cache.policy();
        policy.fetch(&self.at, keys, Ttl::Default, &Text, caller)
    }

    /// Begins a fetch and looks up its key.
    pub(crate) fn looked(
        &self,
        key: &'static str,
        caller: Caller,
    ) -> Fetch<'_, &'static str, Text> {
        let mut fetch = self.fetch(key, caller);
        match fetch.advance() {
            Stage::Ask(trip) => fetch.replied(self.exchange(&trip)),
            stage => panic!("{key} is not looked up, but {stage:?}"),
        }
        fetch
    }

    /// Completes a computing fetch with `text`.
    pub(crate) fn make(&self, mut fetch: Fetch<'_, &'static str, Text>, key: &str, text: &str) {
        fetch.made(0, self.seal(key, text));
        loop {
            match fetch.advance() {
                Stage::Ask(trip) | Stage::Post(trip) => fetch.replied(self.exchange(&trip)),
                Stage::Done => break,
                stage => panic!("{key} is made, and then {stage:?}"),
            }
        }
        fetch.finish();
    }

    /// Computes `text` for `key` without looking, and stores it.
    pub(crate) fn make_anew(&self, key: &'static str, text: &str) {
        let mut fetch = self.fetch(key, Caller::Thread).refreshing();
        assert!(matches!(fetch.advance(), Stage::Compute(_)));
        self.make(fetch, key, text);
    }

    /// Returns what a completed fetch found.
    pub(crate) fn found(mut fetch: Fetch<'_, &'static str, Text>) -> Option<String> {
        assert!(matches!(fetch.advance(), Stage::Done));
        match fetch.finish().pop() {
            Some(Outcome::Found(text)) => Some(text),
            _ => None,
        }
    }
}

/// Writes as another process would.
pub(crate) fn elsewhere(cache: &Cache, key: &str, text: Option<&str>) {
    let hand = Hand::alone(cache);
    let name = match cache.prefix() {
        "" => key.to_owned(),
        prefix => format!("{prefix}:{key}"),
    };
    let name = Bytes::from(name);
    let op = match text {
        Some(text) => Op::Set {
            name,
            entry: hand.seal(key, text),
            ttl: None,
        },
        None => Op::Delete { name },
    };
    hand.exchange(&op.into());
}

fn begin<'a, T: 'a>(
    step: Step<T, impl FnOnce(Replies) -> T + 'a>,
    tell: impl Fn(T) -> Answer + 'a,
) -> Called<'a> {
    match step {
        Step::Done(done) => Called::Done(tell(done)),
        Step::Ask(trip, finish) => {
            Called::Away(trip, Box::new(move |replies| tell(finish(replies))))
        }
    }
}

fn begin_write<'a>(step: Step<(), impl FnOnce(Replies) + 'a>) -> Called<'a> {
    begin(step, |()| vec![])
}
