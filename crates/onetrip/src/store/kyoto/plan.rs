//! Trips as requests to Kyoto Tycoon, and its answers as replies: pure, without a connection.
//!
//! Operations that can go out at once are a [segment](segment_of), and most segments are one
//! exchange. An increment and a touch take two: the server's own increment keeps numbers in
//! another form, and it cannot touch, so the entry is read and then replaced on the condition that
//! nobody changed it meanwhile. Where somebody did, it is read again.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use crate::entry;
use crate::error::{Error, ErrorKind};
use crate::store::not_a_number;
use crate::trip::{Op, Reply, Stored};
use crate::wire::kyoto::binary::{self, NEVER, NEVER_SEEN, NewRecord};
use crate::wire::kyoto::{MAX_DATA, RequestKind, ServerReply, Stop, http};

/// Requests that travel together, in the order in which they are answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipeline {
    pub(super) bytes: Vec<u8>,
    pub(super) questions: Vec<RequestKind>,
}

/// Operations, and the replies that are known so far.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    db: u16,
    ops: &'a [Op],
    pub(super) replies: Vec<Option<Reply>>,
}

/// An entry to replace, if it is still as it was read: that of one operation.
#[derive(Debug)]
pub(super) struct Change {
    index: usize,
    before: Bytes,
    after: Bytes,
    /// When it then expires, as a call says it: seconds from now or, negative, since 1970.
    expires: Option<i64>,
    reply: Reply,
}

/// What one request is about: operations, by their index.
#[derive(Debug)]
enum Deed {
    Read(Vec<usize>),
    Write(Vec<usize>),
    Remove(usize),
    Add(usize),
}

/// How many of `ops` can go out at once: until one is about an entry that another changes, or is
/// a clear, which is a segment of its own.
///
/// A change is made after all other requests of its segment. None of them is about its entry, so
/// nobody can tell.
pub(super) fn segment_of(ops: &[Op]) -> usize {
    let mut changed = HashSet::new();
    let together = ops.iter().take_while(|op| match op {
        Op::Clear { .. } => false,
        op if changed.contains(op.name()) => false,
        Op::Incr { name, .. } | Op::Touch { name, .. } => changed.insert(name),
        _ => true,
    });
    together.count().max(1)
}

