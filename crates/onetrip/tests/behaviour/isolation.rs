//! Law 5: a scope belongs to one task or thread.

use std::sync::Barrier;

use onetrip::Timeout;

use crate::support::{Bed, Face, Outcome};

on_every_store![
    scopes_end,
    another_thread_has_no_scope,
    two_pages_at_once_never_share,
    parts_of_one_task_share_its_scope,
    a_write_beside_a_touch_is_not_lost,
    a_page_that_is_dropped_writes_nothing,
];

async fn scopes_end(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    cache.set("a", &1).await?;
    cache.preload(["a"], async { Ok(()) }).await?;
    outside.set("a", &2).await?;
    assert_eq!(cache.get("a").await?, Some(2));
    cache.set("b", &1).await?;
    assert_eq!(outside.get("b").await?, Some(1), "writes wait no more");
    Ok(())
}

/// Runs `page` as a request of its own: on a new thread, or in a new task of one.
fn on_another_thread<F: Future<Output = Outcome>>(
    cache: &Face,
    page: impl FnOnce(Face) -> F + Send,
) {
    let cache = cache.clone();
    std::thread::scope(|threads| {
        let done = threads.spawn(move || cache.driver().run(page(cache)));
        done.join().unwrap().unwrap();
    });
}

async fn another_thread_has_no_scope(bed: Bed) -> Outcome {
    let cache = &bed.cache();
    cache.set("a", "old").await?;
    let page = async {
        cache.set("a", "waiting").await?;
        cache.set("b", "waiting").await?;
        on_another_thread(cache, async |cache| {
            assert_eq!(cache.get("a").await?, Some("old".to_owned()));
            assert_eq!(cache.get::<String>("b").await?, None);
            cache.set("c", "at once").await
        });
        assert_eq!(cache.get("c").await?, Some("at once".to_owned()));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn two_pages_at_once_never_share(bed: Bed) -> Outcome {
    const PAGES: usize = 8;
    let cache = &bed.cache();
    let (all_wrote, all_read) = (&Barrier::new(PAGES), &Barrier::new(PAGES));
    std::thread::scope(|threads| {
        for page in 0..PAGES {
            threads.spawn(move || {
                on_another_thread(cache, async |cache| {
                    let (shared, own) = ("shared", format!("own:{page}"));
                    let work = async {
                        cache.set(shared, &page).await?;
                        cache.set(&own, &page).await?;
                        all_wrote.wait();
                        assert_eq!(cache.get(shared).await?, Some(page));
                        for other in (0..PAGES).filter(|other| *other != page) {
                            let theirs = cache.get::<usize>(format!("own:{other}"));
                            assert_eq!(theirs.await?, None);
                        }
                        all_read.wait();
                        Ok(())
                    };
                    cache.preload(["shared"], work).await
                });
            });
        }
    });
    for page in 0..PAGES {
        assert_eq!(cache.get(format!("own:{page}")).await?, Some(page));
    }
    Ok(())
}

async fn parts_of_one_task_share_its_scope(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        return Ok(());
    };
    let page = async {
        let (one, other) = tokio::join!(cache.set("a", &1), cache.set("b", &2));
        one.and(other)?;
        let (a, b) = tokio::join!(cache.get("b"), cache.get("a"));
        assert_eq!((a?, b?), (Some(2), Some(1)));
        // A spawned task is another request, unless it is told otherwise.
        let alone = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get::<i64>("a").await }
        });
        assert_eq!(alone.await.unwrap()?, None);
        Ok(())
    };
    cache.scope(page).await?
}

async fn a_write_beside_a_touch_is_not_lost(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        return Ok(());
    };
    cache.set("a", "old").await?;
    let page = async {
        let (touched, set) = tokio::join!(cache.touch("a", Timeout::Never), cache.set("a", "new"));
        assert!(touched?);
        set
    };
    cache.scope(page).await??;
    assert_eq!(cache.get("a").await?, Some("new".to_owned()));
    Ok(())
}

async fn a_page_that_is_dropped_writes_nothing(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        return Ok(());
    };
    let page = async {
        cache.set("a", &1).await?;
        std::future::pending::<()>().await;
        Ok::<_, onetrip::Error>(())
    };
    tokio::select! {
        biased;
        _ = cache.scope(page) => unreachable!("it never ends"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(cache.get::<i64>("a").await?, None);
    cache.set("a", &2).await?;
    assert_eq!(cache.get("a").await?, Some(2), "no scope is left over");
    Ok(())
}
