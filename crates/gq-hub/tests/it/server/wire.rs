//! Requests as they come and answers as they go, with what goes wrong on the way.

use super::api::answer_api;
use super::cdn::answer_cdn;
use super::{File, Seen, State};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn path(&self) -> String {
        percent_decode(self.target.split('?').next().unwrap())
    }

    pub(super) fn query(&self, key: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        query.split('&').filter_map(|p| p.split_once('=')).find(|p| p.0 == key).map(|p| percent_decode(p.1))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        if bytes[i] == b'%' {
            out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, target, headers, body })
}

pub(super) enum Reply {
    Json(u16, Vec<(String, String)>, Value),
    Redirect(String, Vec<(String, String)>),
    Bytes { file: File, range: Option<(usize, usize)>, headers: Vec<(String, String)> },
    Drop,
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Reply {
    let headers = vec![("X-Error-Code".into(), code.into()), ("X-Error-Message".into(), message.into())];
    Reply::Json(status, headers, json!({"error": message}))
}

pub(super) fn serve(state: &State, stream: TcpStream, cdn: bool) {
    stream.set_nodelay(true).unwrap();
    let mut out = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        state.busy.fetch_add(1, Ordering::SeqCst);
        state.seen.lock().unwrap().push(Seen {
            cdn,
            method: request.method.clone(),
            target: request.target.clone(),
            authorization: request.headers.get("authorization").cloned(),
            range: request.headers.get("range").cloned(),
        });
        let reply = if cdn { answer_cdn(state, &request) } else { answer_api(state, &request) };
        let written = write_reply(state, &mut out, &request, reply);
        state.busy.fetch_sub(1, Ordering::SeqCst);
        if written.is_none() {
            out.shutdown(std::net::Shutdown::Both).ok();
            return;
        }
    }
}

fn write_reply(state: &State, out: &mut TcpStream, request: &Request, reply: Reply) -> Option<()> {
    let head = request.method == "HEAD";
    let (drip, padding) = {
        let faults = state.faults.lock().unwrap();
        (faults.drip, faults.padding)
    };
    let mut send = |status: u16, headers: &[(String, String)], body: &[u8]| {
        let mut text = format!("HTTP/1.1 {status} Status\r\n");
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        if !headers.iter().any(|(name, _)| name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        out.write_all(text.as_bytes()).ok()?;
        if head { Some(()) } else { write_pieces(out, body, drip) }
    };
    match reply {
        Reply::Drop => None,
        Reply::Json(status, mut headers, value) => {
            headers.push(("Content-Type".into(), "application/json".into()));
            let mut value = value;
            if padding > 0 {
                let objects = match &mut value {
                    Value::Array(list) => list.iter_mut().collect(),
                    other => vec![other],
                };
                objects.into_iter().for_each(|object| object["padding"] = json!("x".repeat(padding)));
            }
            send(status, &headers, value.to_string().as_bytes())
        }
        Reply::Redirect(location, mut headers) => {
            headers.push(("Location".into(), location));
            send(302, &headers, b"")
        }
        Reply::Bytes { file, range, mut headers } => {
            let (start, end) = range.unwrap_or((0, file.bytes.len()));
            let (cut_after, corrupt, slow) = {
                let mut faults = state.faults.lock().unwrap();
                let middle = (faults.cut > 0).then(|| (end - start) / 2);
                faults.cut = faults.cut.saturating_sub(1);
                (middle.or(faults.cut_after), faults.corrupt, faults.slow)
            };
            headers.push(("Content-Length".into(), (end - start).to_string()));
            if range.is_some() {
                headers.push((
                    "Content-Range".into(),
                    format!("bytes {start}-{}/{}", end - 1, file.bytes.len()),
                ));
            }
            send(if range.is_some() { 206 } else { 200 }, &headers, b"")?;
            if head {
                return Some(());
            }
            let mut body = file.bytes[start..end].to_vec();
            if corrupt && file.lfs && start == 0 {
                body[0] ^= 1;
            }
            let stop = cut_after.unwrap_or(body.len()).min(body.len());
            let (piece, slow) = drip.map_or((1 << 14, slow), |(piece, pause)| (piece, Some(pause)));
            for piece in body[..stop].chunks(piece) {
                out.write_all(piece).ok()?;
                *state.served.lock().unwrap().entry(file.etag()).or_default() += piece.len() as u64;
                if let Some(pause) = slow {
                    std::thread::sleep(pause);
                }
            }
            (stop == body.len()).then_some(())
        }
    }
}

fn write_pieces(out: &mut TcpStream, body: &[u8], drip: Option<(usize, Duration)>) -> Option<()> {
    let Some((piece, pause)) = drip else { return out.write_all(body).ok() };
    for piece in body.chunks(piece) {
        out.write_all(piece).ok()?;
        std::thread::sleep(pause);
    }
    Some(())
}
