//! Memcached over TCP or a Unix socket, by its meta protocol: one server, or several that share
//! the keys.
//!
//! What Memcached cannot do is seen here alone: names that it does not take are hashed
//! ([`name`]), times are whole seconds ([`Expiry`](crate::wire::memcached::Expiry)), and a prefix
//! cannot be removed: without one, all that the servers hold is.

mod address;
mod commands;
mod connection;
mod name;
mod node;
mod ring;

use std::sync::Arc;

use smallvec::SmallVec;

use self::node::Node;
use self::ring::Ring;
use super::with_breaker::WithBreaker;
use super::{Exchange, Store, StoreOptions};
use crate::blocking_runtimes;
use crate::error::{Error, ErrorKind, Result};
use crate::trip::{Op, Purpose, Replies, Reply, ScopeId, Trip};
use crate::url::StoreUrl;

/// Servers that share the keys.
#[derive(Debug)]
struct Memcached {
    /// Each with its own breaker and pending deletes: one that is down costs only its own keys.
    servers: Vec<WithBreaker>,
    ring: Ring,
    label: Arc<str>,
}

/// What one server is asked, and where its answers belong in the whole trip.
#[derive(Debug, Default)]
struct Part {
    trip: Trip,
    places: SmallVec<[usize; 1]>,
}

/// Opens the store that a URL names.
pub(super) fn open(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let addresses = address::addresses(url)?;
    let servers = addresses
        .iter()
        .map(|address| {
            let node = Arc::new(Node::new(address.clone(), options));
            WithBreaker::new(node, options.clock.clone())
        })
        .collect();
    let hosts: Vec<_> = addresses.iter().map(|address| address.on_ring()).collect();
    Ok(Arc::new(Memcached {
        servers,
        ring: Ring::new(&hosts),
        label: url.label().into(),
    }))
}

fn is_clear_of_prefix(op: &Op) -> bool {
    matches!(op, Op::Clear { prefix } if !prefix.is_empty())
}

impl Memcached {
    /// Asks each server what belongs to it, side by side.
    async fn answer(&self, trip: &Trip) -> Result<Replies> {
        let mut replies: SmallVec<[Option<Reply>; 1]> = SmallVec::new();
        let mut parts: Vec<Part> = self.servers.iter().map(|_| Part::default()).collect();
        for (place, op) in trip.ops().iter().enumerate() {
            if is_clear_of_prefix(op) {
                replies.push(Some(Reply::Failed(self.no_clear())));
                continue;
            }
            replies.push(None);
            if matches!(op, Op::Clear { .. }) {
                for part in &mut parts {
                    part.trip.push(op.clone());
                    part.places.push(place);
                }
                continue;
            }
            let server = self.ring.server(&name::key(op.name()));
            if let Some(part) = parts.get_mut(server) {
                part.trip.push(op.clone());
                part.places.push(place);
            }
        }
        for part in &mut parts {
            part.trip = std::mem::take(&mut part.trip).within(trip.scope());
        }
        let asked = self.servers.iter().zip(&parts);
        let asked = asked.filter(|(_, part)| !part.trip.is_empty());
        let asked = asked.map(async |(server, part)| {
            let answers = match server.exchange(&part.trip) {
                Exchange::Ready(replies) => replies,
                // Its breaker has told already.
                Exchange::Refused(error) => part.trip.failed(&error.logged()),
                Exchange::Pending(answer) => answer
                    .await
                    .unwrap_or_else(|error| part.trip.failed(&error)),
            };
            (part, answers)
        });
        for (part, answers) in blocking_runtimes::together(asked.collect()).await {
            for (place, answer) in part.places.iter().zip(answers) {
                match replies.get_mut(*place) {
                    // Of what all servers were asked, one failure is the answer.
                    Some(Some(Reply::Failed(_))) | None => {}
                    Some(reply) => *reply = Some(answer),
                }
            }
        }
        let unanswered = || Reply::Failed(Error::new(ErrorKind::Unavailable, "no answer"));
        Ok(replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(unanswered))
            .collect())
    }

    fn no_clear(&self) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "{} cannot remove the entries of one prefix; change the cache's prefix and let the old entries expire, or give it none and clear all that the servers hold",
                self.label
            ),
        )
    }
}

impl Memcached {
    /// Posts to each server what belongs to it. From the call on all names are posted.
    fn post(&self, trip: &Trip) -> Exchange<'_> {
        let mut parts: Vec<Part> = self.servers.iter().map(|_| Part::default()).collect();
        for (place, op) in trip.ops().iter().enumerate() {
            if let Some(part) = parts.get_mut(self.ring.server(&name::key(op.name()))) {
                part.trip.push(op.clone());
                part.places.push(place);
            }
        }
        let parts = self.servers.iter().zip(parts);
        let parts = parts.filter(|(_, part)| !part.trip.is_empty());
        let posts = parts.map(|(server, Part { trip: ops, places })| {
            let mut part = ops.within(trip.scope());
            if let Purpose::Post(late) = trip.purpose() {
                part = part.posted(Arc::clone(late));
            }
            let post = server.post(part.clone());
            Box::pin(async move {
                let replies = match post {
                    Exchange::Ready(replies) => replies,
                    Exchange::Refused(error) => part.failed(&error.logged()),
                    Exchange::Pending(post) => {
                        post.await.unwrap_or_else(|error| part.failed(&error))
                    }
                };
                (places, replies)
            })
        });
        let (ops, posts) = (trip.len(), posts.collect());
        Exchange::Pending(Box::pin(async move {
            let mut all: Vec<_> = (0..ops).map(|_| Reply::Posted).collect();
            for (places, replies) in blocking_runtimes::together(posts).await {
                for (place, reply) in places.into_iter().zip(replies) {
                    if let Some(known) = all.get_mut(place) {
                        *known = reply;
                    }
                }
            }
            Ok(all.into())
        }))
    }

    /// Reads the replies to what was posted, to all servers side by side.
    fn drain(&self, scope: Option<ScopeId>) -> Exchange<'_> {
        let draining = self.servers.iter().map(|server| server.drain(scope));
        let draining = draining.filter_map(|draining| match draining {
            Exchange::Pending(draining) => Some(draining),
            _ => None,
        });
        let draining: Vec<_> = draining.collect();
        if draining.is_empty() {
            return Exchange::Ready(Replies::new());
        }
        Exchange::Pending(Box::pin(async move {
            let drained = blocking_runtimes::together(draining).await;
            drained.into_iter().collect::<Result<Vec<_>>>()?;
            Ok(Replies::new())
        }))
    }
}

impl Store for Memcached {
    fn exchange<'a>(&'a self, trip: &'a Trip) -> Exchange<'a> {
        match (&self.servers[..], trip.purpose()) {
            ([_, _, ..], Purpose::Post(_)) => return self.post(trip),
            ([_, _, ..], Purpose::Drain) => return self.drain(trip.scope()),
            _ => {}
        }
        match &self.servers[..] {
            [server] if !trip.ops().iter().any(is_clear_of_prefix) => server.exchange(trip),
            _ => Exchange::Pending(Box::pin(self.answer(trip))),
        }
    }

    fn posts(&self) -> bool {
        true
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }
}
