//! How fast one chunk comes, over all requests that are made for it.

use super::PullOptions;
use crate::refusal::Failure;
use std::time::Duration;

/// A connection that was cut after fewer bytes has come no further, however small the chunk.
const LEAST_PROGRESS: u64 = 1 << 10;

/// Parts of a chunk after which a connection that was cut has come further, where that is little.
const PARTS: u64 = 8;

/// The rate of one chunk: a window of time that repeated requests do not begin again.
///
/// Only time in which an answer was waited for or read counts: neither failed requests, which are counted by
/// themselves, nor pauses.
#[derive(Debug)]
pub(super) struct Rate {
    /// Fewest bytes of a window, all streams together.
    all: f64,
    window: Duration,
    /// Streams that ran when the window began: they only become fewer.
    streams: usize,
    time: Duration,
    bytes: u64,
    /// Bytes since the last failure, those of windows that were too slow left out.
    gained: u64,
    /// Bytes after which a request has come further.
    least_gain: u64,
}

impl Rate {
    /// The rate of a chunk of `chunk` bytes, fetched while `streams` streams run.
    pub(super) fn new(options: &PullOptions, chunk: u64, streams: usize) -> Rate {
        let all = options.least_rate as f64 * options.rate_window.as_secs_f64();
        let mut rate = Rate {
            all,
            window: options.rate_window,
            streams,
            time: Duration::ZERO,
            bytes: 0,
            gained: 0,
            least_gain: 0,
        };
        rate.least_gain = rate.share().min((chunk / PARTS).max(LEAST_PROGRESS));
        rate
    }

    /// Fewest bytes of a window.
    fn share(&self) -> u64 {
        (self.all / self.streams.max(1) as f64) as u64
    }

    /// Takes in that `bytes` came after `time`; a failure when a window has passed with fewer than a stream's share.
    ///
    /// `streams` is how many run now.
    pub(super) fn slow(&mut self, bytes: u64, time: Duration, streams: usize) -> Option<Failure> {
        self.bytes += bytes;
        self.gained += bytes;
        self.time += time;
        if self.time < self.window {
            return None;
        }
        let slow = self.bytes < self.share();
        let (bytes, time) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.time));
        self.streams = streams;
        if slow {
            self.gained = self.gained.saturating_sub(bytes);
        }
        slow.then_some(Failure::Slow { bytes, time })
    }

    /// Whether enough has come since the last failure for the next one to be the first again.
    pub(super) fn further(&mut self) -> bool {
        std::mem::take(&mut self.gained) >= self.least_gain.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn rate(streams: usize) -> Rate {
        let options = PullOptions {
            least_rate: 8 * KIB,
            rate_window: Duration::from_secs(30),
            ..PullOptions::default()
        };
        Rate::new(&options, 8 << 20, streams)
    }

    #[test]
    fn requests_that_are_cut_share_a_window_and_come_no_further() {
        let mut rate = rate(8);
        // A KiB per request, each answered after two seconds: the share is 30 KiB in 30 s.
        let mut slow = None;
        for request in 1..=15 {
            slow = rate.slow(KIB, Duration::from_secs(2), 8);
            assert_eq!(slow.is_some(), request == 15, "{request}");
            assert!(!rate.further());
        }
        assert!(matches!(slow, Some(Failure::Slow { bytes, .. }) if bytes == 15 * KIB));
    }

    #[test]
    fn enough_bytes_between_two_failures_are_progress() {
        let mut rate = rate(8);
        assert!(rate.slow(29 * KIB, Duration::from_secs(1), 8).is_none());
        assert!(!rate.further());
        assert!(rate.slow(30 * KIB, Duration::from_secs(1), 8).is_none());
        assert!(rate.further());
        // A slow window is none, but what came before it is.
        assert!(rate.slow(40 * KIB, Duration::from_secs(28), 8).is_none());
        assert!(rate.slow(10 * KIB, Duration::from_secs(31), 8).is_some());
        assert!(rate.further());
        assert!(rate.slow(10 * KIB, Duration::from_secs(31), 8).is_some());
        assert!(!rate.further());
    }

    #[test]
    fn the_share_is_that_of_the_streams_that_run() {
        let second = Duration::from_secs(1);
        let mut rate = rate(8);
        // The others ended within the window: it is judged as it began, the next one by the stream that is left.
        assert!(rate.slow(31 * KIB, 30 * second, 1).is_none());
        assert!(rate.slow(239 * KIB, 30 * second, 1).is_some());
        assert!(rate.slow(240 * KIB, 30 * second, 1).is_none());
    }

    #[test]
    fn a_small_chunk_has_come_further_after_an_eighth() {
        let mut rate = Rate::new(&PullOptions::default(), 16 * KIB, 4);
        assert!(rate.slow(2 * KIB - 1, Duration::ZERO, 4).is_none() && !rate.further());
        assert!(rate.slow(2 * KIB, Duration::ZERO, 4).is_none() && rate.further());
    }
}
