//! Functions with `#[onetrip::cached]`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use onetrip::{Cache, Clock, ErrorKind, OnError, Ttl};

use crate::support::{Count, broken, local, remote, turn, words};

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::open("memory://").unwrap());

struct Note {
    id: u32,
    author: Author,
    computed: Count,
}

struct Author {
    name: &'static str,
    active: bool,
}

impl Note {
    fn new(id: u32) -> Self {
        Self {
            id,
            author: Author {
                name: "Ada",
                active: true,
            },
            computed: Count::default(),
        }
    }

    fn slug(&self) -> String {
        format!("note-{}", self.id)
    }

    #[onetrip::cached(cache = CACHE, key = "method:{self.id}:{language}")]
    async fn markup(&self, language: &str) -> String {
        format!("{} {language} {}", self.id, self.computed.up())
    }

    #[onetrip::cached(cache = cache, key = "blocking:{self.id}")]
    fn length(&self, cache: &Cache) -> u32 {
        assert!(cache.is_local());
        self.computed.up()
    }
}

#[onetrip::cached(key = "note:{note.id}")]
async fn markup(cache: &Cache, note: &Note) -> String {
    assert!(cache.stats().misses > 0);
    format!("{} {}", note.id, note.computed.up())
}

#[tokio::test]
async fn function_computes_only_on_a_miss() {
    let (cache, note) = (&remote(), &Note::new(5));
    assert_eq!(markup_key(note), "note:5");
    let (first, seen) = cache.watch(markup(cache, note)).await;
    assert_eq!(first, "5 1");
    assert_eq!(words(&seen), [["get"], ["set"]]);
    let (second, seen) = cache.watch(markup(cache, note)).await;
    assert_eq!(second, "5 1");
    assert_eq!(words(&seen), [["get"]]);
    assert_eq!(markup(cache, &Note::new(6)).await, "6 1");
}

#[tokio::test]
async fn siblings_do_what_their_names_say() {
    let (cache, note) = (&local(), &Note::new(5));
    assert_eq!(markup(cache, note).await, "5 1");
    assert_eq!(markup_uncached(cache, note).await, "5 2");
    assert_eq!(markup(cache, note).await, "5 1");
    assert_eq!(markup_refresh(cache, note).await, "5 3");
    assert_eq!(markup(cache, note).await, "5 3");
    assert!(markup_bust(cache, note).await.unwrap());
    assert!(!markup_bust(cache, note).await.unwrap());
    assert_eq!(markup(cache, note).await, "5 4");
}

#[tokio::test]
async fn method_has_siblings() {
    let note = Note::new(7);
    assert_eq!(note.markup("de").await, "7 de 1");
    assert_eq!(note.markup("de").await, "7 de 1");
    assert_eq!(note.markup("en").await, "7 en 2");
    assert_eq!(note.markup_key("de"), "method:7:de");
    assert!(note.markup_bust("de").await.unwrap());
    assert_eq!(note.markup_refresh("en").await, "7 en 3");
    assert_eq!(note.markup_uncached("en").await, "7 en 4");
}

#[test]
fn blocking_function_needs_no_runtime() {
    let (cache, note) = (&local(), Note::new(8));
    assert_eq!(note.length(cache), 1);
    assert_eq!(note.length(cache), 1);
    assert_eq!(note.length_key(), "blocking:8");
    assert_eq!(note.length_refresh(cache), 2);
    assert!(note.length_bust(cache).unwrap());
    assert_eq!(note.length(cache), 3);
}

#[onetrip::cached(key = "result:{id}")]
async fn fallible(cache: &Cache, id: u32, computed: &Count) -> Result<u32, String> {
    match computed.up() {
        1 => Err(format!("{id} is not ready")),
        count => Ok(count),
    }
}

#[tokio::test]
async fn errors_are_not_cached() {
    let (cache, computed) = (&local(), &Count::default());
    assert_eq!(
        fallible(cache, 1, computed).await,
        Err("1 is not ready".into())
    );
    assert_eq!(fallible(cache, 1, computed).await, Ok(2));
    assert_eq!(fallible(cache, 1, computed).await, Ok(2));
    assert_eq!(fallible_refresh(cache, 1, computed).await, Ok(3));
    assert_eq!(fallible_key(1), "result:1");
}

