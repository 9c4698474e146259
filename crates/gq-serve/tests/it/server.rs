//! A server on a free port, and a client that speaks just enough HTTP.

use gq_checkpoint::Checkpoint;
use gq_model::cpu::Sums;
use gq_model::{ActivationMode, KvType, Model, RunOptions, Sampling};
use gq_serve::{Defaults, Engine, Limits, Served, Service, Setup, serve};
use gq_tensor::Isa;
use gq_text::{ChatTemplate, Tokenizer};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const LONG: Duration = Duration::from_secs(60);

/// The demo model.
pub fn model() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/demo");
    let options = RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv: KvType::F32 };
    Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap()
}

/// An engine of it.
pub fn engine(limits: Limits, sums: Sums) -> Engine {
    let model = model();
    let tokenizer = Arc::new(Tokenizer::new(model.texts(), model.spec()).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    Engine::start(Setup { model, tokenizer, sums, limits, pool }).unwrap()
}

/// How tokens are chosen where a request says nothing: the likeliest.
pub const GREEDY: Defaults = Defaults {
    sampling: Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    },
    new_tokens: None,
    all_tokens: None,
};

/// A server at work.
pub struct Server {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Served>>,
}

impl Server {
    /// With these limits, and a key.
    pub fn start(limits: Limits, key: Option<&str>) -> Server {
        let model = model();
        let tokenizer = Arc::new(Tokenizer::new(model.texts(), model.spec()).unwrap());
        let template = ChatTemplate::new(model.texts()).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let sums = Sums::Fastest(ActivationMode::F32);
        let engine =
            Engine::start(Setup { model, tokenizer: Arc::clone(&tokenizer), sums, limits, pool }).unwrap();
        let service = Service {
            engine,
            tokenizer,
            template: Some(template),
            name: "demo".to_owned(),
            defaults: GREEDY,
            limits,
            key: key.map(str::to_owned),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let work = move || serve(listener, service, &|| told.load(Ordering::Relaxed)).unwrap();
        Server { address, stop, thread: Some(std::thread::spawn(work)) }
    }

    /// Tells it to stop.
    pub fn tell(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Tells it to stop and waits.
    pub fn stop(mut self) -> Served {
        self.tell();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Sends a request and reads the head of the answer.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "", &body.to_string())
    }

    /// A request that must succeed.
    pub fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        let (status, text) = (answer.status, answer.text());
        assert_eq!(status, 200, "{body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A number on the page of metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Asks for a number until it is so.
    pub fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        while !wanted(self.metric(name)) {
            assert!(begun.elapsed() < LONG, "{name} never was as wanted");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer whose body is still to be read.
pub struct Answer {
    pub status: u16,
    /// Lines of the head, in small letters.
    pub headers: Vec<String>,
    reader: BufReader<TcpStream>,
}

impl Answer {
    pub fn read(stream: TcpStream) -> Answer {
        let mut reader = BufReader::new(stream);
        let mut line = |what: &str| {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap_or_else(|error| panic!("{what}: {error}"));
            line.trim_end().to_lowercase()
        };
        let first = line("status");
        let status = first.split(' ').nth(1).unwrap_or_else(|| panic!("{first:?}")).parse().unwrap();
        let headers: Vec<String> =
            std::iter::from_fn(|| Some(line("head")).filter(|line| !line.is_empty())).collect();
        Answer { status, headers, reader }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body, whole; chunks are put together.
    pub fn text(mut self) -> String {
        let mut out = Vec::new();
        if self.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                out.extend(chunk);
            }
        } else {
            self.reader.read_to_end(&mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    /// The next piece of a body in chunks.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap_or_else(|_| panic!("chunk of {size:?}"));
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The error that a refusal has.
    pub fn error(self) -> Value {
        let status = self.status;
        let text = self.text();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text:?}"));
        let error = value["error"].as_object().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"], "{text}");
        value["error"].clone()
    }

    /// Documents of a stream of events, which must end with `[DONE]`.
    pub fn events(self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")));
        let text = self.text();
        let mut events: Vec<&str> =
            text.split("\n\n").filter(|part| !part.is_empty() && !part.starts_with(':')).collect();
        assert_eq!(events.pop(), Some("data: [DONE]"), "{text}");
        events
            .into_iter()
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}
