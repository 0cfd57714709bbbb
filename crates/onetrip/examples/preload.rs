//! A page of fifty pieces in one trip. Missing pieces are computed and posted.
//!
//! Run `cargo run --example preload`. To use another store, add its URL: `--
//! redis://127.0.0.1:6379`.

use onetrip::Cache;

#[onetrip::cached(key = "note:{id}")]
async fn piece(cache: &Cache, id: u32) -> String {
    let _ = cache;
    format!("<li>note:{id}</li>")
}

async fn page(cache: &Cache) -> onetrip::Result<String> {
    let keys = (1..=50).map(piece_key);
    let pieces = async {
        let mut html = String::new();
        for id in 1..=50 {
            // The scope answers. A missing piece is computed, and nobody waits until it is stored.
            html += &piece(cache, id).await;
        }
        Ok(html)
    };
    cache.preload(keys, pieces).await
}

async fn run(url: &str) -> onetrip::Result<()> {
    let cache = Cache::builder(url).prefix("preload-example").build()?;
    cache.clear().await?;
    for state in ["cold", "warm"] {
        let (html, seen) = cache.watch(page(&cache)).await;
        let (bytes, trips, posted) = (html?.len(), seen.trips(), seen.posted());
        println!("{state}: {bytes} bytes, {trips} trips, {posted} pieces posted");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(run(url.as_deref().unwrap_or("memory://?latency=100us")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn page_takes_one_trip_and_posts_its_results() {
        run("memory://?latency=10us").await.unwrap();
        let cache = Cache::open("memory://?latency=10us").unwrap();
        for posted in [50, 0] {
            let (html, seen) = cache.watch(page(&cache)).await;
            assert!(html.unwrap().ends_with("<li>note:50</li>"));
            assert_eq!((seen.trips(), seen.posted()), (1, posted));
        }
    }
}
