//! Blocking code in tasks.

use onetrip::{ErrorKind, Ttl};

use crate::support::{local, remote, words};

#[tokio::test]
async fn spawned_thread_keeps_the_scope_of_its_task() {
    let cache = &remote();
    cache.set("a", &1).await.unwrap();
    let page = cache.preload(["a"], async {
        let thread = {
            let cache = cache.blocking();
            onetrip::spawn_blocking(move || {
                assert_eq!(cache.get("a")?, Some(1));
                // Reads from the store what the scope does not hold.
                cache.set("b", &2)?;
                cache.get_or_insert_with("c", Ttl::Default, || 3)
            })
        };
        assert_eq!(thread.await.unwrap().unwrap(), 3);
        let held = cache.get_or_insert_with("c", Ttl::Default, async || 4);
        assert_eq!(held.await.unwrap(), 3);
        Ok::<_, onetrip::Error>(())
    });
    let (page, seen) = cache.watch(page).await;
    page.unwrap();
    assert_eq!(
        words(&seen),
        [vec!["get"], vec!["set"], vec!["get"], vec!["add", "get"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_thread_may_wait_on_either_runtime() {
    let cache = remote().blocking();
    let thread = onetrip::spawn_blocking(move || {
        cache.set("a", &1)?;
        cache.get::<u8>("a")
    });
    assert_eq!(thread.await.unwrap().unwrap(), Some(1));
}

#[tokio::test]
async fn blocking_call_in_a_task_fails_with_advice() {
    let error = remote().blocking().get::<u8>("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.to_string().contains("onetrip::spawn_blocking"),
        "{error}"
    );
    assert_eq!(local().blocking().get::<u8>("a").unwrap(), None);
}

#[tokio::test]
async fn permission_to_wait_ends_with_its_closure() {
    // A single blocking thread: the second call runs on the thread of the first.
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let outcome = std::thread::spawn(move || {
        runtime().block_on(async {
            let panicking = onetrip::spawn_blocking(|| panic!("as a template may"));
            assert!(panicking.await.unwrap_err().is_panic());
            let cache = remote().blocking();
            tokio::task::spawn_blocking(move || cache.get::<u8>("a"))
                .await
                .unwrap()
        })
    });
    assert_eq!(
        outcome.join().unwrap().unwrap_err().kind(),
        ErrorKind::Configuration
    );
}
