//! What is answered, whole and as it comes.

use crate::server::{Server, model};
use gq_model::{Generation, GenerationOptions, Sampling};
use gq_serve::Limits;
use gq_text::{ChatMessage, ChatOptions, ChatTemplate, SpecialText, Tokenizer};
use serde_json::{Value, json};

const LIMITS: fn() -> Limits = || Limits { context: 512, ..Limits::default() };
const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn question(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// The answer as `gq run` makes it.
fn expected(chat: Option<&str>, text: Option<&str>, sampling: Sampling, count: usize) -> String {
    let model = model();
    let tokenizer = Tokenizer::new(model.texts(), model.spec()).unwrap();
    let template = ChatTemplate::new(model.texts()).unwrap();
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    let prompt = match (chat, text) {
        (Some(said), _) => {
            let text = template.render(&[ChatMessage::new("user", said)], &options).unwrap();
            tokenizer.encode(&text, SpecialText::Parsed).unwrap()
        }
        (None, text) => tokenizer.prompt(text.unwrap(), SpecialText::Plain).unwrap(),
    };
    let stop = tokenizer.stop_tokens(chat.map(|_| &template));
    let options = GenerationOptions { max_tokens: count, sampling, stop };
    let generation = Generation::start(&model, Some(&tokenizer), &prompt, options).unwrap();
    generation.map(|piece| piece.unwrap().text).collect()
}

#[test]
fn models_and_health_are_told() {
    let server = Server::start(LIMITS(), None);
    assert_eq!(server.get("/health").text(), r#"{"status":"ok"}"#);
    let models: Value = serde_json::from_str(&server.get("/v1/models").text()).unwrap();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("demo")));
    assert_eq!(models["data"][0]["max_model_len"], 512);
    assert_eq!(server.get("/v1/models/demo").status, 200);
    assert_eq!(server.get("/v1/models/other/one").status, 404);
    let page = server.get("/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4"));
    let page = page.text();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("gq_") && value.parse::<f64>().is_ok(), "{line}");
        assert!(page.contains(&format!("# TYPE {} ", name.split('{').next().unwrap())), "{line}");
    }
}

