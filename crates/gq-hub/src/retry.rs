//! When a failed request is made again, and after how long.

use std::time::Duration;

/// How often and how patiently requests are made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Failures in a row, without enough coming in between to count as progress, after which a request is given up.
    pub attempts: u32,
    /// Wait after the first failure; doubled at each further one.
    pub base: Duration,
    /// Longest wait of our own choosing.
    pub cap: Duration,
    /// Longest time that a server may ask to wait with `Retry-After`, all waits in a row together.
    pub longest_asked: Duration,
    /// Windows in a row that are slower than the least rate, after which a transfer is given up.
    pub slow_attempts: u32,
    /// Time after which it is said that a question has no answer yet.
    pub quiet: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 8,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            longest_asked: Duration::from_secs(300), // the Hub counts requests in windows of five minutes
            slow_attempts: 3,
            quiet: Duration::from_secs(5),
        }
    }
}

impl RetryPolicy {
    /// Time to wait after a further failure; `asked` is what the server asked for, `left` the time that the whole may
    /// still take.
    ///
    /// `None` when the request should be given up.
    pub(crate) fn wait(
        &self,
        failures: &mut Failures,
        asked: Option<Duration>,
        left: Option<Duration>,
    ) -> Option<Duration> {
        failures.count = failures.count.saturating_add(1);
        let waited = failures.asked.saturating_add(asked.unwrap_or_default());
        if failures.count >= self.attempts || waited > self.longest_asked {
            return None;
        }
        let doublings = (failures.count - 1).min(16);
        let own = self.base.saturating_mul(1 << doublings).min(self.cap);
        let wait = asked.map_or(own, |a| a.max(own.min(self.base)));
        failures.asked = waited;
        Some(wait).filter(|wait| left.is_none_or(|left| *wait < left))
    }
}

/// Failures of a request in a row, without progress in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// How many.
    pub(crate) count: u32,
    /// Time that the server asked to wait after them.
    asked: Duration,
}

/// Seconds asked for by `Retry-After`, or by the `t` of the Hub's `RateLimit: "api";r=0;t=55`.
pub(crate) fn asked_wait(retry_after: Option<&str>, rate_limit: Option<&str>) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse::<u64>().ok().map(Duration::from_secs);
    retry_after
        .and_then(seconds)
        .or_else(|| rate_limit?.split(';').find_map(|part| part.trim().strip_prefix("t=")).and_then(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_obey_the_server() {
        let policy = RetryPolicy::default();
        let after = |count: u32| Failures { count: count - 1, ..Failures::default() };
        let seconds = |attempt| policy.wait(&mut after(attempt), None, None).map(|w| w.as_secs_f64());
        assert_eq!(
            [seconds(1), seconds(2), seconds(7), seconds(8)],
            [Some(0.5), Some(1.0), Some(30.0), None]
        );
        let asked = |attempt, seconds| {
            policy
                .wait(&mut after(attempt), Some(Duration::from_secs(seconds)), None)
                .map(|w| w.as_secs_f64())
        };
        assert_eq!([asked(1, 42), asked(5, 0), asked(1, 301)], [Some(42.0), Some(0.5), None]);
    }

    /// A clock that nobody waits for: every wait moves it.
    #[test]
    fn waits_that_are_asked_for_again_and_again_end_in_time() {
        let policy = RetryPolicy::default();
        let waited = |asked: u64, limit: Option<u64>| {
            let (mut failures, mut clock) = (Failures::default(), Duration::ZERO);
            let left = |clock| limit.map(|limit| Duration::from_secs(limit).saturating_sub(clock));
            while let Some(wait) = policy.wait(&mut failures, Some(Duration::from_secs(asked)), left(clock)) {
                clock += wait;
            }
            clock.as_secs()
        };
        // As many as fit into five minutes; one more was asked for.
        assert_eq!([waited(300, None), waited(299, None), waited(100, None)], [300, 299, 300]);
        assert_eq!([waited(70, None), waited(301, None), waited(10, None)], [280, 0, 70]);
        // Less where the whole has less time left.
        assert_eq!([waited(60, Some(130)), waited(60, Some(50))], [120, 0]);
    }

    #[test]
    fn what_servers_ask_for() {
        assert_eq!(asked_wait(Some("7"), None), Some(Duration::from_secs(7)));
        assert_eq!(asked_wait(None, Some("\"api\";r=0;t=55")), Some(Duration::from_secs(55)));
        assert_eq!(asked_wait(Some("Wed, 21 Oct 2026 07:28:00 GMT"), None), None);
    }
}
