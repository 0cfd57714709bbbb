//! Invalid options are refused when the cache is built, with advice.

use std::time::Duration;

use onetrip::{Builder, Cache, Compression, ErrorKind, Serializer};

/// Returns the message with which these options are refused.
#[track_caller]
fn refused(builder: Builder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    error.to_string()
}

#[track_caller]
fn assert_refused(url: &str, words: &[&str]) {
    let message = refused(Cache::builder(url));
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn unknown_scheme_lists_the_schemes() {
    assert_refused(
        "carrier-pigeon://loft",
        &[
            "carrier-pigeon",
            "memory://",
            "redis://",
            "rediss://",
            "redis+unix://",
            "valkey://",
            "memcached://",
            "memcached+unix://",
            "kt://",
        ],
    );
}

#[test]
fn invalid_url_shows_an_example() {
    for text in [
        "",
        "localhost",
        "127.0.0.1:6379",
        "://",
        "redis://host:port",
    ] {
        assert_refused(text, &["memory://", "redis://127.0.0.1:6379/0"]);
    }
}

#[test]
fn unknown_option_lists_the_options() {
    assert_refused("memory://?sise=1MB", &["sise", "size", "latency"]);
    assert_refused("redis://localhost?timeout=5", &["timeout", "db"]);
    assert_refused("redis+unix:///run/redis.sock?size=5", &["size", "db"]);
    assert_refused(
        "rediss://localhost?ca=x",
        &["ca", "ssl_ca_certs", "ssl_keyfile"],
    );
    assert_refused("memcached://localhost?db=1", &["db", "none"]);
    assert_refused("kt://localhost?db=1", &["db", "none"]);
    assert_refused("kt://me:secret@localhost", &["user", "password"]);
    // For TLS only.
    assert_refused("redis://localhost?ssl_ca_certs=x", &["ssl_ca_certs"]);
}

#[test]
fn invalid_option_value_says_what_is_expected() {
    for size in [
        "",
        "0",
        "-1",
        "1.5MB",
        "MB",
        "1 MB",
        "1TB",
        "99999999999GiB",
    ] {
        assert_refused(&format!("memory://?size={size}"), &["size", "256MiB"]);
    }
    for span in ["", "5", "us", "-1ms", "1h", "nans", "infs"] {
        assert_refused(&format!("memory://?latency={span}"), &["latency", "500us"]);
    }
    for database in ["x", "1.5", ""] {
        assert_refused(&format!("redis://localhost?db={database}"), &["db"]);
    }
    assert_refused("redis://localhost/notes", &["redis://host/0"]);
    assert_refused("redis://localhost/0/1", &["redis://host/0"]);
    for path in ["x", "-1", "65536", "0/1"] {
        assert_refused(&format!("kt://localhost/{path}"), &["kt://host:1978/0"]);
    }
}

#[test]
fn sizes_and_durations_have_units() {
    for url in [
        "memory://?size=4096",
        "memory://?size=64kB&latency=500us",
        "memory://?size=64KiB&latency=2ms",
        "memory://?size=64MB&latency=0.5s",
        "memory://?size=1GiB&latency=0s",
        "memory:",
        "redis://localhost",
        "valkey://user:pass@localhost:6379/3",
        "redis+unix:///run/redis.sock?db=3",
        "rediss://localhost/0",
        "memcached://",
        "memcached://localhost",
        "memcached://h1:11211,h2,[::1]:11213/",
        "memcached+unix:///run/memcached.sock",
        "kt://localhost",
        "kt://[::1]:1978/65535",
        "redis+cluster://a:7000,b,[::1]:7001",
        "valkey+cluster://user:pass@a,b/0?ssl=true",
        "redis+sentinel://a,b:26380/notes",
        "valkey+sentinel://a/notes/3?sentinel_username=x&sentinel_password=y&ssl=false",
    ] {
        Cache::open(url).unwrap();
    }
}

#[test]
fn several_servers_need_a_cluster_or_sentinel_scheme() {
    assert_refused("redis://a,b", &["redis+cluster://", "redis+sentinel://"]);
    assert_refused("redis+sentinel://a,b", &["service", "mymaster"]);
    assert_refused("redis+sentinel://a/notes/x", &["redis://host/0"]);
    assert_refused("redis+cluster://a/1", &["database", "prefix"]);
    assert_refused("redis+cluster://a,b:x", &["memory://"]);
    assert_refused("redis+cluster://a?ssl=maybe", &["ssl", "true or false"]);
    assert_refused("redis+cluster://a?ssl_ca_certs=x", &["ssl_ca_certs", "ssl"]);
    assert_refused("redis+cluster://a?sentinel_password=x", &["has no option"]);
    let cache = Cache::open("redis+cluster://user:s3cret@a:7000,[::1]:7001,c/").unwrap();
    assert_eq!(cache.label(), "redis+cluster://user@a:7000,[::1]:7001,c/");
    assert!(!format!("{cache:?}").contains("s3cret"));
    let cache = Cache::open("redis+sentinel://a,b/notes?sentinel_password=s3cret").unwrap();
    assert_eq!(cache.label(), "redis+sentinel://a,b/notes");
    assert!(!format!("{cache:?}").contains("s3cret"));
}

#[test]
fn socket_needs_a_path() {
    assert_refused("redis+unix://", &["redis+unix:///run/redis.sock"]);
    assert_refused("redis+unix:///", &["redis+unix:///run/redis.sock"]);
    for url in [
        "memcached+unix://",
        "memcached+unix:///",
        "memcached+unix://run/sock",
    ] {
        assert_refused(url, &["memcached+unix:///run/memcached.sock"]);
    }
}

#[test]
fn certificates_are_read_when_the_cache_is_built() {
    assert_refused(
        "rediss://localhost?ssl_ca_certs=/no/such/file",
        &["/no/such/file", "PEM"],
    );
}

#[test]
fn memcached_url_takes_only_servers() {
    assert_refused("memcached://h1,h2:x", &["\"h2:x\" has a port"]);
    assert_refused("memcached://h1,h2,h1:11211", &["h1:11211 twice"]);
    assert_refused("memcached://h1/0", &["prefix"]);
    assert_refused("memcached://me:s3cret@h1", &["login"]);
    let message = refused(Cache::builder("memcached://me:s3cret@h1,h2"));
    assert!(!message.contains("s3cret"), "{message}");
    let cache = Cache::open("memcached://h1:1,h2").unwrap();
    assert_eq!(cache.label(), "memcached://h1:1,h2");
}

#[test]
fn host_list_is_refused_by_stores_of_one_server() {
    assert_refused("redis://h1:1,h2:2/0", &["redis://h1:1,h2:2/0", "takes one"]);
    assert_refused("memory://a,b", &["takes one"]);
    assert_refused("kt://h1,h2", &["takes one"]);
}

#[test]
fn password_is_never_shown() {
    let cache = Cache::open("redis://user:s3cret@localhost:1/0").unwrap();
    assert_eq!(cache.label(), "redis://user@localhost:1/0");
    assert!(!format!("{cache:?}").contains("s3cret"));
    let message = refused(Cache::builder("redis://user:s3cret@localhost?x=1"));
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn empty_secrets_are_refused() {
    assert!(refused(Cache::builder("memory://").secrets([""])).contains("empty"));
    assert!(refused(Cache::builder("memory://").secrets(["long", ""])).contains("empty"));
    let pickle = Cache::builder("memory://").serializer(Serializer::Pickle);
    assert!(refused(pickle.clone()).contains("secret"));
    pickle.secrets(["long"]).build().unwrap();
}

#[test]
fn raw_serializer_takes_neither_secret_nor_compression() {
    let raw = Cache::builder("memory://").serializer(Serializer::Raw);
    assert!(refused(raw.clone().secrets(["long"])).contains("raw"));
    assert!(refused(raw.clone().compression(Some(Compression::Lz4))).contains("raw"));
    raw.build().unwrap();
}

#[test]
fn zero_trip_timeout_is_refused() {
    let cache = Cache::builder("memory://");
    assert!(refused(cache.clone().connect_timeout(Duration::ZERO)).contains("connect_timeout"));
    assert!(refused(cache.trip_timeout(Duration::ZERO)).contains("trip_timeout"));
}

#[test]
fn nothing_connects_before_the_first_trip() {
    Cache::open("redis://127.0.0.1:1/0").unwrap();
    Cache::open("redis+unix:///no/such/socket").unwrap();
    Cache::open("memcached://127.0.0.1:1,127.0.0.1:2").unwrap();
    Cache::open("memcached+unix:///no/such/socket").unwrap();
}