impl<'a> Segment<'a> {
    pub(super) fn new(db: u16, ops: &'a [Op]) -> Self {
        Self {
            db,
            ops,
            replies: ops.iter().map(|_| None).collect(),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.replies.iter().all(Option::is_some)
    }

    /// The requests for all operations that have no reply yet.
    pub(super) fn ask(&self) -> (Pipeline, Asked) {
        let deeds = self.deeds();
        let mut batch = Pipeline::default();
        let out = &mut batch.bytes;
        for deed in &deeds {
            batch.questions.push(match deed {
                Deed::Read(indices) => {
                    binary::get_bulk(out, self.db, self.names(indices));
                    RequestKind::Get(indices.len())
                }
                Deed::Write(indices) => {
                    let none = (&b""[..], &b""[..], NEVER);
                    let records = indices.iter().map(|index| {
                        let (name, value, expires) = match self.ops.get(*index) {
                            Some(Op::Set { name, entry, ttl }) => {
                                (&**name, &**entry, seconds(*ttl).unwrap_or(NEVER))
                            }
                            _ => none,
                        };
                        NewRecord {
                            name,
                            value,
                            expires,
                        }
                    });
                    binary::set_bulk(out, self.db, records);
                    RequestKind::Set(indices.len())
                }
                // A remove_bulk answers how many there were, not which: so one for each.
                Deed::Remove(index) => {
                    binary::remove_bulk(out, self.db, self.names(&[*index]));
                    RequestKind::Remove(1)
                }
                Deed::Add(index) => {
                    if let Some(Op::Add { name, entry, ttl }) = self.ops.get(*index) {
                        let text = seconds(*ttl).map(|seconds| seconds.to_string());
                        let columns = columns(&[("key", name), ("value", entry)], text.as_deref());
                        http::call(out, "add", self.db, &columns);
                    }
                    RequestKind::Call
                }
            });
        }
        (batch, Asked(deeds))
    }

    /// Reads and writes that follow one another become one request.
    fn deeds(&self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let waiting = self.ops.iter().zip(&self.replies).enumerate();
        for (index, (op, _)) in waiting.filter(|(_, (_, reply))| reply.is_none()) {
            match (op, deeds.last_mut()) {
                (Op::Get { .. } | Op::Touch { .. } | Op::Incr { .. }, last) => match last {
                    Some(Deed::Read(indices)) => indices.push(index),
                    _ => deeds.push(Deed::Read(vec![index])),
                },
                (Op::Set { entry, .. }, last) => match last {
                    // What is there is out of date, even where its successor cannot be written.
                    _ if entry.len() > MAX_DATA => deeds.push(Deed::Remove(index)),
                    Some(Deed::Write(indices)) => indices.push(index),
                    _ => deeds.push(Deed::Write(vec![index])),
                },
                (Op::Delete { .. }, _) => deeds.push(Deed::Remove(index)),
                (Op::Add { .. }, _) => deeds.push(Deed::Add(index)),
                // A segment of its own.
                (Op::Clear { .. }, _) => {}
            }
        }
        deeds
    }

    fn names<'b>(
        &'b self,
        indices: &'b [usize],
    ) -> impl ExactSizeIterator<Item = &'b [u8]> + Clone + 'b {
        let name = |index: &usize| self.ops.get(*index).map(|op| &**op.name());
        indices
            .iter()
            .map(move |index| name(index).unwrap_or_default())
    }

    /// Refuses what is too large for the server to take.
    pub(super) fn refuse_what_is_too_large(&mut self) {
        for (op, reply) in self.ops.iter().zip(&mut self.replies) {
            let fits = op.name().len() <= MAX_DATA
                && match op {
                    Op::Add { name, entry, .. } => {
                        http::fits(&columns(&[("key", name), ("value", entry)], Some("")))
                    }
                    _ => true,
                };
            if !fits {
                *reply = Some(too_large(op));
            }
        }
    }

    /// Takes the answers to what was [asked](Self::ask), read from `buffer`, at `now` by the wall
    /// clock. Returns the entries to change.
    ///
    /// # Errors
    ///
    /// [`Stop::Nonsense`] if they do not answer it.
    pub(super) fn answered(
        &mut self,
        label: &str,
        asked: &Asked,
        answers: Vec<ServerReply>,
        buffer: &Bytes,
        now: Duration,
    ) -> Result<Vec<Change>, Stop> {
        let mut changes = Vec::new();
        for (deed, answer) in asked.0.iter().zip(answers) {
            match (deed, answer) {
                (deed, ServerReply::Refused) => {
                    let error = refused(label, "a request in its binary protocol");
                    for index in deed.indices() {
                        self.reply(*index, Reply::Failed(error.clone()));
                    }
                }
                (Deed::Read(indices), ServerReply::Records(records)) => {
                    let held = binary::matched(self.db, self.names(indices), buffer, records)?;
                    for (index, held) in indices.iter().zip(held) {
                        self.was_read(*index, held, now, &mut changes);
                    }
                }
                (Deed::Write(indices), ServerReply::Count(count)) => {
                    let reply = if count == indices.len() {
                        Reply::Done
                    } else {
                        // The one reason to leave records out without a word.
                        Reply::Failed(no_database(label))
                    };
                    for index in indices {
                        self.reply(*index, reply.clone());
                    }
                }
                (Deed::Remove(index), ServerReply::Count(count)) => {
                    let reply = match self.ops.get(*index) {
                        Some(op @ Op::Set { .. }) => too_large(op),
                        _ => Reply::Flag(count > 0),
                    };
                    self.reply(*index, reply);
                }
                (Deed::Add(index), ServerReply::Response(response)) => {
                    let reply = match response.status {
                        http::OK => Reply::Flag(true),
                        http::CONFLICT => Reply::Flag(false),
                        _ => Reply::Failed(refused(label, &response.columns.error(buffer))),
                    };
                    self.reply(*index, reply);
                }
                _ => return Err(Stop::Nonsense("the answer to another request")),
            }
        }
        Ok(changes)
    }

