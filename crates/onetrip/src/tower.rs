//! Tower middleware: a scope for each request.
//!
//! ```
//! use axum::Router;
//! use axum::routing::get;
//! use onetrip::Cache;
//! use onetrip::tower::PageLayer;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let cache = Cache::open("memory://")?;
//! let page = {
//!     let cache = cache.clone();
//!     async move || {
//!         let keys = ["title", "text"];
//!         let page = cache.preload(keys, async { cache.get::<String>("title").await });
//!         format!("{:?}", page.await)
//!     }
//! };
//! let app: Router = Router::new()
//!     .route("/", get(page))
//!     .layer(PageLayer::new(cache));
//! # drop(app);
//! # Ok::<(), onetrip::Error>(())
//! # }).unwrap();
//! ```

#[cfg_attr(feature = "axum", path = "tower/axum/enabled.rs")]
#[cfg_attr(not(feature = "axum"), path = "tower/axum/disabled.rs")]
mod axum;
mod body;
mod naming;
mod page;
mod service;

pub use body::PageBody;
pub use service::{PageFuture, PageLayer, PageService};