#[onetrip::cached(key = "none:{id}")]
async fn nothing(cache: &Cache, id: u32, computed: &Count) -> Option<String> {
    computed.up();
    (id == 0).then(String::new)
}

#[tokio::test]
async fn none_is_a_value() {
    let (cache, computed) = (&local(), &Count::default());
    for _ in 0..2 {
        assert_eq!(nothing(cache, 1, computed).await, None);
    }
    assert_eq!(computed.get(), 1);
}

const SPAN: Duration = Duration::from_secs(90);

macro_rules! lasting {
    ($name:ident, $timeout:expr) => {
        #[onetrip::cached(timeout = $timeout, key = String::from(stringify!($name)))]
        async fn $name(cache: &Cache, computed: &Count) -> u32 {
            computed.up()
        }
    };
}

lasting!(an_hour, "1h");
lasting!(a_minute, "60s");
lasting!(a_minute_and_a_half, "1.5m");
lasting!(seconds, 60);
lasting!(half_a_second, 0.5);
lasting!(milliseconds, "500ms");
lasting!(a_day, "1d");
lasting!(a_constant, SPAN);
lasting!(for_ever, Ttl::Never);

#[onetrip::cached(key = String::from("default"))]
async fn by_default(cache: &Cache, computed: &Count) -> u32 {
    computed.up()
}

#[tokio::test]
async fn results_expire_after_their_ttl() {
    turn();
    macro_rules! lives {
        ($($function:ident for $seconds:expr;)+) => {$(
            let clock = Clock::manual();
            let cache = &Cache::builder("memory://").clock(clock.clone()).build().unwrap();
            let computed = &Count::default();
            assert_eq!($function(cache, computed).await, 1);
            let life = Duration::from_secs_f64($seconds);
            clock.advance(life - Duration::from_millis(1));
            assert_eq!($function(cache, computed).await, 1, "{}", stringify!($function));
            clock.advance(Duration::from_millis(1));
            assert_eq!($function(cache, computed).await, 2, "{}", stringify!($function));
        )+};
    }
    lives! {
        an_hour for 3600.0;
        a_minute for 60.0;
        a_minute_and_a_half for 90.0;
        seconds for 60.0;
        half_a_second for 0.5;
        milliseconds for 0.5;
        a_day for 86400.0;
        a_constant for 90.0;
        by_default for 300.0;
    }
    let clock = Clock::manual();
    let cache = &Cache::builder("memory://")
        .clock(clock.clone())
        .build()
        .unwrap();
    let computed = &Count::default();
    for _ in 0..2 {
        assert_eq!(for_ever(cache, computed).await, 1);
        clock.advance(Duration::from_secs(1 << 40));
    }
}

#[onetrip::cached(
    cache = CACHE,
    key = "{{{note.slug()}}} {note.author.name} {note.author.active} {ratio} {pair.1} {key}"
)]
fn keyed(note: &Note, ratio: f64, pair: (u8, char), key: &str, value: &str, error: &str) -> u32 {
    _ = (note, ratio, pair, key, value, error);
    0
}

#[test]
fn key_equals_the_one_from_python() {
    // Python writes `f"{{{note.slug}}} {note.author.name} …"` for the same values.
    assert_eq!(
        keyed_key(&Note::new(5), 1e16, (1, 'b'), "k"),
        "{note-5} Ada True 1e+16 b k"
    );
    assert_eq!(keyed(&Note::new(5), 0.5, (1, 'b'), "k", "v", "e"), 0);
}

/// Generated code must not confuse its variables with arguments of the same name.
#[onetrip::cached(cache = other, key = "named:{key}:{cache}")]
async fn named(key: u8, cache: u8, value: u8, error: u8, other: &Cache) -> (u8, u8, u8, u8) {
    _ = other;
    (key, cache, value, error)
}

#[tokio::test]
async fn arguments_may_have_any_name() {
    let other = &local();
    for _ in 0..2 {
        assert_eq!(named(1, 2, 3, 4, other).await, (1, 2, 3, 4));
    }
    assert_eq!(named_key(1, 2), "named:1:2");
}

