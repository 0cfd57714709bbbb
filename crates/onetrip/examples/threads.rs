//! One cache used by blocking threads. Each thread has scopes of its own.

use onetrip::blocking::Cache;

fn page(cache: &Cache, id: u32) -> onetrip::Result<i64> {
    let (note, views) = (format!("note:{id}"), format!("views:{id}"));
    cache.preload([&note, &views], || {
        if !cache.contains(&note)? {
            cache.set(&note, &format!("Note {id}"))?;
        }
        // Counted in the store, at once: other pages count there too.
        match cache.incr(&views, 1)? {
            Some(count) => Ok(count),
            None => cache.set(&views, &1).map(|()| 1),
        }
    })
}

/// Shows a page three times. Returns its number of views.
fn visits(cache: &Cache, id: u32) -> onetrip::Result<i64> {
    page(cache, id)?;
    page(cache, id)?;
    page(cache, id)
}

fn main() -> onetrip::Result<()> {
    let cache = &onetrip::Cache::open("memory://")?.blocking();
    std::thread::scope(|threads| {
        for id in 1..=4 {
            threads.spawn(move || match visits(cache, id) {
                Ok(views) => println!("note {id}: {views} views"),
                Err(error) => eprintln!("note {id}: {error}"),
            });
        }
    });
    let stats = cache.asynchronous().stats();
    println!("{} trips for 12 pages, {} hits", stats.trips, stats.hits);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_counted() {
        let cache = onetrip::Cache::open("memory://").unwrap().blocking();
        for views in 1..=3 {
            assert_eq!(page(&cache, 5).unwrap(), views);
        }
        main().unwrap();
    }
}
