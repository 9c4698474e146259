//! Sizes and times as people write and read them.

/// Parses a size in bytes: `4GiB`, `500 MB`, `1073741824`. A bare `G` is refused because it means two things.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err("expected a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number such as 4GiB".to_owned())?;
    let bytes = number * scale as f64;
    if bytes.is_finite() && bytes < 1e18 { Ok(bytes as u64) } else { Err("too large".to_owned()) }
}

/// Parses a number of tokens: `8192`, `32k` (1024 each, as contexts are named), `1M`.
pub fn parse_tokens(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        _ => return Err("expected a number of tokens such as 8192 or 32k".to_owned()),
    };
    if number.is_empty() {
        return Err("expected a number of tokens such as 8192 or 32k".to_owned());
    }
    let number = number.parse::<usize>().ok();
    number
        .and_then(|number| number.checked_mul(scale))
        .filter(|&tokens| tokens <= 1 << 40)
        .ok_or_else(|| "too large".to_owned())
}

/// Parses a count of at least one.
pub fn parse_positive(text: &str) -> Result<usize, String> {
    let number = text.trim().parse::<usize>().ok().filter(|n| *n > 0);
    number.ok_or_else(|| "expected a whole number from 1 on".to_owned())
}

/// Bytes in decimal units, three digits: `70.5 MB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match (unit, value) {
        (0, _) => format!("{n} B"),
        (_, v) if v < 9.995 => format!("{v:.2} {}", units[unit]),
        (_, v) if v < 99.95 => format!("{v:.1} {}", units[unit]),
        (_, v) => format!("{v:.0} {}", units[unit]),
    }
}

/// Seconds as `0.84 s`, `12 s`, `3 min 20 s`, `2 h 05 min`.
pub fn seconds(s: f64) -> String {
    let whole = s.round() as u64;
    match s {
        s if s < 9.95 => format!("{s:.2} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 3570.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Seconds that are only known roughly: `under a second`, `12 s`, `3 min 20 s`, `12 min`, `2 h 05 min`.
pub fn rough_seconds(s: f64) -> String {
    match s {
        s if s < 1.0 => "under a second".to_owned(),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 600.0 => seconds((s / 10.0).round() * 10.0),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s => seconds(s),
    }
}

/// A size as it is asked for, exactly, in the largest unit that gives it in few digits: `91MB`, `82.5MB`, `16GiB`.
pub fn asked_bytes(n: u64) -> String {
    let whole = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")].into_iter();
    let decimal = [(1_000_000_000_000_u64, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    if let Some((unit, name)) = whole.into_iter().find(|(unit, _)| n > 0 && n.is_multiple_of(*unit)) {
        return format!("{}{name}", n / unit);
    }
    match decimal.into_iter().find(|(unit, _)| n >= *unit && n.is_multiple_of(unit / 1000)) {
        Some((unit, name)) => format!("{}{name}", n as f64 / unit as f64),
        None => format!("{n}B"),
    }
}

/// A number of tokens as contexts are named: `32k`, `8192` becomes `8k`.
pub fn asked_tokens(n: usize) -> String {
    match n {
        n if n > 0 && n.is_multiple_of(1 << 20) => format!("{}M", n >> 20),
        n if n > 0 && n.is_multiple_of(1 << 10) => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

/// Billions in two digits: `7.2`.
pub fn billions(n: u64) -> String {
    format!("{:.1}", n as f64 / 1e9)
}

/// A value and its standard error with two digits of the error: `0.00758 ± 0.00049`.
pub fn with_error(value: f64, error: f64) -> String {
    let decimals = match error > 0.0 {
        true => (1.0 - error.log10().floor()).clamp(0.0, 12.0) as usize,
        false => 4,
    };
    format!("{value:.decimals$} ± {error:.decimals$}")
}

/// A count with thousands separated: `134,515,008`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Text from a file made safe for a terminal: control characters are escaped.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control();
            let shown: Vec<char> = if escaped { c.escape_default().collect() } else { vec![c] };
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse_bytes("12"), Ok(12));
        assert!(parse_bytes("4G").is_err());
        assert!(parse_bytes("GiB").is_err());
        assert!(parse_bytes("9999999TB").is_err());
    }

    #[test]
    fn contexts_are_read() {
        assert_eq!(
            [parse_tokens("8192"), parse_tokens("32k"), parse_tokens("1M")],
            [Ok(8192), Ok(32768), Ok(1 << 20)]
        );
        for bad in ["", "k", "3.5k", "32kB", "-1", "99999999999999M"] {
            assert!(parse_tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_times_and_counts_are_written() {
        assert_eq!(
            [bytes(12), bytes(1500), bytes(70_512_345), bytes(999_999)],
            ["12 B", "1.50 kB", "70.5 MB", "1.00 MB"]
        );
        assert_eq!([seconds(0.84), seconds(200.0), seconds(7500.0)], ["0.84 s", "3 min 20 s", "2 h 05 min"]);
        let rough = [0.2, 12.4, 203.0, 1234.0, 7500.0].map(rough_seconds);
        assert_eq!(rough, ["under a second", "12 s", "3 min 20 s", "21 min", "2 h 05 min"]);
        let asked = [91_000_000, 82_500_000, 16 << 30, 1_500_000_000, 1_234, 999_999].map(asked_bytes);
        assert_eq!(asked, ["91MB", "82.5MB", "16GiB", "1.5GB", "1.234kB", "999.999kB"]);
        assert_eq!([asked_tokens(8192), asked_tokens(1 << 20), asked_tokens(1000)], ["8k", "1M", "1000"]);
        assert_eq!([count(7), count(1234), count(134515008)], ["7", "1,234", "134,515,008"]);
        assert_eq!(
            [with_error(0.00758, 0.00049), with_error(1.0, 0.0)],
            ["0.00758 ± 0.00049", "1.0000 ± 0.0000"]
        );
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}
