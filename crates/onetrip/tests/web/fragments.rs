//! Cached fragments of minijinja templates.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use minijinja::{Environment, Value, context};
use onetrip::minijinja::{install, render};
use onetrip::{Cache, Clock, Markup, OnError, fragment_key};

use crate::support::{Count, broken, local, remote};

/// Templates with a function `count()` that counts its calls.
fn templates(
    cache: &Cache,
    templates: &[(&'static str, &'static str)],
) -> Arc<Environment<'static>> {
    let mut environment = Environment::new();
    install(&mut environment, cache.clone());
    let count = Count::default();
    environment.add_function("count", move || count.up());
    for (name, source) in templates {
        environment.add_template(name, source).unwrap();
    }
    Arc::new(environment)
}

fn template(cache: &Cache, source: &'static str) -> Arc<Environment<'static>> {
    templates(cache, &[("page.html", source)])
}

async fn page(environment: &Arc<Environment<'static>>, values: Value) -> String {
    render(Arc::clone(environment), "page.html", values)
        .await
        .unwrap()
}

/// Returns the message with which a template fails.
async fn mistake(source: &'static str) -> String {
    let environment = template(&local(), source);
    let error = render(environment, "page.html", context! { id => 5 }).await;
    error.unwrap_err().to_string()
}

const COUNTED: &str = r#"{% call cache(60, "counted", id) %}<b>{{ count() }}</b>{% endcall %}"#;

#[tokio::test]
async fn body_is_rendered_only_on_a_miss() {
    let cache = remote();
    let environment = template(&cache, COUNTED);
    for (id, text) in [
        (5, "<b>1</b>"),
        (5, "<b>1</b>"),
        (6, "<b>2</b>"),
        (5, "<b>1</b>"),
    ] {
        assert_eq!(page(&environment, context! { id }).await, text);
    }
    let kept: Option<String> = cache.get("counted:5").await.unwrap();
    assert_eq!(kept.as_deref(), Some("<b>1</b>"));
}

#[tokio::test]
async fn cached_body_is_not_rendered() {
    let cache = local();
    cache
        .set(fragment_key("counted", [5]), "from elsewhere & safe")
        .await
        .unwrap();
    let environment = template(&cache, COUNTED);
    assert_eq!(
        page(&environment, context! { id => 5 }).await,
        "from elsewhere & safe"
    );
    assert_eq!(page(&environment, context! { id => 6 }).await, "<b>1</b>");
}

#[tokio::test]
async fn page_takes_one_trip_and_posts_fragments() {
    let cache = &remote();
    let environment = &template(
        cache,
        r#"{% for id in ids %}{% call cache(60, "n", id) %}{{ count() }} {% endcall %}{% endfor %}"#,
    );
    let ids: Vec<u32> = (0..20).collect();
    let visit = async || {
        let keys = ids.iter().map(|id| fragment_key("n", [id]));
        let page = page(environment, context! { ids => ids.clone() });
        let page = async { Ok::<_, onetrip::Error>(page.await) };
        cache.preload(keys, page).await.unwrap()
    };
    let (cold, seen) = cache.watch(visit()).await;
    assert_eq!((seen.trips(), seen.posted()), (1, 20));
    let (warm, seen) = cache.watch(visit()).await;
    assert_eq!((seen.trips(), seen.posted()), (1, 0));
    assert_eq!(cold, warm);
}

#[tokio::test]
async fn fragments_nest() {
    let cache = local();
    let environment = template(
        &cache,
        r#"{% call cache(60, "outer") %}{{ count() }}({% call cache(60, "inner") %}{{ count() }}{% endcall %}){% endcall %}"#,
    );
    assert_eq!(page(&environment, context! {}).await, "1(2)");
    cache.delete("outer").await.unwrap();
    assert_eq!(page(&environment, context! {}).await, "3(2)");
    assert_eq!(cache.get("inner").await.unwrap(), Some("2".to_owned()));
}

#[tokio::test]
async fn fragment_sees_and_escapes_outer_variables() {
    let environment = templates(
        &local(),
        &[
            (
                "page.html",
                r#"{% for name in names %}{% include "name.html" %}{% endfor %}{{ markup }}"#,
            ),
            (
                "name.html",
                r#"{% call cache(60, "name", name) %}{% set twice = name ~ name %}[{{ twice }}]{% endcall %}"#,
            ),
        ],
    );
    let markup = Value::from(Markup::new("<hr>"));
    let values = context! { names => ["a", "<"], markup };
    assert_eq!(
        page(&environment, values.clone()).await,
        "[aa][&lt;&lt;]<hr>"
    );
    assert_eq!(page(&environment, values).await, "[aa][&lt;&lt;]<hr>");
}

#[tokio::test]
async fn fragment_expires_after_its_ttl() {
    let clock = Clock::manual();
    let cache = Cache::builder("memory://")
        .clock(clock.clone())
        .build()
        .unwrap();
    let environment = template(
        &cache,
        r#"{% call cache(life, "counted") %}{{ count() }}{% endcall %}"#,
    );
    let short = context! { life => 1.5 };
    assert_eq!(page(&environment, short.clone()).await, "1");
    clock.advance(Duration::from_millis(1499));
    assert_eq!(page(&environment, short.clone()).await, "1");
    clock.advance(Duration::from_millis(1));
    assert_eq!(page(&environment, short).await, "2");

    clock.advance(Duration::from_secs(2));
    let long = context! { life => Value::from(()) };
    assert_eq!(page(&environment, long.clone()).await, "3");
    clock.advance(Duration::from_secs(1 << 40));
    assert_eq!(page(&environment, long).await, "3");

    cache.clear().await.unwrap();
    for count in ["4", "5"] {
        assert_eq!(page(&environment, context! { life => -1 }).await, count);
    }
}

#[tokio::test]
async fn keys_equal_those_from_python() {
    let cache = local();
    let environment = template(
        &cache,
        r#"{% call cache(60, "a:b%", id, 1.0, true, none, "ü:", 10000000000000000000000.0) %}{% endcall %}"#,
    );
    page(&environment, context! { id => 5 }).await;
    // The key that `onetrip.jinja.fragment_key("a:b%", 5, 1.0, True, None, "ü:", 1e22)` returns.
    let key = "a%3Ab%25:5:1.0:True:None:ü%3A:1e+22";
    assert!(cache.contains(key).await.unwrap());
    let parts = ["5", "1.0", "True", "None", "ü:", "1e+22"];
    assert_eq!(fragment_key("a:b%", parts), key);
}

#[tokio::test]
async fn mistakes_fail_with_advice() {
    for (source, said) in [
        (
            r#"{% call cache(60) %}{% endcall %}"#,
            "a fragment needs a ttl and a name",
        ),
        (
            r#"{{ cache(60, "name") }}"#,
            "must be called as {% call cache(",
        ),
        (
            r#"{% call cache(60, 5) %}{% endcall %}"#,
            "the name of a fragment must be a string, not 5",
        ),
        (
            r#"{% call cache("name", 60) %}{% endcall %}"#,
            "a number of seconds",
        ),
        (
            r#"{% call cache(missing, "name") %}{% endcall %}"#,
            "a number of seconds",
        ),
        (
            r#"{% call cache(60, "name", missing) %}{% endcall %}"#,
            "\"name\" varies on an undefined variable",
        ),
        (
            r#"{% call cache(60, "name", [1]) %}{% endcall %}"#,
            "use a string or a number",
        ),
        (
            r#"{% call cache(60, "name", vary=1) %}{% endcall %}"#,
            "vary",
        ),
    ] {
        let message = mistake(source).await;
        assert!(message.contains(said), "{source}: {message}");
    }
}

#[tokio::test]
async fn failing_body_is_not_cached() {
    let cache = local();
    let environment = template(
        &cache,
        r#"{% call cache(60, "failing") %}{{ 1 // zero }}{% endcall %}"#,
    );
    let failed = render(
        Arc::clone(&environment),
        "page.html",
        context! { zero => 0 },
    )
    .await;
    assert!(failed.is_err());
    assert_eq!(page(&environment, context! { zero => 1 }).await, "1");
}

#[tokio::test]
async fn scope_suffices_in_a_task() {
    let cache = &remote();
    let environment = template(cache, COUNTED);
    let counted = environment.get_template("page.html").unwrap();
    let here = || counted.render(context! { id => 5 }).unwrap();
    let visit = async || {
        let page = async { Ok::<_, onetrip::Error>(here()) };
        cache.preload(["counted:5"], page).await.unwrap()
    };
    assert_eq!(visit().await, "<b>1</b>");
    assert_eq!(visit().await, "<b>1</b>");
    // Without a scope the template must not wait: a miss, and the page is still rendered.
    assert_eq!(here(), "<b>2</b>");
}

#[test]
fn thread_may_wait_for_the_store() {
    let cache = remote();
    let environment = template(&cache, COUNTED);
    let counted = environment.get_template("page.html").unwrap();
    for _ in 0..2 {
        assert_eq!(counted.render(context! { id => 5 }).unwrap(), "<b>1</b>");
    }
}

#[tokio::test]
async fn broken_store_breaks_no_page() {
    let environment = template(&broken(), COUNTED);
    assert_eq!(page(&environment, context! { id => 5 }).await, "<b>1</b>");
    assert_eq!(page(&environment, context! { id => 5 }).await, "<b>2</b>");

    let raising = Cache::builder("redis://127.0.0.1:1")
        .on_error(OnError::Raise)
        .build()
        .unwrap();
    let environment = template(&raising, COUNTED);
    let failed = render(environment, "page.html", context! { id => 5 }).await;
    assert!(failed.unwrap_err().to_string().contains("counted:5"));
}

#[tokio::test]
#[should_panic(expected = "as a function of a template may")]
async fn panic_reaches_the_caller_of_render() {
    let mut environment = Environment::new();
    environment.add_function("fail", || -> Value {
        panic!("as a function of a template may")
    });
    environment
        .add_template("page.html", "{{ fail() }}")
        .unwrap();
    _ = render(Arc::new(environment), "page.html", context! {}).await;
}

#[test]
fn concurrent_misses_render_once() {
    const PAGES: usize = 8;
    let cache = remote();
    let mut environment = Environment::new();
    install(&mut environment, cache.clone());
    let rendered = Arc::new(Count::default());
    let count = Arc::clone(&rendered);
    environment.add_function("count", move || {
        std::thread::sleep(Duration::from_millis(50));
        count.up()
    });
    environment.add_template("page.html", COUNTED).unwrap();
    let (template, began) = (
        environment.get_template("page.html").unwrap(),
        Barrier::new(PAGES),
    );
    std::thread::scope(|threads| {
        for _ in 0..PAGES {
            threads.spawn(|| {
                began.wait();
                let page = template.render(context! { id => "together" });
                assert_eq!(page.unwrap(), "<b>1</b>");
            });
        }
    });
    assert_eq!(rendered.get(), 1);
}