    /// What an entry that was read means for the operation that asked.
    fn was_read(
        &mut self,
        index: usize,
        held: binary::Held,
        now: Duration,
        changes: &mut Vec<Change>,
    ) {
        let reply = match (self.ops.get(index), held) {
            (Some(Op::Touch { .. }), None) => Reply::Flag(false),
            (Some(Op::Incr { .. }), None) => Reply::Number(None),
            (Some(op @ Op::Touch { name, ttl }), Some((entry, _))) => {
                let change = Change {
                    index,
                    before: entry.clone(),
                    after: entry,
                    expires: seconds(*ttl),
                    reply: Reply::Flag(true),
                };
                if http::fits(&change.columns(name, Some(""))) {
                    changes.push(change);
                    return;
                }
                too_large(op)
            }
            (Some(Op::Incr { name, delta }), Some((before, expires))) => {
                match incremented(name, &before, *delta) {
                    Ok(number) => {
                        changes.push(Change {
                            index,
                            before,
                            after: Bytes::from(number.to_string()),
                            // To the second that it had, not so many from now.
                            expires: (expires < NEVER_SEEN).then_some(-expires),
                            reply: Reply::Number(Some(number)),
                        });
                        return;
                    }
                    Err(error) => Reply::Failed(error),
                }
            }
            (_, held) => Reply::Entry(held.map(|(entry, expires)| {
                let end = u64::try_from(expires).map(Duration::from_secs);
                let end = end.ok().filter(|_| expires < NEVER_SEEN);
                Stored::new(entry).with_left(end.map(|end| end.saturating_sub(now)))
            })),
        };
        self.reply(index, reply);
    }

    /// The requests that make `changes`.
    pub(super) fn change(&self, changes: &[Change]) -> Pipeline {
        let mut batch = Pipeline::default();
        for change in changes {
            let name = self.ops.get(change.index).map(|op| &**op.name());
            let text = change.expires.map(|expires| expires.to_string());
            let columns = change.columns(name.unwrap_or_default(), text.as_deref());
            http::call(&mut batch.bytes, "cas", self.db, &columns);
            batch.questions.push(RequestKind::Call);
        }
        batch
    }

    /// Takes the answers to `changes`. What somebody else changed meanwhile is left to be
    /// [asked](Self::ask) again.
    pub(super) fn changed(
        &mut self,
        label: &str,
        changes: Vec<Change>,
        answers: Vec<ServerReply>,
        buffer: &Bytes,
    ) -> Result<(), Stop> {
        for (change, answer) in changes.into_iter().zip(answers) {
            let ServerReply::Response(response) = answer else {
                return Err(Stop::Nonsense("the answer to another request"));
            };
            match response.status {
                http::OK => self.reply(change.index, change.reply),
                http::CONFLICT => {}
                _ => {
                    let error = refused(label, &response.columns.error(buffer));
                    self.reply(change.index, Reply::Failed(error));
                }
            }
        }
        Ok(())
    }

    /// Gives up on what has no reply yet: others changed it each time.
    pub(super) fn give_up(&mut self, label: &str) {
        for reply in &mut self.replies {
            reply.get_or_insert_with(|| {
                Reply::Failed(refused(label, "an entry that others change all the time"))
            });
        }
    }

    fn reply(&mut self, index: usize, reply: Reply) {
        if let Some(place) = self.replies.get_mut(index) {
            *place = Some(reply);
        }
    }
}

