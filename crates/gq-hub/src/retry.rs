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
    /// Longest wait that a server may ask for with `Retry-After`.
    pub longest_asked: Duration,
    /// Windows in a row that are slower than the least rate, after which a transfer is given up.
    pub slow_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: 8,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            longest_asked: Duration::from_secs(300), // the Hub counts requests in windows of five minutes
            slow_attempts: 3,
        }
    }
}

impl RetryPolicy {
    /// Time to wait after failure number `attempt` (from 1); `asked` is what the server asked for.
    ///
    /// `None` when the request should be given up.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts || asked.is_some_and(|a| a > self.longest_asked) {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(16);
        let own = self.base.saturating_mul(1 << doublings).min(self.cap);
        Some(asked.map_or(own, |a| a.max(own.min(self.base))))
    }
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
        let seconds = |attempt| policy.wait(attempt, None).map(|w| w.as_secs_f64());
        assert_eq!(
            [seconds(1), seconds(2), seconds(7), seconds(8)],
            [Some(0.5), Some(1.0), Some(30.0), None]
        );
        assert_eq!(policy.wait(1, Some(Duration::from_secs(42))), Some(Duration::from_secs(42)));
        assert_eq!(policy.wait(5, Some(Duration::ZERO)), Some(policy.base));
        assert_eq!(policy.wait(1, Some(Duration::from_secs(301))), None);
    }

    #[test]
    fn what_servers_ask_for() {
        assert_eq!(asked_wait(Some("7"), None), Some(Duration::from_secs(7)));
        assert_eq!(asked_wait(None, Some("\"api\";r=0;t=55")), Some(Duration::from_secs(55)));
        assert_eq!(asked_wait(Some("Wed, 21 Oct 2026 07:28:00 GMT"), None), None);
    }
}
