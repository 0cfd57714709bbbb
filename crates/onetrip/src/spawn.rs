//! Blocking code called from tasks.

use tokio::task::JoinHandle;

use crate::blocking_runtimes;
use crate::context::task;

/// Calls `body` on a thread that may block, with the scopes and watches of this task.
///
/// Use it instead of [`tokio::task::spawn_blocking`] for code with a
/// [`blocking::Cache`](crate::blocking). On Tokio's blocking threads that cache cannot tell that it
/// may block, and it does not see the task's scopes.
///
/// ```
/// use onetrip::Cache;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let cache = Cache::open("memory://?latency=100us")?;
/// cache.set("greeting", "hello").await?;
///
/// let page = cache.preload(["greeting"], async {
///     let cache = cache.blocking();
///     let thread = onetrip::spawn_blocking(move || cache.get::<String>("greeting"));
///     thread.await.unwrap()
/// });
/// let (page, seen) = cache.watch(page).await;
/// assert_eq!(page?.as_deref(), Some("hello"));
/// assert_eq!(seen.trips(), 1); // the preload; the thread read its answers
/// # Ok::<(), onetrip::Error>(())
/// # }).unwrap();
/// ```
///
/// Await the handle within the scope: writes that wait in a scope are sent when it closes.
///
/// # Panics
///
/// Panics outside of a Tokio runtime.
pub fn spawn_blocking<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let contexts = task::all();
    tokio::task::spawn_blocking(move || {
        blocking_runtimes::may_block(|| task::within_all(contexts, body))
    })
}
