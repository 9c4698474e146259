//! Where the cache is, which Hub, and who asks; values that the caller reads from the environment.

use std::path::{Path, PathBuf};

/// An access token. Never shown: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, without surrounding white space; `None` when nothing is left.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty()).then(|| Token(text.to_owned()))
    }

    /// The text that goes into the `Authorization` header.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Everything that decides where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// The folder that holds `models--org--name` folders.
    pub cache_dir: PathBuf,
    /// Scheme, host and port of the Hub, without a trailing slash.
    pub endpoint: String,
    /// Access token, when there is one.
    pub token: Option<Token>,
    /// Never touch the network.
    pub offline: bool,
    /// Proxy for the requests, as `http://host:port`.
    pub proxy: Option<String>,
}

impl HubConfig {
    /// The public Hub.
    pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

    /// The configuration that the Hub's own tools would use, from variables looked up with `var`.
    ///
    /// Reads `HF_HUB_CACHE` (older: `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `XDG_CACHE_HOME`, `HF_ENDPOINT`,
    /// `HF_TOKEN` (older: `HUGGING_FACE_HUB_TOKEN`), `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`,
    /// `HTTPS_PROXY`, `HOME` and `USERPROFILE`. Empty values count as not set. The token file is read.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> HubConfig {
        let get = |names: &[&str]| names.iter().find_map(|name| var(name).filter(|v| !v.trim().is_empty()));
        let user_home = PathBuf::from(get(&["HOME", "USERPROFILE"]).unwrap_or_else(|| ".".to_owned()));
        let tilde = |text: String| match text.strip_prefix("~/") {
            Some(rest) => user_home.join(rest),
            None => PathBuf::from(text),
        };
        let home = get(&["HF_HOME"]).map(&tilde).unwrap_or_else(|| {
            let caches = get(&["XDG_CACHE_HOME"]).map(&tilde).unwrap_or_else(|| user_home.join(".cache"));
            caches.join("huggingface")
        });
        let token_file = get(&["HF_TOKEN_PATH"]).map(&tilde).unwrap_or_else(|| home.join("token"));
        HubConfig {
            cache_dir: get(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .map(&tilde)
                .unwrap_or_else(|| home.join("hub")),
            endpoint: get(&["HF_ENDPOINT"])
                .unwrap_or_else(|| Self::DEFAULT_ENDPOINT.to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
                .and_then(|t| Token::new(&t))
                .or_else(|| token_from_file(&token_file)),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .any(|name| get(&[name]).is_some_and(|v| is_true(&v))),
            proxy: get(&["HTTPS_PROXY", "https_proxy"]),
        }
    }
}

/// The spellings that `huggingface_hub` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

fn token_from_file(path: &Path) -> Option<Token> {
    std::fs::read_to_string(path).ok().and_then(|text| Token::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_vars(|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
    }

    #[test]
    fn the_cache_is_where_the_hubs_own_tools_look() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/y")], "/y/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "~/z")], "/h/z/hub"),
            (&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "")], "/old"),
        ];
        for (vars, expected) in cases {
            assert_eq!(config(vars).cache_dir, Path::new(expected), "{vars:?}");
        }
    }

    #[test]
    fn endpoint_offline_and_tokens() {
        let plain = config(&[]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
        assert_eq!(config(&[("HF_ENDPOINT", "http://mirror:8080/")]).endpoint, "http://mirror:8080");
        for (value, offline) in
            [("1", true), ("on", true), ("Yes", true), ("TRUE", true), ("0", false), ("no", false)]
        {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), " from-file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(config(&[("HF_HOME", home)]).token, Token::new("from-file"));
        assert_eq!(config(&[("HF_HOME", home), ("HF_TOKEN", "from-var")]).token, Token::new("from-var"));
        let elsewhere = dir.path().join("other");
        std::fs::write(&elsewhere, "other").unwrap();
        let vars = [("HF_HOME", home), ("HF_TOKEN_PATH", elsewhere.to_str().unwrap())];
        assert_eq!(config(&vars).token, Token::new("other"));
        assert!(!format!("{:?}", config(&[("HF_TOKEN", "hf_secret")])).contains("hf_secret"));
    }
}
