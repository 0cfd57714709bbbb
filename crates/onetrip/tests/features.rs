//! What is left out of a build is refused by the name of its feature.
//!
//! `make test` runs this with all features and with none.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise, in its helpers too"
)]

use std::time::Duration;

use bytes::Bytes;
use onetrip::trip::{Op, Trip};
use onetrip::{Cache, Clock, Compression, ErrorKind, Result, store};
use serde_json::Value;

const REDIS: (&str, bool) = ("redis", cfg!(feature = "redis"));
const TLS: (&str, bool) = ("tls", cfg!(feature = "tls"));
const MEMCACHED: (&str, bool) = ("memcached", cfg!(feature = "memcached"));
const KYOTO: (&str, bool) = ("kyoto", cfg!(feature = "kyoto"));
const ZSTD: (&str, bool) = ("zstd", cfg!(feature = "zstd"));
const LZ4: (&str, bool) = ("lz4", cfg!(feature = "lz4"));

#[track_caller]
fn assert_needs((feature, is_built_in): (&str, bool), opened: Result<Cache>) {
    match opened {
        Ok(_) => assert!(is_built_in, "{feature} is off"),
        Err(error) => {
            assert!(!is_built_in, "{error}");
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let named = format!("needs the feature {feature:?}");
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
}

#[test]
fn a_url_needs_the_feature_of_its_store() {
    for (needed, url) in [
        (REDIS, "redis://localhost"),
        (REDIS, "redis+unix:///run/redis.sock"),
        (REDIS, "valkey+cluster://a,b"),
        (MEMCACHED, "memcached://a,b"),
        (KYOTO, "kt://localhost"),
    ] {
        assert_needs(needed, Cache::open(url));
    }
    let folder = std::env::temp_dir().join(format!("onetrip-features-{}", std::process::id()));
    let disk = Cache::open(format!("disk://{}", folder.display()));
    assert_needs(("disk", cfg!(feature = "disk")), disk);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_url_with_tls_needs_its_feature() {
    for url in [
        "rediss://localhost",
        "valkeys://localhost",
        "redis+cluster://a,b?ssl=true",
        "redis+sentinel://a,b/notes?ssl=1",
    ] {
        assert_needs(if REDIS.1 { TLS } else { REDIS }, Cache::open(url));
    }
}

#[test]
fn a_codec_needs_its_feature() {
    for (needed, codec) in [(ZSTD, Compression::Zstd), (LZ4, Compression::Lz4)] {
        let cache = Cache::builder("memory://").compression(Some(codec));
        assert_needs(needed, cache.build());
    }
}

#[test]
fn an_entry_by_a_missing_codec_is_a_bad_entry() {
    for (feature, is_built_in) in [ZSTD, LZ4] {
        let entry = vector(feature);
        let url = format!("memory://features-{feature}");
        let cache = Cache::builder(&url).prefix("blog").build().unwrap();
        plant(&url, entry);
        let read: Option<String> = cache.blocking().get("note:5").unwrap();
        assert_eq!(read, is_built_in.then(|| "a".repeat(100)));
        let stats = cache.stats();
        assert_eq!(stats.bad_entries, u64::from(!is_built_in), "{feature}");
        assert_eq!(stats.misses, u64::from(!is_built_in), "{feature}");
    }
}

/// Returns the entry `blog:note:5` of docs/format-vectors.json, a hundred times "a".
fn vector(compression: &str) -> Bytes {
    let vectors = include_str!("../../../docs/format-vectors.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let is_it = |vector: &&Value| {
        vector["compression"] == compression
            && vector["secret"].is_null()
            && vector["kind"] == "str"
    };
    let vector = vectors["good"].as_array().unwrap().iter().find(is_it);
    let digits = vector.unwrap()["entry"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Puts `entry` into the store that caches of `url` share.
fn plant(url: &str, entry: Bytes) {
    let options = store::StoreOptions {
        clock: Clock::system(),
        connect_timeout: Duration::from_secs(1),
        trip_timeout: Duration::from_secs(1),
    };
    let set = Op::Set {
        name: Bytes::from_static(b"blog:note:5"),
        entry,
        ttl: None,
    };
    let store = store::open(url, &options).unwrap();
    let store::Exchange::Ready(_) = store.exchange(&Trip::from(set)) else {
        panic!("a local store answers at once");
    };
}
