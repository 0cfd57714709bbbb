//! A connection that the tasks of a runtime share: their trips follow one another at once.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::connection::{Broken, Connection};
use crate::store::posted::Ticket;
use crate::store::sizes::room;
use crate::store::stream::Pull;
use crate::wire::redis::{Commands, Value};

type Response = Result<Vec<Value>, Broken>;

/// The way to a connection, which lives until it breaks or nobody has a way to it.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    questions: mpsc::UnboundedSender<Question>,
    pub(super) term: u64,
    /// Tells it from all others of this process.
    pub(super) shared_id: u64,
}

#[derive(Debug)]
struct Question {
    commands: Commands,
    tell: oneshot::Sender<Response>,
    ticket: Option<Posted>,
}

/// What was posted is so until its answer is read, whether anybody waits for that or not.
type Posted = Ticket<Box<Connection>>;

/// A question that was put.
#[derive(Debug)]
struct Waiting {
    count: usize,
    values: Vec<Value>,
    /// Read all the same if nobody waits any more: what follows belongs to the next one.
    tell: oneshot::Sender<Response>,
    ticket: Option<Posted>,
}

/// A task that puts questions as they come, and tells the answers in their order.
struct Driver {
    connection: Connection,
    questions: mpsc::UnboundedReceiver<Question>,
    waiting: VecDeque<Waiting>,
    /// Bytes that came since nobody waited, and for how many keys.
    came: usize,
    weight: usize,
}

impl Shared {
    /// Shares `connection` among those who have a clone of this.
    pub(super) fn new(connection: Connection) -> Self {
        let (questions, asked) = mpsc::unbounded_channel();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (term, shared_id) = (connection.term, NEXT.fetch_add(1, Ordering::Relaxed));
        let mut driver = Driver {
            connection,
            questions: asked,
            waiting: VecDeque::new(),
            came: 0,
            weight: 0,
        };
        tokio::spawn(async move {
            let end = std::future::poll_fn(|context| driver.poll(context)).await;
            driver.fail(&end);
        });
        Self {
            questions,
            term,
            shared_id,
        }
    }

    /// Sends commands and waits for what they are answered with.
    pub(super) async fn exchange(&self, commands: Commands, until: Instant) -> Response {
        Self::hear(self.put(commands, None)?, until).await
    }

    /// Returns whether it broke: the server closed it, perhaps while it was idle.
    pub(super) fn is_over(&self) -> bool {
        self.questions.is_closed()
    }

    /// Has commands sent, behind all that were put before. `ticket` lasts until they are answered.
    pub(super) fn put(
        &self,
        commands: Commands,
        ticket: Option<Posted>,
    ) -> Result<oneshot::Receiver<Response>, Broken> {
        let (tell, told) = oneshot::channel();
        let question = Question {
            commands,
            tell,
            ticket,
        };
        self.questions.send(question).map_err(|_| Broken::Stale)?;
        Ok(told)
    }

    /// Waits for an answer.
    pub(super) async fn hear(told: oneshot::Receiver<Response>, until: Instant) -> Response {
        match timeout_at(until.into(), told).await {
            Ok(Ok(answer)) => answer,
            // The driver ended with its runtime.
            Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
            Err(_) => Err(Broken::Timeout),
        }
    }
}

impl Driver {
    /// Goes on until the connection is of no more use; tells why.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        loop {
            while let Poll::Ready(question) = self.questions.poll_recv(context) {
                match question {
                    Some(question) => {
                        if let Err(broken) = self.put(question) {
                            return Poll::Ready(broken);
                        }
                    }
                    // Who waits has a way to it, so nobody does.
                    None => return Poll::Ready(Broken::Stale),
                }
            }
            let missing = match self.hand_out() {
                Ok(missing) => missing,
                Err(broken) => return Poll::Ready(broken),
            };
            let expected = match self.weight {
                0 => 0,
                weight => self.connection.sizes.expected(weight),
            };
            let room = room(missing, expected.saturating_sub(self.came));
            let buffer = self.connection.reader.room(room);
            let before = buffer.len();
            match self.connection.link.poll_pull(context, buffer) {
                Poll::Ready(Ok(())) => self.came += buffer.len() - before,
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn put(&mut self, question: Question) -> Result<(), Broken> {
        let Question {
            commands,
            tell,
            ticket,
        } = question;
        if self.waiting.is_empty() && !self.connection.is_in_step() {
            let _ = tell.send(Err(Broken::Stale));
            return Err(Broken::Stale);
        }
        self.weight += commands.weight;
        self.waiting.push_back(Waiting {
            count: commands.count,
            values: Vec::new(),
            tell,
            ticket,
        });
        Ok(self.connection.link.put(commands.bytes)?)
    }

    /// Tells the answers that are whole; at least so many bytes are missing of the next one.
    fn hand_out(&mut self) -> Result<usize, Broken> {
        let reader = &mut self.connection.reader;
        let missing = reader.scan()?;
        for value in reader.take()? {
            let Some(next) = self.waiting.front_mut() else {
                return Err(Broken::Nonsense("more than was asked for"));
            };
            next.values.push(value);
            if next.values.len() == next.count
                && let Some(whole) = self.waiting.pop_front()
            {
                drop(whole.ticket);
                // Nobody may be waiting for it any more.
                let _ = whole.tell.send(Ok(whole.values));
            }
        }
        if self.waiting.is_empty() {
            if self.connection.reader.held() > 0 {
                return Err(Broken::Nonsense("more than was asked for"));
            }
            if self.weight > 0 {
                self.connection.sizes.learn(self.weight, self.came);
            }
            (self.weight, self.came) = (0, 0);
        }
        Ok(missing)
    }

    /// Tells all who wait that it came to an end.
    fn fail(&mut self, end: &Broken) {
        self.questions.close();
        for waiting in self.waiting.drain(..) {
            let _ = waiting.tell.send(Err(end.clone()));
        }
        while let Ok(question) = self.questions.try_recv() {
            let _ = question.tell.send(Err(Broken::Stale));
        }
    }
}