/// What was asked, to make replies of the answers.
#[derive(Debug)]
pub(super) struct Asked(Vec<Deed>);

impl Deed {
    fn indices(&self) -> &[usize] {
        match self {
            Self::Read(indices) | Self::Write(indices) => indices,
            Self::Remove(index) | Self::Add(index) => std::slice::from_ref(index),
        }
    }
}

impl Change {
    fn columns<'a>(&'a self, name: &'a [u8], expires: Option<&'a str>) -> Vec<(&'a str, &'a [u8])> {
        let entries = [("key", name), ("oval", &self.before), ("nval", &self.after)];
        columns(&entries, expires)
    }
}

/// Columns of a call, with an expiry where there is one.
fn columns<'a>(
    columns: &[(&'a str, &'a [u8])],
    expires: Option<&'a str>,
) -> Vec<(&'a str, &'a [u8])> {
    let expiry = expires.map(|seconds| ("xt", seconds.as_bytes()));
    columns.iter().copied().chain(expiry).collect()
}

/// Whole seconds, since the server counts no others, and rather too many than too few. `None` for
/// what never expires.
fn seconds(ttl: Option<Duration>) -> Option<i64> {
    let span = ttl?;
    let whole = span.as_secs() + u64::from(span.subsec_nanos() > 0 && span.as_secs() < u64::MAX);
    i64::try_from(whole).ok().filter(|seconds| *seconds < NEVER)
}

/// Asks for the names that begin with `prefix`, `most` of them.
pub(super) fn look(db: u16, prefix: &[u8], most: usize) -> Pipeline {
    let most = most.to_string();
    let mut batch = Pipeline::default();
    let columns = [("prefix", prefix), ("max", most.as_bytes())];
    http::call(&mut batch.bytes, "match_prefix", db, &columns);
    batch.questions.push(RequestKind::Call);
    batch
}

/// The names that were [looked](look) up, or the server's refusal.
pub(super) fn looked(
    label: &str,
    answers: &[ServerReply],
    buffer: &Bytes,
) -> Result<Result<Vec<Vec<u8>>, Error>, Stop> {
    let [ServerReply::Response(response)] = answers else {
        return Err(Stop::Nonsense("the answer to another request"));
    };
    if response.status != http::OK {
        return Ok(Err(refused(label, &response.columns.error(buffer))));
    }
    let mut names = Vec::new();
    for column in response.columns.iter(buffer) {
        // Names are marked; there is a column that counts them besides.
        if let Some(name) = column?.0.strip_prefix(b"_") {
            names.push(name.to_vec());
        }
    }
    Ok(Ok(names))
}

/// Asks to remove what is called `names`.
pub(super) fn remove(db: u16, names: &[Vec<u8>]) -> Pipeline {
    let mut batch = Pipeline::default();
    let all = names.iter().map(Vec::as_slice);
    binary::remove_bulk(&mut batch.bytes, db, all);
    batch.questions.push(RequestKind::Remove(names.len()));
    batch
}

fn incremented(name: &Bytes, entry: &[u8], delta: i64) -> Result<i64, Error> {
    entry::integer(entry)
        .ok_or_else(|| not_a_number(name, "does not hold an integer"))?
        .checked_add(delta)
        .ok_or_else(|| not_a_number(name, "would leave the range of 64 bits"))
}

fn too_large(op: &Op) -> Reply {
    Reply::Failed(Error::new(
        ErrorKind::TooLarge,
        format!(
            "{} of {:?} takes more than the 256 MiB that Kyoto Tycoon takes at once; cache less at once",
            op.word(),
            crate::key::display(op.name()),
        ),
    ))
}

pub(super) fn refused(label: &str, what: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("{label} refused ({what})"))
}

pub(super) fn no_database(label: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{label} refused: its server has no database of this number"),
    )
}

#[cfg(test)]
mod tests;
