//! Include and exclude patterns, with the meaning `huggingface_hub` gives them.

use crate::{MODEL_FILES, OTHER_COPIES};

/// Which files of a repository are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globs {
    /// Patterns of which one must match; none means everything.
    pub include: Vec<String>,
    /// Patterns of which none may match.
    pub exclude: Vec<String>,
}

impl Globs {
    /// Only files that match one of `patterns`.
    pub fn including<S: AsRef<str>>(patterns: &[S]) -> Globs {
        Globs { include: patterns.iter().map(|p| p.as_ref().to_owned()).collect(), exclude: Vec::new() }
    }

    /// What a command fetches when it is given a model that is not cached: [`MODEL_FILES`] without [`OTHER_COPIES`].
    pub fn model() -> Globs {
        Globs { exclude: OTHER_COPIES.map(str::to_owned).to_vec(), ..Globs::including(&MODEL_FILES) }
    }

    /// Whether the file at `path` (with forward slashes) is wanted.
    pub fn accepts(&self, path: &str) -> bool {
        let hit = |patterns: &[String]| patterns.iter().any(|p| matches(p, path));
        (self.include.is_empty() || hit(&self.include)) && !hit(&self.exclude)
    }
}

/// `*` any run of characters (also `/`), `?` one character, `[abc]`, `[a-z]`, `[!abc]`; a trailing `/` means a folder.
fn matches(pattern: &str, path: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let path: Vec<char> = path.chars().collect();
    // Greedy with one saved star: linear memory, at most quadratic time whatever the pattern.
    let (mut p, mut t, mut saved) = (0, 0, None);
    while t < path.len() {
        match one(&pattern, p, path[t]) {
            Step::Star => {
                saved = Some((p, t));
                p += 1;
            }
            Step::Hit(next) => {
                p = next;
                t += 1;
            }
            Step::Miss => match saved {
                None => return false,
                Some((star, from)) => {
                    saved = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

enum Step {
    Star,
    Hit(usize),
    Miss,
}

fn one(pattern: &[char], at: usize, c: char) -> Step {
    let hit = |yes: bool, next: usize| if yes { Step::Hit(next) } else { Step::Miss };
    match pattern.get(at) {
        None => Step::Miss,
        Some('*') => Step::Star,
        Some('?') => Step::Hit(at + 1),
        Some('[') => match class(pattern, at, c) {
            Some((yes, next)) => hit(yes, next),
            None => hit(c == '[', at + 1),
        },
        Some(&literal) => hit(c == literal, at + 1),
    }
}

/// Whether `c` is in the bracket expression at `at`, and where it ends; `None` when it is not closed.
fn class(pattern: &[char], at: usize, c: char) -> Option<(bool, usize)> {
    let negated = pattern.get(at + 1) == Some(&'!');
    let start = at + 1 + usize::from(negated);
    let close = start + 1 + pattern.get(start + 1..)?.iter().position(|&c| c == ']')?;
    let set = &pattern[start..close];
    let (mut i, mut found) = (0, false);
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            found |= set[i] <= c && c <= set[i + 2];
            i += 3;
        } else {
            found |= set[i] == c;
            i += 1;
        }
    }
    Some((found != negated, close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_fnmatch() {
        let cases = [
            ("*.json", "config.json", true),
            ("*.json", "sub/dir/config.json", true),
            ("*.json", "config.jsonl", false),
            ("original/", "original/params.json", true),
            ("original/", "original", false),
            ("model-0000?-of-*.safetensors", "model-00001-of-00002.safetensors", true),
            ("[!m]*", "model", false),
            ("[a-m]*", "model", true),
            ("[", "[", true),
            ("*a*b*c", "xaxxbxc", true),
            ("*a*b*c", "xaxxbx", false),
            ("", "", true),
            ("*", "", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern:?} {path:?}");
        }
        let globs = Globs { include: vec!["*.json".into()], exclude: vec!["tok*".into()] };
        assert!(globs.accepts("config.json") && !globs.accepts("tokenizer.json") && !globs.accepts("a.bin"));
        assert!(Globs::default().accepts("anything"));
    }

    /// As openai/gpt-oss-20b and mistralai's repositories have them.
    #[test]
    fn another_copy_of_the_weights_is_no_part_of_a_model() {
        let model = Globs::model();
        let read = [
            "config.json",
            "model-00001-of-00003.safetensors",
            "model.safetensors.index.json",
            "adapter_model.safetensors",
            "tokenizer.json",
            "additional_chat_templates/tool_use.jinja",
            "LICENSE",
        ];
        read.iter().for_each(|path| assert!(model.accepts(path), "{path}"));
        let left = [
            "original/model.safetensors",
            "original/model--00001-of-00007.safetensors",
            "original/dtypes.json",
            "consolidated.safetensors",
            "consolidated-00001-of-00009.safetensors",
            "metal/model.bin",
            "pytorch_model.bin",
        ];
        left.iter().for_each(|path| assert!(!model.accepts(path), "{path}"));
    }

    #[test]
    fn a_hostile_pattern_is_not_exponential() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &("a".repeat(4000) + "b")));
    }
}
