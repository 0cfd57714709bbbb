//! Law 5: a scope belongs to one task or thread.

use std::sync::{Barrier, Mutex};

use onetrip::Ttl;

use crate::support::{Bed, Face, Outcome};

on_every_store![
    scopes_end,
    another_thread_has_no_scope,
    concurrent_pages_never_share_a_scope,
    parts_of_one_task_share_its_scope,
    write_concurrent_with_a_touch_is_not_lost,
    dropped_page_leaves_no_scope,
];

async fn scopes_end(bed: Bed) -> Outcome {
    let (cache, outside) = (&bed.cache(), bed.cache());
    cache.set("a", &1).await?;
    cache.preload(["a"], async { Ok(()) }).await?;
    outside.set("a", &2).await?;
    assert_eq!(cache.get("a").await?, Some(2));
    cache.set("b", &1).await?;
    assert_eq!(outside.get("b").await?, Some(1));
    Ok(())
}

/// Runs `page` as a separate request: on a new thread, or in a new task.
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
    let (cache, others) = (&bed.cache(), bed.elsewhere());
    others.set("a", "old").await?;
    let page = async {
        others.set("a", "new").await?;
        on_another_thread(cache, async |cache| {
            let new = Some("new".to_owned());
            assert_eq!(cache.get("a").await?, new, "the thread has no scope");
            assert_eq!(cache.cached("a", Ttl::Never, String::new).await?, "new");
            cache.set("c", "at once").await
        });
        assert_eq!(cache.get("c").await?, Some("at once".to_owned()));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn concurrent_pages_never_share_a_scope(bed: Bed) -> Outcome {
    const PAGES: usize = 8;
    let (cache, others) = (&bed.cache(), &bed.elsewhere());
    let (all_hold, all_read) = (&Barrier::new(PAGES), &Barrier::new(PAGES));
    // One after the other, each finds what the previous one left.
    let turn = &Mutex::new(());
    std::thread::scope(|threads| {
        for page in 0..PAGES {
            threads.spawn(move || {
                on_another_thread(cache, async |cache| {
                    let mine = page.to_string();
                    let mut begin = Some(turn.lock().unwrap());
                    others.set("shared", &mine).await?;
                    let work = async {
                        begin.take();
                        all_hold.wait();
                        assert_eq!(cache.get("shared").await?, Some(mine.clone()));
                        all_read.wait();
                        Ok(())
                    };
                    cache.preload(["shared"], work).await
                });
            });
        }
    });
    Ok(())
}

async fn parts_of_one_task_share_its_scope(bed: Bed) -> Outcome {
    let face = &bed.cache();
    let Face::Awaited(cache) = face else {
        return Ok(());
    };
    let others = bed.elsewhere();
    others.set("a", "old").await?;
    let page = async {
        others.set("a", "new").await?;
        let (one, other) = tokio::join!(cache.get("a"), cache.get("a"));
        let old = Some("old".to_owned());
        assert_eq!((one?, other?), (old.clone(), old));
        // A spawned task is a separate request, unless it carries the context.
        let alone = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get("a").await }
        });
        assert_eq!(alone.await.unwrap()?, Some("new".to_owned()));
        Ok(())
    };
    cache.preload(["a"], page).await
}

async fn write_concurrent_with_a_touch_is_not_lost(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        return Ok(());
    };
    cache.set("a", "old").await?;
    let page = async {
        let (touched, set) = tokio::join!(cache.touch("a", Ttl::Never), cache.set("a", "new"));
        assert!(touched?);
        set
    };
    cache.scope(page).await?;
    assert_eq!(cache.get("a").await?, Some("new".to_owned()));
    Ok(())
}

async fn dropped_page_leaves_no_scope(bed: Bed) -> Outcome {
    let Face::Awaited(cache) = &bed.cache() else {
        return Ok(());
    };
    let others = bed.elsewhere();
    others.set("a", "old").await?;
    let page = async {
        cache.set("b", "written").await?;
        std::future::pending::<()>().await;
        Ok::<_, onetrip::Error>(())
    };
    let written = async {
        while others.get("b").await?.is_none() {
            tokio::task::yield_now().await;
        }
        Ok::<_, onetrip::Error>(())
    };
    tokio::select! {
        biased;
        _ = cache.preload(["a"], page) => unreachable!("it never ends"),
        written = written => written?,
    }
    others.set("a", "new").await?;
    assert_eq!(cache.get("a").await?, Some("new".to_owned()));
    Ok(())
}
