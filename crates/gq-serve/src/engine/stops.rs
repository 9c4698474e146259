//! Strings that end an answer, found across tokens.

/// Text on its way out, of which what may be the beginning of a stop string is held back.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    strings: Vec<String>,
    held: String,
}

impl Stops {
    /// Ends at the first of `strings`; empty ones end nothing.
    pub(super) fn new(strings: Vec<String>) -> Stops {
        Stops { strings: strings.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new() }
    }

    /// Adds text; gives what is certain to be part of the answer, and whether a stop string came after it.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held += text;
        let first = self.strings.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.strings.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is held back: part of the answer when nothing comes after it.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that `stop` begins with, and goes on after.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strings: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stops = Stops::new(strings.iter().map(|s| (*s).to_owned()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, hit) = stops.push(piece);
            out.push(text);
            if hit {
                return (out, true);
            }
        }
        out.push(stops.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_is_found_wherever_it_is_cut() {
        let text = "one END two";
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let (out, hit) = run(&["END"], &[&text[..cut], &text[cut..second], &text[second..]]);
                assert_eq!((out.concat().as_str(), hit), ("one ", true), "{cut} {second}");
            }
        }
    }

    #[test]
    fn the_earliest_of_several_ends_and_beginnings_are_given_back() {
        assert_eq!(run(&["cd", "b"], &["abcd"]), (vec!["a".to_owned()], true));
        // `aab` after `aa` that turned out to be none.
        assert_eq!(run(&["aab"], &["aa", "ab"]).0.concat(), "a");
        assert_eq!(
            run(&["END"], &["E", "N", "x", "EN"]),
            (["", "", "ENx", "", "EN"].map(str::to_owned).into(), false)
        );
        assert_eq!(
            run(&["", "€"], &["a\u{20ab}"]).0.concat(),
            "a\u{20ab}",
            "bytes in common are no overlap of characters"
        );
        assert_eq!(run(&[], &["a", "b"]), (vec!["a".to_owned(), "b".to_owned(), String::new()], false));
    }
}
