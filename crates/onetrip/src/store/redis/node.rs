//! One node of a cluster: a server with its own breaker.

use std::sync::Arc;

use bytes::Bytes;

use super::address::Greeting;
use super::commands::OpBatch;
use super::routed_op::{Outcome, RoutedOp};
use super::server::{Failure, Server, Way};
use super::slots::{Address, Redirect, redirect};
use crate::breaker::{Breaker, Pass};
use crate::error::{Error, Result};
use crate::store::StoreOptions;
use crate::store::posting::{self, Posting};
use crate::trip::{Op, Replies, ScopeId, Trip};
use crate::wire::redis::Value;

/// A node of a cluster. If it hangs, only its own part of a page waits for one timeout.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    server: Server,
    breaker: Breaker,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Node {
    pub(super) fn new(
        address: &Address,
        greeting: &Greeting,
        label: &str,
        options: &StoreOptions,
    ) -> Self {
        let label: Arc<str> = format!("{label} (node {address})").into();
        let way = Way::Direct(greeting.door(address));
        Self {
            address: address.clone(),
            server: Server::new(way, Arc::clone(&label), options),
            breaker: Breaker::new(label, options.clock.clone()),
        }
    }

    /// Lets an exchange through, or returns the error to answer it with.
    pub(super) fn admit(&self) -> Result<Pass<'_>> {
        // The breaker has logged it.
        self.breaker.admit().map_err(Error::logged)
    }

    /// Returns whether the last exchange failed.
    pub(super) fn is_failing(&self) -> bool {
        self.breaker.is_failing()
    }

    /// Sends one command.
    pub(super) async fn command(&self, words: &[&[u8]]) -> Result<Value> {
        let pass = self.admit()?;
        let answer = report(pass, self.server.command(words).await);
        answer.map_err(|failure| failure.error)
    }

    /// Makes one step of a scan for names that begin with `prefix`, as [`Server::scan`].
    pub(super) async fn scan(&self, cursor: u64, prefix: &Bytes) -> Result<(u64, Vec<Bytes>)> {
        let pass = self.admit()?;
        let answer = report(pass, self.server.scan(cursor, prefix).await);
        answer.map_err(|failure| failure.error)
    }

    /// Posts the writes of `trip`, unless the node has just failed. Their names are registered as
    /// posted before this returns.
    pub(super) fn post(self: &Arc<Self>, trip: Trip) -> Posting<'static> {
        let node = Arc::clone(self);
        let ticket = node.server.posted.register(&trip);
        Box::pin(async move {
            // An open breaker drops the post.
            let pass = node.breaker.admit_if_closed().map_err(Error::logged)?;
            let Some(ticket) = ticket else {
                return Ok(Replies::new());
            };
            pass.posted(posting::post(&node.server, trip, ticket).await)
        })
    }

    pub(super) fn has_posted(&self, scope: Option<ScopeId>) -> bool {
        self.server.posted.has(scope)
    }

    /// Reads the replies to posted writes, as [`Breaker::drain`].
    pub(super) async fn drain(&self, scope: Option<ScopeId>) -> Result<()> {
        let read = |patience| posting::drain(&self.server, scope, patience);
        self.breaker.drain(read).await
    }

    /// Takes the redirects that posted writes were answered with.
    pub(super) fn strays(&self) -> Vec<Redirect> {
        let replies = self.server.strays.take().into_iter();
        replies
            .filter_map(|reply| redirect(&reply, &self.address))
            .collect()
    }

    /// Sends routed operations in one exchange.
    pub(super) async fn run(
        &self,
        pass: Pass<'_>,
        routed_ops: Vec<RoutedOp>,
        scope: Option<ScopeId>,
    ) -> Vec<(RoutedOp, Outcome)> {
        let ops: Vec<Op> = routed_ops.iter().map(|routed| routed.op.clone()).collect();
        let asking: Vec<bool> = routed_ops.iter().map(|routed| routed.asking).collect();
        let batch = OpBatch {
            ops: &ops,
            asking: Some(&asking),
            scope,
        };
        let answer = self.server.exchange(batch).await;
        match report(pass, answer) {
            Ok(replies) => {
                let outcomes =
                    replies
                        .into_iter()
                        .map(|reply| match redirect(&reply, &self.address) {
                            Some(redirect) => Outcome::Redirected(redirect),
                            None => Outcome::Answered(reply),
                        });
                routed_ops.into_iter().zip(outcomes).collect()
            }
            Err(failure) => failed(routed_ops, &failure.error, failure.sent),
        }
    }
}

/// Reports an answer to the breaker.
fn report<T>(pass: Pass<'_>, answer: Result<T, Failure>) -> Result<T, Failure> {
    match answer {
        Err(Failure { error, sent }) if !sent || error.kind().is_silence() => Err(Failure {
            error: pass.failed(error),
            sent,
        }),
        // A refusal is an answer too.
        answer => {
            pass.succeeded();
            answer
        }
    }
}

/// Returns the failures of routed operations. `sent` if the node may have carried them out.
pub(super) fn failed(
    routed_ops: Vec<RoutedOp>,
    error: &Error,
    sent: bool,
) -> Vec<(RoutedOp, Outcome)> {
    let outcomes = routed_ops.into_iter().map(|routed| {
        let retry = !sent || routed.op.is_repeatable();
        let error = error.clone();
        (routed, Outcome::Failed { error, retry })
    });
    outcomes.collect()
}
