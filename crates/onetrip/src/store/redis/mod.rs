//! Redis and Valkey: a server over TCP, TLS or a Unix socket, the primary that
//! sentinels name, or a cluster.

mod address;
mod cluster;
mod commands;
mod connection;
mod node;
mod post;
mod routed_op;
mod sentinel;
mod server;
mod shared;
mod slots;
#[cfg_attr(feature = "tls", path = "tls/enabled.rs")]
#[cfg_attr(not(feature = "tls"), path = "tls/disabled.rs")]
mod tls;
mod topology;
mod transport;

use std::sync::Arc;

use self::address::Target;
use self::cluster::Cluster;
use self::sentinel::Sentinel;
use self::server::{Server, Way};
use self::topology::Topology;
use super::with_breaker::WithBreaker;
use super::{Store, StoreOptions};
use crate::error::Result;
use crate::url::StoreUrl;

/// Opens the store that a URL names.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let label: Arc<str> = url.label().into();
    let way = match address::target(url)? {
        Target::Server(door) => Way::Direct(door),
        Target::Service {
            sentinels,
            service,
            primary,
        } => {
            let label = Arc::clone(&label);
            let timeout = options.connect_timeout;
            Way::Sentinel(Sentinel::new(sentinels, service, primary, label, timeout))
        }
        Target::Cluster { seeds, greeting } => {
            let topology = Topology::new(seeds, greeting, Arc::clone(&label), options);
            return Ok(Arc::new(Cluster::new(topology, label, options)));
        }
    };
    let server = Arc::new(Server::new(way, label, options));
    Ok(Arc::new(WithBreaker::new(server, options.clock.clone())))
}
