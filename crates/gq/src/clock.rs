//! The time that chat templates are told: now, or what `--date` says.

use gq_text::Clock;
use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use std::sync::Arc;

/// Directives of `strftime` that mean the same here as in Python, whatever the locale.
const DIRECTIVES: &str = "aAbBdDeFhHIjmMnpRStTuwyY%";

/// Parses `--date`: a day, with or without a time of day.
pub fn parse_date(text: &str) -> Result<DateTime, String> {
    let date = text.parse::<DateTime>().or_else(|_| text.replacen(' ', "T", 1).parse());
    date.map_err(|_| format!("'{text}' is no date: write 2025-07-26 or 2025-07-26T13:05:09"))
}

/// A clock that stands at `date`, or tells the local time.
pub fn clock(date: Option<DateTime>) -> Clock {
    Arc::new(move |format: &str| strftime(format, date.unwrap_or_else(|| Zoned::now().datetime())))
}

/// A clock that stands at 1 January 2025: for calibration and measurements, which must not change with the day.
pub fn standing() -> Clock {
    clock(Some(jiff::civil::date(2025, 1, 1).at(0, 0, 0, 0)))
}

/// `date.strftime(format)` of Python.
fn strftime(format: &str, date: DateTime) -> Result<String, String> {
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            continue;
        }
        let directive = match rest.next() {
            Some('-') => rest.next().filter(|c| "dHIjmMSy".contains(*c)),
            directive => directive.filter(|c| DIRECTIVES.contains(*c)),
        };
        if directive.is_none() {
            return Err(format!("the directive after '%' in strftime_now('{format}') is not supported here"));
        }
    }
    strtime::format(format, date).map_err(|error| format!("strftime_now('{format}'): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: `datetime(2025, 7, 6, 3, 5, 9).strftime(…)` and `datetime(2024, 12, 31, 23, 59, 0)` of Python 3.
    #[test]
    fn as_python_formats_it() {
        let formats = "%a %A %b %B %d %D %e %F %h %H %I %j %m %M %n %p %R %S %t %T %u %w %y %Y %% %-d %-H %-I %-j %-m %-M %-S %-y";
        let early = "Sun Sunday Jul July 06 07/06/25  6 2025-07-06 Jul 03 03 187 07 05 \n AM 03:05 09 \t 03:05:09 7 0 25 2025 % 6 3 3 187 7 5 9 25";
        let late = "Tue Tuesday Dec December 31 12/31/24 31 2024-12-31 Dec 23 11 366 12 59 \n PM 23:59 00 \t 23:59:00 2 2 24 2024 % 31 23 11 366 12 59 0 24";
        assert_eq!(strftime(formats, parse_date("2025-07-06T03:05:09").unwrap()).as_deref(), Ok(early));
        assert_eq!(strftime(formats, parse_date("2024-12-31 23:59").unwrap()).as_deref(), Ok(late));
        assert_eq!(strftime("é %d", parse_date("2025-07-06").unwrap()).as_deref(), Ok("é 06"));
    }

    #[test]
    fn what_is_not_sure_is_refused() {
        let date = parse_date("2025-07-06").unwrap();
        for format in ["%c", "%x", "%Z", "%", "%-", "%-Y", "%Q", "%10d", "%é"] {
            assert!(strftime(format, date).unwrap_err().contains("not supported"), "{format}");
        }
        for text in ["today", "2025-02-30", "07/06/2025", ""] {
            assert!(parse_date(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_standing_clock_is_asked_like_any_other() {
        assert_eq!(standing()("%d %b %Y").as_deref(), Ok("01 Jan 2025"));
        assert_eq!(standing()("%Y-%m-%d, %H:%M").as_deref(), Ok("2025-01-01, 00:00"));
        assert!(standing()("%c").is_err());
    }

    #[test]
    fn without_a_date_it_is_today() {
        let year = clock(None)("%Y").unwrap();
        assert!(year.parse::<u32>().unwrap() >= 2025);
        assert_eq!(clock(Some(parse_date("1815-12-23").unwrap()))("%d %B %Y").unwrap(), "23 December 1815");
    }
}
