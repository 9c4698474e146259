//! An answer as server-sent events.

use super::error::ApiError;
use super::reply::Reply;
use crate::engine::{EngineError, Event};
use axum::body::Bytes;
use futures_core::Stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a stream that has nothing to say shows that it lives, and finds out whether somebody listens.
const ALIVE: Duration = Duration::from_secs(5);

/// Chunks as they come; dropped, the answer is given up.
pub(super) struct Events {
    events: UnboundedReceiver<Event>,
    reply: Reply,
    ready: VecDeque<Bytes>,
    done: bool,
    alive: Interval,
}

impl Events {
    /// The stream of an answer.
    pub(super) fn new(events: UnboundedReceiver<Event>, reply: Reply) -> Events {
        let mut alive = interval(ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.reset();
        let ready = reply.first().map(|chunk| data(&chunk)).into_iter().collect();
        Events { events, reply, ready, done: false, alive }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Delta(delta) => {
                let chunk = self.reply.delta(&delta);
                self.ready.push_back(data(&chunk));
            }
            Event::End(finish, usage) => {
                self.ready.push_back(data(&self.reply.end(finish)));
                self.ready.extend(self.reply.usage(usage).map(|chunk| data(&chunk)));
                self.end();
            }
            Event::Failed(error) => {
                self.ready.push_back(data(&ApiError::from(error).body()));
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.done = true;
    }
}

fn data(chunk: &Value) -> Bytes {
    Bytes::from(format!("data: {chunk}\n\n"))
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.done {
                return Poll::Ready(None);
            }
            match self.events.poll_recv(context) {
                Poll::Ready(Some(event)) => self.take(event),
                Poll::Ready(None) => self.take(Event::Failed(EngineError::Stopping)),
                Poll::Pending => {
                    if self.alive.poll_tick(context).is_pending() {
                        return Poll::Pending;
                    }
                    self.ready.push_back(Bytes::from_static(b": waiting\n\n"));
                }
            }
        }
    }
}