/// The siblings take only the arguments and generics that the key needs.
#[onetrip::cached(key = "generic:{id}")]
async fn generic<I, T>(cache: &Cache, id: I, (first, second): (T, T)) -> Vec<T>
where
    I: std::fmt::Display,
    T: serde::Serialize + serde::de::DeserializeOwned + Sync,
{
    _ = (cache, id);
    vec![first, second]
}

#[tokio::test]
async fn generics_and_patterns_are_understood() {
    let cache = &local();
    assert_eq!(generic(cache, 5, (1_u8, 2)).await, [1, 2]);
    assert_eq!(generic(cache, 5, (3_u8, 4)).await, [1, 2]);
    assert_eq!(generic_key(5), "generic:5");
    assert!(generic_bust(cache, 5).await.unwrap());
}

struct Notes {
    cache: Arc<Cache>,
    computed: Count,
}

impl Notes {
    #[onetrip::cached(cache = self.cache, key = "mine:{id}", map_err = Failure::from)]
    async fn mine(&self, id: u32) -> Result<u32, Failure> {
        _ = id;
        Ok(self.computed.up())
    }
}

#[derive(Debug)]
struct Failure(onetrip::Error);

impl From<onetrip::Error> for Failure {
    fn from(error: onetrip::Error) -> Self {
        Self(error)
    }
}

#[tokio::test]
async fn store_failure_is_returned_with_map_err() {
    let raising = Cache::builder("redis://127.0.0.1:1").on_error(OnError::Raise);
    let notes = Notes {
        cache: Arc::new(raising.build().unwrap()),
        computed: Count::default(),
    };
    let Failure(error) = notes.mine(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(notes.computed.get(), 0);
    assert!(notes.mine_bust(1).await.is_err());
}

#[tokio::test]
async fn broken_store_breaks_no_function() {
    let (cache, note) = (&broken(), &Note::new(5));
    assert_eq!(markup(cache, note).await, "5 1");
    assert_eq!(markup(cache, note).await, "5 2");
    let raising = Cache::builder("redis://127.0.0.1:1").on_error(OnError::Raise);
    let (cache, computed) = (&raising.build().unwrap(), &Count::default());
    assert_eq!(nothing(cache, 1, computed).await, None);
}

#[onetrip::cached(key = "thread:{id}")]
fn in_a_thread(cache: &Cache, id: u32, computed: &Count) -> u32 {
    _ = id;
    computed.up()
}

#[tokio::test]
async fn blocking_function_in_a_task_reads_the_scope_or_computes() {
    let (cache, computed) = (&remote(), &Count::default());
    cache.set("thread:1", &7).await.unwrap();
    let page = async { Ok::<_, onetrip::Error>(in_a_thread(cache, 1, computed)) };
    assert_eq!(cache.preload(["thread:1"], page).await.unwrap(), 7);
    assert_eq!(
        in_a_thread(cache, 1, computed),
        1,
        "a task must not wait, so it computes"
    );
}

#[tokio::test]
async fn page_of_functions_takes_one_trip_and_posts_results() {
    let cache = &remote();
    let notes: Vec<Note> = (0..20).map(Note::new).collect();
    let page = async || {
        let keys = notes.iter().map(markup_key);
        let made = cache.preload(keys, async {
            for note in &notes {
                markup(cache, note).await;
            }
            Ok::<_, onetrip::Error>(())
        });
        made.await.unwrap();
    };
    for posted in [20, 0] {
        let ((), seen) = cache.watch(page()).await;
        assert_eq!((seen.trips(), seen.posted()), (1, posted));
    }
}

/// A spawned task must be `Send`, and so must the future of a cached function.
#[tokio::test]
async fn future_is_send() {
    let task = tokio::spawn(async move { markup(&local(), &Note::new(1)).await });
    assert_eq!(task.await.unwrap(), "1 1");
}

#[onetrip::cached(key = "slow:{id}")]
async fn slow(cache: &Cache, id: u32, computed: &Count) -> u32 {
    _ = (cache, id);
    tokio::time::sleep(Duration::from_millis(50)).await;
    computed.up()
}

#[tokio::test]
async fn concurrent_misses_compute_once() {
    let (cache, computed) = (&remote(), &Count::default());
    let calls = (0..20).map(|_| slow(cache, 1, computed));
    assert_eq!(futures_util::future::join_all(calls).await, [1; 20]);
    assert_eq!(computed.get(), 1);
}
