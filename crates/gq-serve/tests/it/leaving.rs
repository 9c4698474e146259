//! Clients that leave, clients for whom there is no room, and the end of the server.

use crate::server::{Answer, Server};
use gq_serve::Limits;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const TEXT: &str = "/v1/completions";

/// Contexts that no answer of a test fills.
fn limits() -> Limits {
    Limits { parallel: 1, queue: 1, context: 100_000, ..Limits::default() }
}

/// An answer that does not end.
fn endless(stream: bool) -> Value {
    json!({"prompt": "a", "ignore_eos": true, "stream": stream})
}

/// Sends a request and does not wait for an answer.
fn begin(server: &Server, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    let body = body.to_string();
    let head = format!("POST {TEXT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    stream
}

#[test]
fn whoever_leaves_frees_a_cache() {
    let server = Server::start(limits(), None);
    for streamed in [true, false] {
        let before = server.metric("gq_requests_total{outcome=\"cancelled\"}");
        let connection = begin(&server, &endless(streamed));
        server.until("gq_requests_running", |running| running == 1.0);
        // One in the queue leaves as well.
        let waiting = begin(&server, &endless(streamed));
        server.until("gq_requests_waiting", |waiting| waiting == 1.0);
        drop(waiting);
        server.until("gq_requests_waiting", |waiting| waiting == 0.0);
        drop(connection);
        server.until("gq_requests_total{outcome=\"cancelled\"}", |now| now == before + 2.0);
        let answer = server.ok(TEXT, &json!({"prompt": "a", "max_tokens": 3, "ignore_eos": true}));
        assert_eq!(answer["usage"]["completion_tokens"], 3);
    }
    assert_eq!(server.metric("gq_requests_running"), 0.0);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::start(limits(), None);
    let running = server.post(TEXT, &endless(true));
    // Its head comes when it is in the queue.
    let waiting = server.post(TEXT, &endless(true));
    assert_eq!((running.status, waiting.status), (200, 200));
    let refused = server.post(TEXT, &endless(false));
    assert_eq!(refused.status, 429);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let error = refused.error();
    assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("rate_limit_exceeded")));
    assert_eq!(server.metric("gq_requests_refused_total"), 1.0);
    drop(waiting);
    server.until("gq_requests_waiting", |waiting| waiting == 0.0);
    let waiting = server.post(TEXT, &endless(true));
    assert_eq!(waiting.status, 200);
    drop(running);
}

#[test]
fn a_request_that_takes_too_long_is_given_up() {
    let server = Server::start(Limits { time: Duration::from_millis(300), ..limits() }, None);
    let whole = server.post(TEXT, &endless(false));
    assert_eq!(whole.status, 504);
    assert_eq!(whole.error()["code"], "timeout");
    let events = server.post(TEXT, &endless(true)).events();
    let (last, text) = events.split_last().unwrap();
    assert_eq!(last["error"]["code"], "timeout");
    assert!(text.iter().all(|event| event["choices"][0]["text"].is_string()));
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = Server::start(Limits { connections: 2, ..limits() }, None);
    let held: Vec<TcpStream> = (0..2).map(|_| begin(&server, &endless(true))).collect();
    let mut first = [0; 1];
    held.iter().for_each(|mut stream| stream.read_exact(&mut first).unwrap());
    let refused = server.get("/health");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    refused.error();
    drop(held);
    // As soon as they are gone it is let in.
    while server.get("/health").status != 200 {}
}

#[test]
fn told_to_stop_it_finishes_what_is_under_way() {
    let server = Server::start(Limits { parallel: 2, ..limits() }, None);
    let ask = |count: usize| json!({"prompt": "a", "ignore_eos": true, "stream": true, "max_tokens": count});
    let mut first = server.post(TEXT, &ask(400));
    let second = server.post(TEXT, &ask(300));
    assert!(first.chunk().is_some());
    let address = server.address;
    let served = server.stop();
    assert!(served.finished && served.requests == 2 && served.tokens == 700, "{served:?}");
    // Both were written to their ends before it said so.
    assert!(second.events().last().unwrap()["choices"][0]["finish_reason"] == "length");
    assert!(first.text().ends_with("data: [DONE]\n\n"));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_does_not_finish_in_time_is_given_up() {
    let limits = Limits { drain: Duration::from_millis(100), ..limits() };
    let server = Server::start(limits, None);
    let mut running = server.post(TEXT, &endless(true));
    assert!(running.chunk().is_some());
    let whole = begin(&server, &endless(false));
    server.until("gq_requests_waiting", |waiting| waiting == 1.0);
    let served = server.stop();
    assert!(!served.finished, "{served:?}");
    let events = running.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "stopping");
    let answer = Answer::read(whole);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.error()["code"], "stopping");
}
