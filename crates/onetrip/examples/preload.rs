//! A page of fifty pieces: one trip in when it is warm, one in and one out when it is cold.
//!
//! `cargo run --example preload`, or with the URL of a store behind it: `-- redis://127.0.0.1:6379`.

use onetrip::{Cache, Timeout};

async fn page(cache: &Cache) -> onetrip::Result<String> {
    let keys: Vec<String> = (1..=50).map(|id| format!("note:{id}")).collect();
    let pieces = async {
        let mut html = String::new();
        for key in &keys {
            // Answered by the scope; what is missing is made, and written when the scope closes.
            let make = async || format!("<li>{key}</li>");
            let piece: String = cache.get_or_insert(key, Timeout::Default, make).await?;
            html += &piece;
        }
        Ok(html)
    };
    cache.preload(&keys, pieces).await?
}

async fn run(url: &str) -> onetrip::Result<()> {
    let cache = Cache::builder(url).prefix("preload-example").build()?;
    cache.clear().await?;
    for state in ["cold", "warm"] {
        let (html, seen) = cache.watch(page(&cache)).await;
        println!("{state}: {} bytes, {} trips", html?.len(), seen.trips());
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(run(url.as_deref().unwrap_or("memory://")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cold_page_takes_two_trips_and_a_warm_one_takes_one() {
        let cache = Cache::open("memory://").unwrap();
        for trips in [2, 1] {
            let (html, seen) = cache.watch(page(&cache)).await;
            assert!(html.unwrap().ends_with("<li>note:50</li>"));
            assert_eq!(seen.trips(), trips);
        }
    }

    #[tokio::test]
    async fn it_runs() {
        run("memory://").await.unwrap();
    }
}
