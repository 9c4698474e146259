//! `gq serve` as a person starts and stops it; the interface itself is tested in its crate.

use crate::harmony;
use crate::run::{Gq, testdata};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// A server, its address, and what it said on standard error until it listened.
struct Served {
    child: Child,
    address: String,
    said: String,
}

fn serve(gq: &Gq, args: &[&str]) -> Served {
    let mut command = gq.command();
    let args = [&["serve"], args, &["--port", "0"]].concat();
    let mut child = command.args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let address = loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "gq {args:?} ended: {said}");
        said += &line;
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.split('/').next().unwrap().to_owned();
        }
    };
    child.stderr = Some(reader.into_inner());
    Served { child, address, said }
}

impl Served {
    fn ask(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }

    /// Sends a signal; gives the exit code and standard output.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        // The shell's own: not every machine has the program.
        let kill = format!("kill {signal} {}", self.child.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

#[test]
fn a_model_is_served_until_a_signal_comes() {
    let gq = Gq::new();
    std::fs::write(gq.path("key"), "sk-1\nof the test\n").unwrap();
    for (signal, more) in [("-INT", vec![]), ("-TERM", vec!["--json", "--parallel", "2", "--ctx", "64"])] {
        let model = testdata("demo");
        let args =
            [vec![model.as_str(), "--api-key-file", "key", "--name", "m", "--temp", "0"], more.clone()]
                .concat();
        let served = serve(&gq, &args);
        let slots = if more.is_empty() { "4 answers at once, 1,024" } else { "2 answers at once, 64" };
        assert!(served.said.contains(slots) && served.said.contains("serving m on"), "{}", served.said);
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": "Where is he?"}], "max_tokens": 9});
        assert_eq!(served.ask("/v1/chat/completions", "sk-2", &body).0, 401);
        let (status, answer) = served.ask("/v1/chat/completions", "sk-1", &body);
        assert_eq!(status, 200, "{answer}");
        let run = gq.json(&["run", &testdata("demo"), "-p", "Where is he?", "-n", "9", "--temp", "0"]);
        assert_eq!(answer["choices"][0]["message"]["content"], run["text"]);
        let (code, said) = served.stop(signal);
        assert_eq!(code, Some(0));
        if !more.is_empty() {
            let document: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&document["requests"], &document["finished"]), (&json!(1), &json!(true)));
        }
    }
}

/// What a model asks for in generation_config.json applies, and what it thinks is told apart.
#[test]
fn what_was_thought_is_told_apart() {
    let gq = Gq::new();
    let model = harmony::model(&gq);
    std::fs::write(gq.path("harmony/generation_config.json"), r#"{"max_new_tokens": 6}"#).unwrap();
    let served = serve(&gq, &[&model]);
    let ask = |body: Value| {
        let (status, answer) = served.ask("/v1/chat/completions", "", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let turn = json!([{"role": "user", "content": "Q"}]);
    let answer = ask(json!({"messages": turn, "max_tokens": 20, "logprobs": true}));
    let choice = &answer["choices"][0];
    let message = &choice["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Paris"), &json!("hm")),
        "{answer}"
    );
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 1);
    // Of what is said alone.
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!((tokens.len(), &tokens[0]["token"]), (1, &json!("Paris")));
    // A stop string is one of what is said.
    let cut = ask(json!({"messages": turn, "max_tokens": 20, "stop": ["hm", "ris"]}));
    assert_eq!(
        cut["choices"][0]["message"],
        json!({"role": "assistant", "content": "Pa", "refusal": null, "reasoning_content": "hm"})
    );
    let next = ask(json!({"messages": [{"role": "user", "content": "Q"},
        {"role": "assistant", "content": "Paris", "reasoning_content": "hm"}, {"role": "user", "content": "Q"}]}));
    assert_eq!(next["usage"]["prompt_tokens"], 17);
    let limited = ask(json!({"messages": turn, "ignore_eos": true}));
    assert_eq!(
        (&limited["usage"]["completion_tokens"], &limited["choices"][0]["finish_reason"]),
        (&json!(6), &json!("length"))
    );
    assert_eq!(served.stop("-TERM").0, Some(0));
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_loaded() {
    let gq = Gq::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let demo = testdata("demo");
    let said = gq.fails(4, &["serve", &demo, "--port", &port]);
    assert!(said.contains(&format!("127.0.0.1:{port}: ")) && said.contains("--port"), "{said}");
    std::fs::write(gq.path("empty"), "\n").unwrap();
    for key in [&["--api-key", ""][..], &["--api-key", "a b"], &["--api-key-file", "empty"]] {
        let said = gq.fails(2, &[&["serve", &demo, "--port", "0"], key].concat());
        assert!(said.contains("a key is one or more printable"), "{said}");
    }
    gq.fails(3, &["serve", &demo, "--port", "0", "--api-key-file", "nowhere"]);
    gq.fails(2, &["serve", &demo, "--parallel", "0"]);
    let said = gq.fails(4, &["serve", &demo, "--port", "0", "--parallel", "256", "--ctx", "1000000k"]);
    assert!(said.contains("keys and values of 256 answers") && said.contains("--kv f16"), "{said}");
}
