//! A model behind OpenAI's HTTP interface.
//!
//! [`Engine`] runs answers to many requests at once: they join and leave between steps, prompts are read in pieces next to
//! answers that go on, and each has a cache of its own among as many as were planned. [`serve`] puts it behind HTTP.
//!
//! This crate does not know files, conversion, a terminal or the environment.

mod engine;
mod http;
mod limits;

pub use engine::{
    Delta, Engine, EngineError, Event, Finish, Setup, SubmitError, Task, Ticket, TokenLogprob, Usage,
};
pub use http::{Defaults, ServeError, Served, Service, serve};
pub use limits::Limits;
