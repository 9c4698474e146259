//! Requests that are refused, in OpenAI's shape.

use crate::server::{Answer, Server};
use gq_serve::Limits;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn limits() -> Limits {
    Limits {
        parallel: 1,
        context: 64,
        answer: 50,
        body: 2000,
        idle: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[test]
fn wrong_parameters_are_refused_by_name() {
    let server = Server::start(limits(), None);
    let user = json!([{"role": "user", "content": "x"}]);
    for (path, param, body) in [
        (CHAT, "messages", json!({})),
        (CHAT, "messages", json!({"messages": []})),
        (CHAT, "messages", json!({"messages": "x"})),
        (CHAT, "messages[0]", json!({"messages": [1]})),
        (CHAT, "messages[0].role", json!({"messages": [{"content": "x"}]})),
        (CHAT, "messages[0].content", json!({"messages": [{"role": "user", "content": 1}]})),
        (
            CHAT,
            "messages[0].content",
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        ),
        (CHAT, "messages[0].content", json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]})),
        (CHAT, "messages[0].tool_calls", json!({"messages": [{"role": "assistant", "tool_calls": 1}]})),
        (CHAT, "temperature", json!({"messages": user, "temperature": 2.5})),
        (CHAT, "temperature", json!({"messages": user, "temperature": "hot"})),
        (CHAT, "temperature", json!({"messages": user, "temperature": -0.1})),
        (CHAT, "top_p", json!({"messages": user, "top_p": 1.5})),
        (CHAT, "max_tokens", json!({"messages": user, "max_tokens": 0})),
        (CHAT, "max_tokens", json!({"messages": user, "max_tokens": 51})),
        (CHAT, "max_tokens", json!({"messages": user, "max_tokens": 1.5})),
        (
            CHAT,
            "max_completion_tokens",
            json!({"messages": user, "max_tokens": 2, "max_completion_tokens": 3}),
        ),
        (CHAT, "n", json!({"messages": user, "n": 2})),
        (CHAT, "stop", json!({"messages": user, "stop": [1]})),
        (CHAT, "stop", json!({"messages": user, "stop": [""]})),
        (CHAT, "stop", json!({"messages": user, "stop": vec!["a"; 17]})),
        (CHAT, "stream", json!({"messages": user, "stream": "yes"})),
        (CHAT, "stream_options", json!({"messages": user, "stream_options": {"include_usage": true}})),
        (CHAT, "stream_options", json!({"messages": user, "stream": true, "stream_options": {"x": 1}})),
        (CHAT, "top_logprobs", json!({"messages": user, "top_logprobs": 3})),
        (CHAT, "top_logprobs", json!({"messages": user, "logprobs": true, "top_logprobs": 21})),
        (CHAT, "logprobs", json!({"messages": user, "logprobs": 3})),
        (CHAT, "seed", json!({"messages": user, "seed": 0.5})),
        (CHAT, "tools", json!({"messages": user, "tools": {}})),
        (CHAT, "tool_choice", json!({"messages": user, "tool_choice": "required"})),
        (CHAT, "response_format", json!({"messages": user, "response_format": {"type": "json_object"}})),
        (CHAT, "frequency_penalty", json!({"messages": user, "frequency_penalty": 0.5})),
        (CHAT, "logit_bias", json!({"messages": user, "logit_bias": {"5": 1}})),
        (CHAT, "functions", json!({"messages": user, "functions": []})),
        (CHAT, "what_is_this", json!({"messages": user, "what_is_this": 1})),
        (CHAT, "chat_template_kwargs", json!({"messages": user, "chat_template_kwargs": {"messages": 1}})),
        (TEXT, "prompt", json!({})),
        (TEXT, "prompt", json!({"prompt": ["a", "b"]})),
        (TEXT, "prompt", json!({"prompt": []})),
        (TEXT, "prompt", json!({"prompt": [-1]})),
        (TEXT, "prompt", json!({"prompt": [1_000_000]})),
        (TEXT, "prompt", json!({"prompt": {"a": 1}})),
        (TEXT, "logprobs", json!({"prompt": "a", "logprobs": 6})),
        (TEXT, "echo", json!({"prompt": "a", "echo": true})),
        (TEXT, "best_of", json!({"prompt": "a", "best_of": 2})),
        (TEXT, "suffix", json!({"prompt": "a", "suffix": "b"})),
        (TEXT, "messages", json!({"prompt": "a", "messages": []})),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 400, "{body}");
        let error = answer.error();
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error")),
            "{body}: {error}"
        );
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 8), "{error}");
    }
    let other = server.post(CHAT, &json!({"messages": user, "model": "gpt-4"}));
    assert_eq!(other.status, 404);
    assert_eq!(other.error()["code"], "model_not_found");
    let long = server.post(TEXT, &json!({"prompt": vec![5; 64]}));
    assert_eq!(long.status, 400);
    assert_eq!(long.error()["code"], "context_length_exceeded");
    // After all that it still answers, and nothing is left of what was refused.
    server.ok(TEXT, &json!({"prompt": "a", "max_tokens": 2}));
    assert_eq!((server.metric("gq_requests_running"), server.metric("gq_requests_waiting")), (0.0, 0.0));
}

#[test]
fn what_is_no_request_is_refused() {
    let server = Server::start(limits(), None);
    let deep = "[".repeat(900);
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"x\"",
        "{\"messages\": [}",
        "{\"prompt\": \"\\ud800\"}",
        "\u{1}",
        deep.as_str(),
    ] {
        let answer = server.send("POST", CHAT, "", body);
        assert_eq!(answer.status, 400, "{body:?}");
        answer.error();
    }
    for (method, path, status) in [
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/", 404),
        ("GET", "/v1/%ff", 404),
    ] {
        let answer = server.send(method, path, "", "");
        assert_eq!(answer.status, status, "{method} {path}");
        answer.error();
    }
    let answer = server.post(TEXT, &json!({"prompt": "x".repeat(3000)}));
    assert_eq!(answer.status, 413);
    answer.error();
    // Bytes that are no HTTP, and a length that is none.
    for request in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        format!("POST {TEXT} HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(Answer::read(stream).status, 400);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_head_or_a_body_that_does_not_come_ends_the_connection() {
    let server = Server::start(limits(), None);
    let half = format!("POST {TEXT} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{\"prompt");
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(half.as_bytes()).unwrap();
    let answer = Answer::read(stream);
    assert_eq!(answer.status, 408);
    for begun in ["", "POST /v1/completions HTTP/1.1\r\nhost"] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        let mut rest = Vec::new();
        // Closed, with or without a word.
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    }
    server.until("gq_connections", |open| open <= 1.0);
}

#[test]
fn the_key_is_wanted_everywhere_but_for_health() {
    let server = Server::start(limits(), Some("sk-right"));
    for path in ["/v1/models", "/metrics", "/nothing"] {
        for headers in [
            "",
            "authorization: Bearer sk-wrong\r\n",
            "authorization: Bearer sk-righ\r\n",
            "authorization: sk-right\r\n",
            "authorization: Basic sk-right\r\n",
            "authorization: Bearer \r\n",
        ] {
            let answer = server.send("GET", path, headers, "");
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some("bearer")),
                "{path} {headers}"
            );
            assert_eq!(answer.error()["code"], "invalid_api_key");
        }
    }
    let post = |headers: &str| server.send("POST", TEXT, headers, r#"{"prompt": "a", "max_tokens": 1}"#);
    assert_eq!(post("").status, 401);
    let answer = post("authorization: bearer sk-right\r\n");
    assert_eq!(answer.status, 200);
    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 1);
    assert_eq!(server.get("/health").status, 200);
}
