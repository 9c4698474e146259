//! Several requests at a time, each for one chunk of one file.

use super::chunks::Partial;
use super::finish::{check_space, finish};
use super::{FileState, PullOptions, PullPlan, is_cached, partial_paths, state_of};
use crate::cache::RepoCache;
use crate::client::{Asked, Control, Failure, Hub, Refused, header, same_origin, transient, without_query};
use crate::tree::RemoteFile;
use crate::{Event, HubError};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use ureq::Body;
use ureq::http::Response;

/// A file being fetched.
struct Job<'p> {
    file: &'p RemoteFile,
    /// Where else the same content belongs.
    twins: Vec<&'p RemoteFile>,
    url: String,
    /// The address behind the Hub's redirect, once known; signed addresses expire.
    direct: Mutex<Option<String>>,
    partial: Partial,
    chunks_left: AtomicU64,
    _lock: File,
}

/// Fetches every file of the plan that the cache lacks and links them all.
pub(super) fn fetch_all(
    hub: &Hub,
    cache: &RepoCache,
    plan: &PullPlan,
    options: &PullOptions,
    control: &Control<'_>,
) -> Result<(), HubError> {
    let blobs = cache.blobs_dir();
    std::fs::create_dir_all(&blobs).map_err(HubError::io("create", &blobs))?;
    let mut wanted: HashMap<_, Vec<&RemoteFile>> = HashMap::new();
    for planned in &plan.files {
        wanted.entry(planned.file.digest).or_default().push(&planned.file);
    }
    // Locks are taken in the order of their names, so that two processes cannot wait for each other.
    let mut groups: Vec<_> = wanted.into_values().collect();
    groups.sort_by_key(|files| files[0].digest.to_hex());
    check_space(&blobs, missing_bytes(cache, &groups), options.reserve_bytes)?;

    let mut jobs = Vec::new();
    let mut queue = VecDeque::new();
    for files in &groups {
        control.check()?;
        if let Some((job, chunks)) = prepare(hub, cache, plan, files, options, control)? {
            if chunks.is_empty() {
                complete(cache, plan, &job, control)?;
                continue;
            }
            queue.extend(chunks.into_iter().map(|chunk| (jobs.len(), chunk)));
            jobs.push(job);
        }
    }
    run(hub, cache, plan, options, control, &jobs, Mutex::new(queue))
}

fn missing_bytes(cache: &RepoCache, groups: &[Vec<&RemoteFile>]) -> u64 {
    let missing = |file: &RemoteFile| match state_of(cache, file) {
        FileState::Cached => 0,
        FileState::Partial(have) => file.size - have.min(file.size),
        FileState::Missing => file.size,
    };
    groups.iter().map(|files| missing(files[0])).sum()
}

/// Links content that is here; otherwise locks it and finds out which chunks are missing.
fn prepare<'p>(
    hub: &Hub,
    cache: &RepoCache,
    plan: &'p PullPlan,
    files: &[&'p RemoteFile],
    options: &PullOptions,
    control: &Control<'_>,
) -> Result<Option<(Job<'p>, Vec<u64>)>, HubError> {
    let file = files[0];
    let link_cached = || {
        // Whoever was killed between naming the blob and tidying up left a journal.
        partial_paths(cache, file).forget();
        for file in files {
            (control.progress)(Event::Started { path: &file.path, size: file.size, have: file.size });
            cache.link(&plan.commit, &file.path, file.digest)?;
            (control.progress)(Event::Finished { path: &file.path });
        }
        Ok(None)
    };
    if is_cached(cache, file) {
        return link_cached();
    }
    let lock = cache.lock(file.digest, options.lock_wait)?;
    if is_cached(cache, file) {
        return link_cached(); // by the process that held the lock
    }
    let (partial, chunks) = Partial::open(partial_paths(cache, file), file.size, options.chunk_bytes)?;
    let missing: u64 = chunks.iter().map(|&c| partial.range(c)).map(|r| r.end - r.start).sum();
    (control.progress)(Event::Started { path: &file.path, size: file.size, have: file.size - missing });
    let job = Job {
        file,
        twins: files[1..].to_vec(),
        url: hub.file_url(&plan.repo, &plan.commit, &file.path),
        direct: Mutex::new(None),
        partial,
        chunks_left: AtomicU64::new(chunks.len() as u64),
        _lock: lock,
    };
    Ok(Some((job, chunks)))
}

fn run(
    hub: &Hub,
    cache: &RepoCache,
    plan: &PullPlan,
    options: &PullOptions,
    control: &Control<'_>,
    jobs: &[Job<'_>],
    queue: Mutex<VecDeque<(usize, u64)>>,
) -> Result<(), HubError> {
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; 1 << 16];
        while !failed.load(Ordering::Relaxed) {
            let Some((index, chunk)) = hold(&queue).pop_front() else { return };
            let job = &jobs[index];
            let fetched = fetch_chunk(hub, plan, job, chunk, options, control, &failed, &mut buffer);
            let result = fetched.and_then(|()| match job.chunks_left.fetch_sub(1, Ordering::AcqRel) {
                1 => complete(cache, plan, job, control),
                _ => Ok(()),
            });
            if let Err(error) = result {
                hold(&first_error).get_or_insert(error); // before the others are told to stop
                failed.store(true, Ordering::Release);
            }
        }
    };
    let streams = options.streams.clamp(1, 64).min(hold(&queue).len());
    std::thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(work);
        }
    });
    match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// All chunks are there.
