//! Several requests at a time, each for one chunk of one file.

use super::chunks::Partial;
use super::finish::{check_space, finish, is_whole};
use super::rate::Rate;
use super::{PullOptions, PullPlan, partial_paths};
use crate::address::{same_origin, without_query};
use crate::cache::RepoCache;
use crate::client::{Asked, Control, Hub};
use crate::refusal::{Failure, Refused, header, transient};
use crate::retry::Failures;
use crate::tree::RemoteFile;
use crate::verified::Verified;
use crate::{Event, FileDigest, HubError};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use ureq::Body;
use ureq::http::Response;

/// What of the transfer is the same for every file.
struct Work<'a> {
    hub: &'a Hub,
    cache: &'a RepoCache,
    plan: &'a PullPlan,
    options: &'a PullOptions,
    control: &'a Control<'a>,
    verified: Mutex<Verified>,
}

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

/// What a stream knows of the others.
struct Others<'a> {
    failed: &'a AtomicBool,
    running: &'a AtomicUsize,
}

impl Others<'_> {
    /// Streams that run, this one among them.
    fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }
}

/// Counts a stream until it ends.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Fetches every file of the plan that the cache lacks and links them all.
pub(super) fn fetch_all(
    hub: &Hub,
    cache: &RepoCache,
    plan: &PullPlan,
    options: &PullOptions,
    control: &Control<'_>,
) -> Result<(), HubError> {
    cache.create_blobs()?;
    let mut wanted: HashMap<_, Vec<&RemoteFile>> = HashMap::new();
    for planned in &plan.files {
        wanted.entry(planned.file.digest).or_default().push(&planned.file);
    }
    // Locks are taken in the order of their names, so that two processes cannot wait for each other.
    let mut groups: Vec<_> = wanted.into_values().collect();
    groups.sort_by_key(|files| files[0].digest.to_hex());
    let work =
        Work { hub, cache, plan, options, control, verified: Mutex::new(Verified::open(&cache.dir())) };
    let outcome = work.all(&groups);
    // What has been hashed need not be hashed again, also where something else failed.
    let saved = hold(&work.verified).save();
    outcome.and(saved)
}