#[test]
fn an_answer_is_the_one_that_generation_gives() {
    let server = Server::start(LIMITS(), None);
    let sampling = Sampling { temperature: 0.9, top_p: 0.95, seed: 7, ..Sampling::default() };
    for (sampling, asked) in
        [(Sampling::default(), json!({})), (sampling, json!({"temperature": 0.9, "top_p": 0.95, "seed": 7}))]
    {
        let with = |more: Value| {
            let mut body = asked.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let chat = server.ok(CHAT, &with(json!({"messages": question("Hello there"), "max_tokens": 24})));
        let choice = &chat["choices"][0];
        assert_eq!(choice["message"]["content"], expected(Some("Hello there"), None, sampling, 24));
        assert_eq!(
            (&choice["message"]["role"], &chat["object"]),
            (&json!("assistant"), &json!("chat.completion"))
        );
        let text = server.ok(TEXT, &with(json!({"prompt": "It was a", "max_completion_tokens": 24})));
        assert_eq!(text["choices"][0]["text"], expected(None, Some("It was a"), sampling, 24));
        assert_eq!((&text["object"], &text["model"]), (&json!("text_completion"), &json!("demo")));
    }
    // The same text by its tokens, in a list of one, and a second time out of the cache.
    let body = |prompt: Value| json!({"prompt": prompt, "max_tokens": 12, "ignore_eos": true});
    let model = model();
    let tokenizer = Tokenizer::new(model.texts(), model.spec()).unwrap();
    let long = "a small house by the river, where the old man had lived for so many years that nobody remembered him young, and ".repeat(2);
    let tokens = tokenizer.prompt(&long, SpecialText::Plain).unwrap();
    let answers: Vec<Value> = [json!(long), json!([long]), json!(tokens), json!([tokens])]
        .map(|prompt| server.ok(TEXT, &body(prompt)))
        .into();
    for answer in &answers {
        assert_eq!(answer["choices"], answers[0]["choices"]);
        assert_eq!(answer["usage"]["prompt_tokens"], tokens.len());
        assert_eq!(answer["usage"]["completion_tokens"], 12);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    // BOS may be there from before.
    assert!(cached(&answers[0]) <= 1);
    assert_eq!(cached(&answers[1]), tokens.len() as u64 - 1);
}

/// What a stream says, put together: text, reason, and the ids of its chunks.
fn together(events: &[Value]) -> (String, Value) {
    let mut text = String::new();
    let mut reason = Value::Null;
    for event in events {
        assert_eq!(event["id"], events[0]["id"]);
        let Some(choice) = event["choices"].get(0) else { continue };
        text += choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    (text, reason)
}

#[test]
fn a_stream_says_what_the_whole_says() {
    let server = Server::start(LIMITS(), None);
    for (path, ask) in [
        (CHAT, json!({"messages": question("Where is he?")})),
        (CHAT, json!({"messages": question("Where is he?"), "stop": ["e", "zzz"]})),
        (TEXT, json!({"prompt": "She said", "stop": "."})),
        (TEXT, json!({"prompt": "She said", "temperature": 1.1, "seed": 5, "top_k": 40, "min_p": 0.01})),
    ] {
        let mut ask = ask.as_object().unwrap().clone();
        ask.insert("max_tokens".to_owned(), 40.into());
        let whole = server.ok(path, &ask.clone().into());
        ask.insert("stream".to_owned(), true.into());
        let plain = server.post(path, &ask.clone().into()).events();
        assert!(plain.iter().all(|event| event.get("usage").is_none()));
        ask.insert("stream_options".to_owned(), json!({"include_usage": true}));
        let events = server.post(path, &ask.into()).events();
        let choice = &whole["choices"][0];
        let said = if path == CHAT { &choice["message"]["content"] } else { &choice["text"] };
        for events in [&plain, &events] {
            let (text, reason) = together(events);
            assert_eq!((json!(text), &reason), (said.clone(), &choice["finish_reason"]));
        }
        let (last, others) = events.split_last().unwrap();
        assert!(others.iter().all(|event| event["usage"].is_null() && event["choices"].get(0).is_some()));
        assert_eq!(last["choices"], json!([]));
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(last["usage"][count], whole["usage"][count]);
        }
        if path == CHAT {
            assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        }
    }
}

#[test]
fn stop_strings_end_the_text_before_them() {
    let server = Server::start(LIMITS(), None);
    let ask = |stop: Value| json!({"prompt": "It was a", "max_tokens": 30, "ignore_eos": true, "stop": stop});
    let all = server.ok(TEXT, &ask(Value::Null))["choices"][0]["text"].as_str().unwrap().to_owned();
    // Every place in the text, whichever tokens it is cut into.
    let places: Vec<usize> = all.char_indices().map(|(at, _)| at).collect();
    for &at in places.iter().step_by(7) {
        let stop: String = all[at..].chars().take(5).collect();
        let answer = server.ok(TEXT, &ask(json!(["never in it", stop])));
        let choice = &answer["choices"][0];
        assert_eq!(choice["text"], all[..all.find(&stop).unwrap()], "{stop:?}");
        assert_eq!(choice["finish_reason"], "stop");
    }
}

#[test]
fn the_same_seed_says_the_same_and_another_does_not() {
    let server = Server::start(LIMITS(), None);
    let ask = |seed: Value| {
        let body = json!({"messages": question("Tell me"), "max_tokens": 30, "temperature": 1.5, "seed": seed,
                          "ignore_eos": true});
        server.ok(CHAT, &body)["choices"][0]["message"]["content"].clone()
    };
    let first = ask(json!(11));
    assert_eq!(ask(json!(11)), first);
    assert_ne!(ask(json!(12)), first);
    assert_eq!(ask(json!(-3)), ask(json!(-3)));
    // Without one, each has its own.
    assert_ne!(ask(Value::Null), ask(Value::Null));
}

#[test]
fn probabilities_are_those_of_the_text() {
    let server = Server::start(LIMITS(), None);
    let body = json!({"messages": question("Who was it?"), "max_tokens": 20, "logprobs": true, "top_logprobs": 3,
                      "stop": "."});
    let answer = server.ok(CHAT, &body);
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    for token in tokens {
        let bytes: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
        assert_eq!(token["token"], String::from_utf8(bytes).unwrap());
        let top = token["top_logprobs"].as_array().unwrap();
        let number = |entry: &Value| entry["logprob"].as_f64().unwrap();
        assert!(top.len() == 3 && top.windows(2).all(|pair| number(&pair[0]) >= number(&pair[1])));
        // Greedy: the likeliest is the one that was taken.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        assert!(
            number(token) <= 0.0 && top.iter().map(|entry| number(entry).exp()).sum::<f64>() <= 1.0 + 1e-6
        );
    }
    let body =
        json!({"prompt": "He had", "max_tokens": 9, "logprobs": 2, "ignore_eos": true, "stream": true});
    let mut offset = 0;
    let events = server.post(TEXT, &body).events();
    for choice in events.iter().map(|event| &event["choices"][0]) {
        let tokens = choice["logprobs"]["tokens"].as_array().into_iter().flatten();
        for (index, token) in tokens.enumerate() {
            assert_eq!(choice["logprobs"]["text_offset"][index], offset);
            offset += token.as_str().unwrap().chars().count();
            let top = choice["logprobs"]["top_logprobs"][index].as_object().unwrap();
            assert!((2..=3).contains(&top.len()) && top.contains_key(token.as_str().unwrap()));
        }
    }
    assert_eq!(offset, together(&events).0.chars().count());
}

/// Turns, parts and calls as clients write them reach the template, and tools do.
#[test]
fn conversations_reach_the_template() {
    let server = Server::start(LIMITS(), None);
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]}]);
    let plain = question("Hello\nthere");
    let ask = |messages: Value| {
        let body = json!({"messages": messages, "max_tokens": 8, "model": "demo", "user": "me", "n": 1,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto",
            "chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low", "logit_bias": {}});
        server.ok(CHAT, &body)
    };
    let (a, b) = (ask(parts), ask(plain));
    assert_eq!(a["choices"], b["choices"]);
    assert_eq!(a["usage"]["prompt_tokens"], b["usage"]["prompt_tokens"]);
    let called = json!([{"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "tool_calls": [{"type": "function", "id": "1",
            "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "content": "z", "tool_call_id": "1"}]);
    assert!(ask(called)["usage"]["prompt_tokens"].as_u64() > b["usage"]["prompt_tokens"].as_u64());
}