fn complete(
    cache: &RepoCache,
    plan: &PullPlan,
    job: &Job<'_>,
    control: &Control<'_>,
) -> Result<(), HubError> {
    finish(cache, &plan.repo, job.file, &job.partial, control)?;
    for file in std::iter::once(&job.file).chain(&job.twins) {
        cache.link(&plan.commit, &file.path, file.digest)?;
        (control.progress)(Event::Finished { path: &file.path });
    }
    Ok(())
}

/// Fetches one chunk, going on where a cut connection left off.
#[allow(clippy::too_many_arguments)] // one call site; a struct would only rename the arguments
fn fetch_chunk(
    hub: &Hub,
    plan: &PullPlan,
    job: &Job<'_>,
    chunk: u64,
    options: &PullOptions,
    control: &Control<'_>,
    failed: &AtomicBool,
    buffer: &mut [u8],
) -> Result<(), HubError> {
    let partial = &job.partial;
    let range = partial.range(chunk);
    let mut hasher = Sha256::new();
    let (mut at, mut attempt) = (range.start, 0);
    while at < range.end {
        control.check()?;
        let before = at;
        let failure = match request(hub, plan, job, at..range.end, options) {
            Err(Refused::Final(error)) => return Err(*error),
            Err(Refused::MayPass(failure)) => failure,
            Ok(response) => {
                let mut body = response.into_body().into_reader();
                let cause = loop {
                    if failed.load(Ordering::Acquire) {
                        return Err(HubError::Cancelled); // another stream has the reason
                    }
                    control.check()?;
                    let room = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
                    if room == 0 {
                        break None;
                    }
                    match body.read(&mut buffer[..room]) {
                        Ok(0) => {
                            break Some(Failure::Cut {
                                got: at - range.start,
                                expected: range.end - range.start,
                            });
                        }
                        Ok(n) => {
                            partial.write(&buffer[..n], at)?;
                            hasher.update(&buffer[..n]);
                            at += n as u64;
                            (control.progress)(Event::Moved { path: &job.file.path, bytes: n as u64 });
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(e) => break Some(Failure::Transport(ureq::Error::Io(e))),
                    }
                };
                match cause {
                    None => {
                        // The end of the body frees the connection for the next chunk.
                        std::io::copy(&mut body.take(1), &mut std::io::sink()).ok();
                        break;
                    }
                    Some(failure) => failure,
                }
            }
        };
        attempt = if at > before { 1 } else { attempt + 1 };
        control.pause(&job.file.path, &job.url, attempt, failure)?;
    }
    partial.mark(chunk, hasher.finalize().into())
}

/// A response whose body begins at `range.start`.
fn request(
    hub: &Hub,
    plan: &PullPlan,
    job: &Job<'_>,
    range: Range<u64>,
    options: &PullOptions,
) -> Result<Response<Body>, Refused> {
    let whole = range == (0..job.file.size);
    let value = format!("bytes={}-{}", range.start, range.end - 1);
    let asked = (!whole).then_some(value.as_str());
    let direct = hold(&job.direct).clone();
    let (response, url) = hub.follow(direct.as_deref().unwrap_or(&job.url), asked, options.read_timeout)?;
    let response = transient(response)?;
    let status = response.status().as_u16();
    if direct.is_some() && matches!(status, 401 | 403 | 404 | 410) {
        *hold(&job.direct) = None; // the signature expired: ask the Hub again
        let message = String::new();
        return Err(Refused::MayPass(Failure::Status { status, asked: None, message }));
    }
    if !response.status().is_success() {
        return Err(hub.refusal(&plan.repo, Asked::File(&job.file.path), &url, response).into());
    }
    check_range(&response, &url, range, job.file.size)?;
    if !same_origin(&url, hub.endpoint()) {
        *hold(&job.direct) = Some(url);
    }
    Ok(response)
}

/// Refuses a body that is not the part asked for: written in place, it would look like the file.
fn check_range(response: &Response<Body>, url: &str, range: Range<u64>, size: u64) -> Result<(), HubError> {
    let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let actual = match response.status().as_u16() {
        206 => header(response.headers(), "content-range").unwrap_or("none").to_owned(),
        _ if range == (0..size) => match header(response.headers(), "content-length") {
            Some(length) if length != size.to_string() => format!("a body of {length} bytes"),
            Some(_) | None => return Ok(()),
        },
        status => format!("status {status}, the whole file"),
    };
    if actual == expected {
        return Ok(());
    }
    Err(HubError::WrongRange { url: without_query(url), expected, actual })
}

fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