impl<'a> Work<'a> {
    fn all(&self, groups: &[Vec<&'a RemoteFile>]) -> Result<(), HubError> {
        let mut here = HashSet::new();
        for file in groups.iter().map(|files| files[0]) {
            self.control.check()?;
            if is_whole(self.cache, file, &mut hold(&self.verified), self.control) {
                here.insert(file.digest);
            }
        }
        let needed = groups.iter().map(|files| files[0]).filter(|file| !here.contains(&file.digest));
        let needed = needed.map(|file| missing_bytes(self.cache, file)).fold(0, u64::saturating_add);
        check_space(&self.cache.blobs_dir(), needed, self.options.reserve_bytes)?;

        let mut jobs = Vec::new();
        let mut queue = VecDeque::new();
        for files in groups {
            self.control.check()?;
            if let Some((job, chunks)) = self.prepare(files, &here)? {
                if chunks.is_empty() {
                    self.complete(&job)?;
                    continue;
                }
                queue.extend(chunks.into_iter().map(|chunk| (jobs.len(), chunk)));
                jobs.push(job);
            }
        }
        self.run(&jobs, Mutex::new(queue))
    }

    /// Links content that is here; otherwise locks it and finds out which chunks are missing.
    fn prepare(
        &self,
        files: &[&'a RemoteFile],
        here: &HashSet<FileDigest>,
    ) -> Result<Option<(Job<'a>, Vec<u64>)>, HubError> {
        let Work { cache, options, control, .. } = *self;
        let file = files[0];
        let link_cached = || {
            // Whoever was killed between naming the blob and tidying up left a journal.
            partial_paths(cache, file).forget();
            for file in files {
                (control.progress)(Event::Started { path: &file.path, size: file.size, have: file.size });
                cache.link(&self.plan.commit, &file.path, file.digest)?;
                (control.progress)(Event::Finished { path: &file.path });
            }
            Ok(None)
        };
        if here.contains(&file.digest) {
            return link_cached();
        }
        let waiting = |lock: &Path| (control.progress)(Event::Waiting { path: &file.path, lock });
        let lock = cache.lock(file.digest, options.lock_wait, control.cancel, &waiting)?;
        if is_whole(cache, file, &mut hold(&self.verified), control) {
            return link_cached(); // by the process that held the lock
        }
        let (partial, chunks) = Partial::open(partial_paths(cache, file), file.size, options.chunk_bytes)?;
        let missing: u64 = chunks.iter().map(|&c| partial.range(c)).map(|r| r.end - r.start).sum();
        (control.progress)(Event::Started { path: &file.path, size: file.size, have: file.size - missing });
        let job = Job {
            file,
            twins: files[1..].to_vec(),
            url: self.hub.file_url(&self.plan.repo, &self.plan.commit, &file.path),
            direct: Mutex::new(None),
            partial,
            chunks_left: AtomicU64::new(chunks.len() as u64),
            _lock: lock,
        };
        Ok(Some((job, chunks)))
    }

    fn run(&self, jobs: &[Job<'_>], queue: Mutex<VecDeque<(usize, u64)>>) -> Result<(), HubError> {
        let failed = AtomicBool::new(false);
        let first_error = Mutex::new(None);
        let streams = self.options.streams.clamp(1, 64).min(hold(&queue).len());
        let running = AtomicUsize::new(streams);
        let work = || {
            let _running = Running(&running);
            let mut buffer = vec![0; 1 << 16];
            while !failed.load(Ordering::Relaxed) {
                let Some((index, chunk)) = hold(&queue).pop_front() else { return };
                let job = &jobs[index];
                let fetched =
                    self.fetch_chunk(job, chunk, &Others { failed: &failed, running: &running }, &mut buffer);
                let result = fetched.and_then(|()| match job.chunks_left.fetch_sub(1, Ordering::AcqRel) {
                    1 => self.complete(job),
                    _ => Ok(()),
                });
                if let Err(error) = result {
                    hold(&first_error).get_or_insert(error); // before the others are told to stop
                    failed.store(true, Ordering::Release);
                }
            }
        };
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
    fn complete(&self, job: &Job<'_>) -> Result<(), HubError> {
        let stands = finish(self.cache, &self.plan.repo, job.file, &job.partial, self.control)?;
        hold(&self.verified).note(job.file.digest, &stands);
        for file in std::iter::once(&job.file).chain(&job.twins) {
            self.cache.link(&self.plan.commit, &file.path, file.digest)?;
            (self.control.progress)(Event::Finished { path: &file.path });
        }
        Ok(())
    }

    /// Fetches one chunk, going on where a cut connection left off.
    fn fetch_chunk(
        &self,
        job: &Job<'_>,
        chunk: u64,
        others: &Others<'_>,
        buffer: &mut [u8],
    ) -> Result<(), HubError> {
        let partial = &job.partial;
        let range = partial.range(chunk);
        let mut hasher = Sha256::new();
        let (mut at, mut failures) = (range.start, Failures::default());
        let mut rate = Rate::new(self.options, range.end - range.start, others.running());
        while at < range.end {
            self.control.check()?;
            let mut asked = Instant::now();
            let failure = match self.request(job, at..range.end) {
                Err(Refused::Final(error)) => return Err(*error),
                Err(Refused::MayPass(failure)) => failure,
                Ok(response) => {
                    let mut body = response.into_body().into_reader();
                    let cause = loop {
                        if others.failed.load(Ordering::Acquire) {
                            return Err(HubError::Cancelled); // another stream has the reason
                        }
                        self.control.check()?;
                        let room = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
                        if room == 0 {
                            break None;
                        }
                        match body.read(&mut buffer[..room]) {
                            Ok(0) => {
                                let (got, expected) = (at - range.start, range.end - range.start);
                                break Some(Failure::Cut { got, expected });
                            }
                            Ok(n) => {
                                partial.write(&buffer[..n], at)?;
                                hasher.update(&buffer[..n]);
                                at += n as u64;
                                (self.control.progress)(Event::Moved {
                                    path: &job.file.path,
                                    bytes: n as u64,
                                });
                                let time = asked.elapsed();
                                asked += time;
                                let slow = rate.slow(n as u64, time, others.running());
                                if let Some(slow) = slow.filter(|_| at < range.end) {
                                    break Some(slow);
                                }
                            }
                            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                            Err(e) => break Some(Failure::Transport(ureq::Error::from(e))),
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
            if rate.further() {
                failures = Failures::default();
            }
            self.control.pause(&job.file.path, &job.url, &mut failures, failure)?;
        }
        partial.mark(chunk, hasher.finalize().into())
    }

    /// A response whose body begins at `range.start`.
    fn request(&self, job: &Job<'_>, range: Range<u64>) -> Result<Response<Body>, Refused> {
        let whole = range == (0..job.file.size);
        let value = format!("bytes={}-{}", range.start, range.end - 1);
        let asked = (!whole).then_some(value.as_str());
        let direct = hold(&job.direct).clone();
        let address = direct.as_deref().unwrap_or(&job.url);
        let (response, url) = self.hub.follow(address, asked, &|| Ok((self.options.read_timeout, None)))?;
        let response = transient(response)?;
        let status = response.status().as_u16();
        if direct.is_some() && matches!(status, 401 | 403 | 404 | 410) {
            *hold(&job.direct) = None; // the signature expired: ask the Hub again
            let message = String::new();
            return Err(Refused::MayPass(Failure::Status { status, asked: None, message }));
        }
        if !response.status().is_success() {
            return Err(self
                .hub
                .refusal(&self.plan.repo, Asked::File(&job.file.path), &url, response)
                .into());
        }
        check_range(&response, &url, range, job.file.size)?;
        if !same_origin(&url, self.hub.endpoint()) {
            *hold(&job.direct) = Some(url);
        }
        Ok(response)
    }
}

/// Bytes still to be fetched of a file that is not here, or not as it should be.
fn missing_bytes(cache: &RepoCache, file: &RemoteFile) -> u64 {
    file.size - Partial::peek(&partial_paths(cache, file), file.size).min(file.size)
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
