//! Code that blocks, called from tasks.

use tokio::task::JoinHandle;

use crate::blocking_runtimes;
use crate::context::task;

/// Calls `body` on a thread that may block, within the scopes and under the watches of this task.
///
/// It is [`tokio::task::spawn_blocking`] for code that uses [`blocking::Cache`](crate::blocking):
/// on a thread of Tokio's own that cache could not tell that it may wait, and would know nothing of
/// the task's scopes.
///
/// ```
/// use onetrip::Cache;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = Cache::open("memory://?latency=100us")?;
/// cache.set("greeting", "hello").await?;
///
/// let page = cache.preload(["greeting"], {
///     let cache = cache.blocking();
///     onetrip::spawn_blocking(move || cache.get::<String>("greeting"))
/// });
/// let (page, seen) = cache.watch(page).await;
/// assert_eq!(page?.unwrap()?.as_deref(), Some("hello"));
/// assert_eq!(seen.trips(), 1); // the preload; the thread read what it brought
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
///
/// What waits in a scope to be written stays there until the scope closes: await the handle within
/// it.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub fn spawn_blocking<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let contexts = task::all();
    tokio::task::spawn_blocking(move || {
        blocking_runtimes::may_block(|| task::within_all(contexts, body))
    })
}
